"""SVG as text: elements, scales and the frame of a plot. Colors are classes of ``style.css``, for light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nases_env.report.text import printable_lines

STEPS = (1.0, 2.0, 5.0, 10.0)  # distances between ticks, times a power of ten
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 26.0, 36.0  # margins of a plot in pixels
TICK_DISTANCE_X, TICK_DISTANCE_Y = 70.0, 42.0  # pixels
LABEL_DISTANCE = 13.0  # pixels between two labels of lines
MIN_RANGE = 1e-6  # of a scale, relative to its values

Format = Callable[[float], str]


def element(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """Return an element; text and attributes are escaped. Underscores in names of attributes become hyphens."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items() if value is not None
    )
    inside = "".join(each if isinstance(each, Markup) else escape(printable_lines(each)) for each in content)
    return Markup(f"<{name}{shown}>{inside}</{name}>")


def _value(value: str | float) -> str:
    return str(escape(printable_lines(value))) if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """Format a coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def join(parts: Iterable[Markup]) -> Markup:
    """Concatenate elements."""
    return Markup("").join(parts)


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the path through ``points``, as the attribute ``d``."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def step_path(points: Sequence[tuple[float, float]], end: float) -> str:
    """Return the path of a value that changes at ``points`` and remains until ``end``, as the attribute ``d``."""
    (x0, y0), *rest = points
    steps = "".join(f"H{number(x)}V{number(y)}" for x, y in rest)
    return f"M{number(x0)} {number(y0)}{steps}H{number(end)}"


@dataclass(frozen=True)
class Scale:
    """The map from values in [low, high] to pixels in [start, end], linear or logarithmic; ``low`` < ``high``."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of ``value``; values outside are moved to the nearest end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, distance: float) -> list[float]:
        """Return round values in the range, about ``distance`` pixels or more apart."""
        count = max(2, int(abs(self.end - self.start) / distance))
        if self.is_log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1, 2, 5), (1, 3), (1,)):
                ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if 2 <= len(ticks) <= count + 1:
                    return ticks
            if len(ticks) > count:
                return ticks[:: math.ceil(len(ticks) / count)]
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in STEPS if factor * power >= step * (1 - 1e-9))


def make_scale(low: float, high: float, start: float, end: float, *, is_log: bool = False) -> Scale:
    """Return a scale for values in [low, high], or around them if they are almost equal."""
    if is_log:
        margin = 1.1 if high / low < 1 + MIN_RANGE else 1.0
        return Scale(low / margin, high * margin, start, end, is_log)
    size = max(abs(low), abs(high), 1e-3)
    margin = 0.0 if high - low > MIN_RANGE * size else 0.1 * size
    return Scale(low - margin, high + margin, start, end)


@dataclass(frozen=True)
class Axis:
    """An axis of a plot: its label with the unit, its scale, and the format of its ticks, which may omit some."""

    label: str
    scale: Scale
    format: Format


def decimal_format(scale: Scale, distance: float, factor: float = 1.0) -> Format:
    """Return the format of a number times ``factor``, such as 100 for percent, with as many decimals as the ticks need."""
    ticks = scale.ticks(distance)
    step = factor * (ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{factor * value:.{decimals}f}"


def plot(label: str, width: float, height: float, x: Axis, y: Axis, *content: Markup, css_class: str = "") -> Markup:
    """Return a plot: ticks, grid and labels of the axes around ``content``, which is drawn in pixels.

    Args:
        label: what the plot shows, for readers that cannot see it.
        width: width in pixels.
        height: height in pixels.
        x: the horizontal axis.
        y: the vertical axis.
        *content: the marks.
        css_class: additional classes of the element.
    """
    x0, x1, base = x.scale.start, x.scale.end, y.scale.start
    parts = [element("text", f"↑ {y.label}", x=0, y=10, class_="axis")]
    parts.append(element("text", f"{x.label} →", x=x1, y=base + 31, class_="axis end"))
    for tick in filter(y.format, y.scale.ticks(TICK_DISTANCE_Y)):
        at = y.scale(tick)
        parts.append(element("path", d=f"M{number(x0)} {number(at)}H{number(x1)}", class_="grid"))
        parts.append(element("text", y.format(tick), x=x0 - 6, y=at + 3.5, class_="tick end"))
    for tick in filter(x.format, x.scale.ticks(TICK_DISTANCE_X)):
        at = x.scale(tick)
        parts.append(element("path", d=f"M{number(at)} {number(base)}v4", class_="mark"))
        parts.append(element("text", x.format(tick), x=at, y=base + 16, class_="tick middle"))
    return element(
        "svg",
        join(parts),
        *content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
        class_=f"plot {css_class}".strip(),
        style=f"max-width:{number(1.2 * width)}px",
    )


def spread(ys: Sequence[float], low: float, high: float, distance: float = LABEL_DISTANCE) -> list[float]:
    """Move labels vertically so that they are at least ``distance`` apart and in [low, high]; keep their order."""
    order = sorted(range(len(ys)), key=ys.__getitem__)
    placed = list(ys)
    for before, index in zip([None, *order], order, strict=False):
        placed[index] = max(ys[index], low if before is None else placed[before] + distance)
    limit = high
    for index in reversed(order):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - distance
    return placed
