"""The figures of one search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from nases_env.cell_layout import operator_name
from nases_env.report.data import OK, Child, Numbers, Run, is_spaced
from nases_env.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TICK_DISTANCE_X,
    TICK_DISTANCE_Y,
    TOP,
    Axis,
    Scale,
    decimal_format,
    element,
    join,
    make_scale,
    number,
    path,
    plot,
    spread,
    step_path,
)
from nases_env.report.text import capitalize, compact, count, duration, milliseconds, percent

WIDTH, HEIGHT = 430.0, 300.0  # of a small figure in pixels
WIDE = 880.0  # width of a figure that spans the page; a second one with the width WIDTH is for narrow screens
LABEL_WIDTH = 58.0  # of the labels to the right of a plot
HISTOGRAM_WIDTH, NUM_BINS = 54.0, 30
NUM_COLORS = 9  # of the reward, from low to high
LOW_QUANTILE = 0.02  # rewards below this quantile are drawn at the lower edge
MIN_CHILDREN_OF_MEDIAN = 30
KEY_CHARACTER_WIDTH = 6.6  # pixels, on average
MANY = 300  # points that are drawn more transparent


@dataclass(frozen=True)
class Figure:
    """A figure: title, one sentence on what it shows, drawings (a wide and a narrow one, or one), and how to read it."""

    title: str
    finding: str
    drawings: Sequence[Markup]
    note: str = ""


def reward_axis(rewards: Sequence[float] | Numbers, run: Run, label: str = "") -> Axis:
    """Return the vertical axis of rewards, without the lowest ones, so that differences between good ones are visible."""
    values = np.asarray(rewards, dtype=np.float64)
    low, high = (float(np.quantile(values, LOW_QUANTILE)), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.04 * (high - low)
    scale = make_scale(max(0.0, low - margin), min(1.0, high + margin), HEIGHT - BOTTOM, TOP)
    factor = 100 if run.reward_quantity.is_percentage else 1
    return Axis((label or capitalize(run.reward_name)) + run.unit, scale, decimal_format(scale, TICK_DISTANCE_Y, factor))


def thin(children: Sequence[Child], limit: int, keep: Iterable[int], stride: int) -> list[Child]:
    """Return at most about ``limit`` of the children that are evenly spaced, and those with the numbers in ``keep``."""
    spaced = [child.number for child in children if is_spaced(child.number, stride)]
    if len(spaced) > limit:
        spaced = [spaced[index] for index in np.linspace(0, len(spaced) - 1, limit).astype(int)]
    kept = {*keep, *spaced}
    return [child for child in children if child.number in kept]


def best_so_far(children: Sequence[Child]) -> list[Child]:
    """Return the children that were better than all before, in order."""
    best: list[Child] = []
    for child in children:
        if child.status == OK and (not best or child.rank > best[-1].rank):
            best.append(child)
    return best


def describe(run: Run, child: Child) -> str:
    """Describe a child in one line, for the text of its point."""
    parts = [f"child {child.number}: {run.format_reward(child.reward) if child.status == OK else child.status}"]
    if child.status == OK and not run.has_metric_rewards:
        parts.append(f"validation {run.quantity.name} {run.quantity.format(child.valid_accuracy)}")
    if child.fidelity is not None:
        parts.append(count(child.fidelity, "epoch"))
    if child.num_params:
        parts.append(f"{child.num_params:,} parameters")
    if child.seconds:
        parts.append(duration(child.seconds))
    return ", ".join(parts)


def _dots(
    run: Run, children: Iterable[Child], place: Callable[[Child], tuple[float, float]], css: Callable[[Child], str]
) -> Markup:
    dots = []
    for child in children:
        x, y = place(child)
        title = element("title", describe(run, child))
        dots.append(element("circle", title, cx=x, cy=y, r=4 if child.is_promotion else 3, class_=css(child)))
    return element("g", join(dots), class_="many" if len(dots) > MANY else None)


def _best_marks(run: Run, place: Callable[[Child], tuple[float, float]], end: float) -> Markup:
    """Return a ring around the best child, with a label."""
    if run.best is None:
        return Markup("")
    x, y = place(run.child(run.best))
    is_right = x > end - 70
    css = "label end" if is_right else "label"
    label = element("text", f"child {run.best}", x=x + (-4 if is_right else 4), y=y + 18, class_=css)
    rings = [element("circle", cx=x, cy=y, r=6, class_=css) for css in ("halo", "ring")]
    return join([*rings, label])


def _measured(run: Run) -> list[Child]:
    return [child for child in run.children if child.status == OK]


def note_on_points(shown: int, total: int, extra: str) -> str:
    """Return a sentence that says how many points are shown, if not all are, followed by ``extra``."""
    thinned = f"{shown:,} of {total:,} children are shown, evenly spaced, and every new best one." if shown < total else ""
    return " ".join(filter(None, (thinned, extra)))


def reward_by_child(run: Run, baseline: Run | None, limit: int) -> Figure | None:
    """Return the reward of each child and the best so far, next to that of random search, with a histogram."""
    measured = _measured(run)
    if not measured:
        return None
    records = best_so_far(measured)
    keep = {child.number for child in [*records, *thin(run.failures, limit, [], run.stride)]}
    shown = thin(run.children, limit, keep, run.stride)
    num_trials = run.totals.num_trials
    # A longer random search is shown up to the same number of children.
    others = [child for child in best_so_far(() if baseline is None else baseline.children) if child.number <= num_trials]
    drawings = [
        _reward_drawing(run, others, shown, records, width, css)
        for width, css in ((WIDE, "wide-only"), (WIDTH, "narrow-only"))
    ]
    reached, text = records[-1], run.format_reward
    finding = f"The best reward, {text(reached.reward)}, was reached after {reached.number:,} of {num_trials:,}."
    if baseline is not None and others:
        length = min(baseline.totals.num_trials, num_trials)
        finding += f" Random search with seed {baseline.seed} reached {text(others[-1].reward)} in {length:,}."
    axis = reward_axis(run.totals.rewards, run)
    below = int((run.totals.rewards < axis.scale.low).sum())
    extra = f"At the lower edge: {count(below, 'child', 'children')} below {text(axis.scale.low)}." if below else ""
    if window := _median_window(run):
        extra += f" The median is that of the last {window * run.stride:,} children."
    if num_failures := run.totals.num_failures:
        extra += f" Crosses are the {count(num_failures, 'child', 'children')} without a result."
    if run.totals.num_promotions:
        extra += " Larger points were promoted to a higher rung; a result at a higher rung replaces the best."
    return Figure("Reward by child", finding, drawings, note_on_points(len(shown), num_trials, extra.strip()))


def _reward_drawing(
    run: Run, others: Sequence[Child], shown: Sequence[Child], records: Sequence[Child], width: float, css_class: str
) -> Markup:
    end = width - RIGHT - HISTOGRAM_WIDTH
    y = reward_axis(np.append(run.totals.rewards, [child.reward for child in others[-1:]]), run)
    x_scale = make_scale(1, max(2, run.totals.num_trials), LEFT, end)
    x = Axis("Trial" if run.totals.num_promotions else "Child", x_scale, whole)

    def place(child: Child) -> tuple[float, float]:
        return x_scale(child.number), y.scale(child.reward)

    parts = [_dots(run, [child for child in shown if child.status == OK], place, lambda child: "dot")]
    base = y.scale.start
    crosses = "".join(
        f"M{number(x_scale(child.number) - 3)} {number(base - 3)}l6 6m0 -6l-6 6" for child in shown if child.status != OK
    )
    if crosses:
        parts.append(element("path", d=crosses, class_="failure"))
    if others:
        parts.append(element("path", d=step_path([place(child) for child in others], end), class_="baseline"))
    median = _median_line(run, x_scale, y.scale)
    parts += median
    parts.append(element("path", d=step_path([place(child) for child in records], end), class_="record"))
    keys = {"record": "best so far"}
    keys |= {"baseline": "random search"} if others else {}
    keys |= {"median": "median"} if median else {}
    parts.append(_line_keys(keys, base + 27))
    parts.append(_histogram(run, y.scale, end + 6))
    return plot(
        f"Reward by child of {run.agent} in {run.env_id}; best {run.format_reward(records[-1].reward)}",
        width,
        HEIGHT,
        x,
        y,
        *parts,
        css_class=css_class,
    )


def _median_line(run: Run, x: Scale, y: Scale) -> list[Markup]:
    """Return the running median of the first evaluations, unless there are few."""
    children, window = _first_results(run), _median_window(run)
    if window is None:
        return []
    ends = np.unique(np.linspace(window, len(children), 150).astype(int))
    points = [
        (x(children[end - 1].number), y(float(np.median([child.reward for child in children[end - window : end]]))))
        for end in ends.tolist()
    ]
    return [element("path", d=path(points), class_="median")]


def _first_results(run: Run) -> list[Child]:
    return [child for child in run.spaced if not child.is_promotion and child.status == OK]


def _median_window(run: Run) -> int | None:
    """Return the number of children in the running median, of those that are evenly spaced; None if there are too few."""
    number_of_results = len(_first_results(run))
    return max(MIN_CHILDREN_OF_MEDIAN // 3, number_of_results // 30) if number_of_results >= MIN_CHILDREN_OF_MEDIAN else None


def _line_keys(keys: Mapping[str, str], y: float) -> Markup:
    """Return the key of the lines, to the left of the label of the horizontal axis; ``keys`` are texts by class."""
    parts, left = [], 0.0
    for css, text in keys.items():
        parts.append(element("path", d=f"M{number(left)} {number(y)}h14", class_=css))
        parts.append(element("text", text, x=left + 18, y=y + 4, class_="key"))
        left += 18 + KEY_CHARACTER_WIDTH * len(text) + 10
    return join(parts)


def _histogram(run: Run, y: Scale, left: float) -> Markup:
    """Return the distribution of rewards as bars to the right of the plot."""
    counts, edges = np.histogram(np.clip(run.totals.rewards, y.low, y.high), NUM_BINS, (y.low, y.high))
    longest, text = counts.max(), run.format_reward
    bars = [
        element(
            "rect",
            element("title", f"{count(int(bar), 'child', 'children')} from {text(low)} to {text(high)}"),
            x=left,
            y=y(high) + 0.5,
            width=max(1.0, (HISTOGRAM_WIDTH - 6) * bar / longest),
            height=max(0.5, y(low) - y(high) - 1),
        )
        for bar, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if bar
    ]
    return element("g", join(bars), class_="histogram")


def reward_by(
    run: Run, title: str, label: str, value: Callable[[Child], float], text: Callable[[float], str], limit: int
) -> Figure | None:
    """Return the reward against a cost, with the children that no cheaper child surpasses.

    Args:
        run: the search.
        title: title of the figure, after that of the reward.
        label: label of the horizontal axis.
        value: the cost of a child; children for which it is 0 are left out.
        text: the format of the cost, with its unit.
        limit: largest number of points.
    """
    children = [child for child in _measured(run) if value(child) > 0]
    if len(children) < 2:
        return None
    highest = max((child.fidelity or 0) for child in children)
    front: list[Child] = []
    for child in sorted((each for each in children if (each.fidelity or 0) == highest), key=lambda c: (value(c), -c.reward)):
        if not front or child.reward > front[-1].reward:
            front.append(child)
    y = reward_axis([child.reward for child in children], run)
    values = [value(child) for child in children]
    scale = make_scale(min(values), max(values), LEFT + 4, WIDTH - RIGHT - 4, is_log=True)
    x = Axis(f"{label}, log scale", scale, compact)

    def place(child: Child) -> tuple[float, float]:
        return scale(value(child)), y.scale(child.reward)

    shown = thin(children, limit, {child.number for child in [*front, *best_so_far(children)]}, run.stride)
    total = len(children) if run.stride == 1 else len(run.totals.rewards)
    dots = _dots(run, shown, place, lambda child: "dot")
    line = element("path", d=step_path([place(child) for child in front], scale.end), class_="front")
    title = f"{capitalize(run.reward_quantity.name)} and {title}"
    drawing = plot(f"{title} of {run.agent}", WIDTH, HEIGHT, x, y, dots, line, _best_marks(run, place, scale.end))
    cheapest, best = front[0], front[-1]
    ends = [f"{text(value(child))} ({run.format_reward(child.reward)})" for child in (cheapest, best)]
    finding = f"From {ends[0]} to {ends[1]}."
    rung = f" at {count(highest, 'epoch')}" if highest else ""
    extra = f"The line is the Pareto front{rung}: the children that no cheaper child surpasses."
    return Figure(title, finding, [drawing], note_on_points(len(shown), total, extra))


def reward_by_latency(run: Run) -> Figure | None:
    """Return the reward against the latency of the children for which it was measured, with its quartiles."""
    if len(run.latencies) < 2:
        return None
    end = WIDTH - RIGHT - LABEL_WIDTH
    rewards = [run.child(latency.number).reward for latency in run.latencies]
    y = reward_axis(rewards, run)
    low, high = min(latency.low for latency in run.latencies), max(latency.high for latency in run.latencies)
    x = Axis("Milliseconds per image, log scale", make_scale(1000 * low, 1000 * high, LEFT + 4, end, is_log=True), compact)
    parts, title = [], f"{capitalize(run.reward_quantity.name)} and latency"
    label_ys = spread([y.scale(reward) for reward in rewards], TOP, HEIGHT - BOTTOM)
    for index, (latency, reward, label_y) in enumerate(zip(run.latencies, rewards, label_ys, strict=True)):
        left, middle, right = (x.scale(1000 * each) for each in (latency.low, latency.median, latency.high))
        at, css = y.scale(reward), f"s{index}"
        text = f"{describe(run, run.child(latency.number))}, {milliseconds(latency.median)} ms per image"
        parts.append(element("path", d=f"M{number(left)} {number(at)}H{number(right)}", class_=f"series interval {css}"))
        parts.append(element("circle", element("title", text), cx=middle, cy=at, r=4, class_=f"point {css}"))
        parts.append(element("text", f"child {latency.number}", x=end + 6, y=label_y + 4, class_=f"label {css}"))
    drawing = plot(f"{title} of the best children of {run.agent}", WIDTH, HEIGHT, x, y, *parts)
    fastest = min(run.latencies, key=lambda latency: latency.median)
    best = run.latencies[0]
    finding = f"Child {best.number}, the best, takes {milliseconds(best.median)} ms."
    if fastest.number != best.number:
        finding += f" The fastest of these, child {fastest.number}, takes {milliseconds(fastest.median)} ms."
    return Figure(title, finding, [drawing], "Medians, and the quartiles as bars: they show the noise.")


def _parameters(number_of_parameters: float) -> str:
    return f"{compact(number_of_parameters)} parameters"


def embedding_map(run: Run, limit: int) -> Figure | None:
    """Return the children in two dimensions, by principal components of their vectors, colored by reward."""
    if run.vectors is None or len(run.vectors) < 3:
        return None
    spaced = run.vectors[[run.index[child.number] for child in run.spaced]]
    center = spaced.mean(axis=0)
    spaced = spaced - center
    variances, directions = np.linalg.eigh(spaced.T @ spaced)
    total = float(variances.sum())
    if total <= 0 or len(variances) < 2:
        return None
    directions = directions[:, :-3:-1]  # those of the largest eigenvalues, which are last
    # The sign of a direction is arbitrary; make its largest component positive.
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])
    points = (run.vectors - center) @ directions
    shares = variances[:-3:-1] / total
    low, high = points.min(axis=0), points.max(axis=0)
    inner = np.array([WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM])
    half = inner / 2 * max(1e-9, float(((high - low) / inner).max())) * 1.04  # the same scale in both directions
    middle = (low + high) / 2
    scales = [
        Scale(middle[0] - half[0], middle[0] + half[0], LEFT, WIDTH - RIGHT),
        Scale(middle[1] - half[1], middle[1] + half[1], HEIGHT - BOTTOM, TOP),
    ]
    axes = [
        Axis(f"Component {index + 1} ({share:.0%} of variance)", scale, lambda tick: f"{tick:.3g}")
        for index, (scale, share) in enumerate(zip(scales, shares.tolist(), strict=True))
    ]
    scale = reward_axis(run.totals.rewards, run).scale

    def place(child: Child) -> tuple[float, float]:
        x, y = points[run.index[child.number]]
        return scales[0](float(x)), scales[1](float(y))

    def css(child: Child) -> str:
        if child.status != OK:
            return "dot none"
        return f"dot q{_color(child.reward, scale)}"

    keep = {child.number for child in best_so_far(_measured(run))}
    shown = sorted(thin(run.children, limit, keep, run.stride), key=lambda child: child.reward)
    drawing = plot(
        f"Map of the children of {run.agent}, colored by {run.reward_name}",
        WIDTH,
        HEIGHT,
        axes[0],
        axes[1],
        _dots(run, shown, place, css),
        _best_marks(run, place, scales[0].end),
        _color_key(run, scale),
    )
    what = "embeddings (actions)" if run.is_embedded else "architecture vectors; not every child has an action"
    finding = f"Principal components of the {what}."
    dimensions = run.vectors.shape[1]
    extra = f"Two of {dimensions} dimensions, {shares.sum():.0%} of the variance. The axes have no unit and the same scale."
    return Figure("Map of the children", finding, [drawing], note_on_points(len(shown), run.totals.num_trials, extra))


def _color(reward: float, scale: Scale) -> int:
    return min(NUM_COLORS - 1, max(0, int(NUM_COLORS * (reward - scale.low) / (scale.high - scale.low))))


def _color_key(run: Run, scale: Scale) -> Markup:
    size = 11.0
    right = WIDTH - RIGHT
    left = right - 44 - NUM_COLORS * size
    swatches = [
        element("rect", x=left + index * size, y=2, width=size, height=9, class_=f"q{index}") for index in range(NUM_COLORS)
    ]
    low = element("text", run.format_reward(scale.low), x=left - 5, y=10, class_="key end")
    high = element("text", run.format_reward(scale.high), x=right - 40, y=10, class_="key")
    return join([low, *swatches, high])


def learning_curves(run: Run) -> Figure | None:
    """Return the training accuracy of the best children after each epoch."""
    curves = [curve for curve in run.curves if len(curve.epochs) > 1]
    if not curves:
        return None
    end = WIDTH - RIGHT - LABEL_WIDTH
    accuracies = [accuracy for curve in curves for accuracy in curve.accuracies]
    scale = make_scale(max(0.0, min(accuracies)), min(1.0, max(accuracies)), HEIGHT - BOTTOM, TOP)
    y = Axis("Training accuracy (%)", scale, decimal_format(scale, TICK_DISTANCE_Y, 100))
    epochs = [epoch for curve in curves for epoch in curve.epochs]
    x = Axis("Epoch", make_scale(min(epochs), max(epochs), LEFT, end), whole)
    parts = []
    label_ys = spread([y.scale(curve.accuracies[-1]) for curve in curves], TOP, HEIGHT - BOTTOM)
    for index, (curve, label_y) in enumerate(zip(curves, label_ys, strict=True)):
        points = [(x.scale(epoch), y.scale(value)) for epoch, value in zip(curve.epochs, curve.accuracies, strict=True)]
        parts.append(element("path", d=path(points), class_=f"series s{index}"))
        parts.append(element("text", f"child {curve.number}", x=end + 6, y=label_y + 4, class_=f"label s{index}"))
    drawing = plot(f"Learning curves of the best children of {run.agent}", WIDTH, HEIGHT, x, y, *parts)
    first = curves[0]
    finding = f"The best of them, child {first.number}, ends at {percent(first.accuracies[-1])}."
    return Figure("Learning curves", finding, [drawing], "Accuracy on augmented training images during each epoch.")


def whole(tick: float) -> str:
    """Format a tick that is a whole number; other ticks are omitted."""
    return f"{tick:,.0f}" if abs(tick - round(tick)) < 1e-6 else ""


def operator_shares(run: Run) -> Figure | None:
    """Return the share of each operator among all children and among the best tenth."""
    if not run.operators:
        return None
    names = sorted(run.operators, key=lambda name: run.operators[name][1] - run.operators[name][0], reverse=True)
    left = 112.0
    largest = max(max(pair) for pair in run.operators.values())
    scale = make_scale(0, largest * 1.05, left, WIDTH - RIGHT)
    x = Axis("Share of all operators (%)", scale, decimal_format(scale, TICK_DISTANCE_X, 100))
    pitch = (HEIGHT - TOP - BOTTOM) / len(names)
    y = Axis("Operator", Scale(0, 1, HEIGHT - BOTTOM, TOP), lambda _: "")
    parts = []
    for index, name in enumerate(names):
        at = TOP + (index + 0.5) * pitch
        before, after = (x.scale(share) for share in run.operators[name])
        title = f"{operator_name(name)}: {run.operators[name][0]:.1%} of all, {run.operators[name][1]:.1%} of the best"
        parts.append(element("text", operator_name(name), x=left - 10, y=at + 4, class_="name end"))
        parts.append(element("path", d=f"M{number(before)} {number(at)}H{number(after)}", class_="link"))
        parts.append(element("circle", element("title", title), cx=before, cy=at, r=4.5, class_="open"))
        parts.append(element("circle", element("title", title), cx=after, cy=at, r=4.5, class_="solid"))
    key_left = WIDTH - RIGHT - 190
    parts.append(element("circle", cx=key_left, cy=6.5, r=4, class_="open"))
    parts.append(element("text", "all children", x=key_left + 8, y=10, class_="key"))
    parts.append(element("circle", cx=key_left + 90, cy=6.5, r=4, class_="solid"))
    parts.append(element("text", "the best tenth", x=key_left + 98, y=10, class_="key"))
    drawing = plot(f"Operators of all children and of the best tenth, {run.agent}", WIDTH, HEIGHT, x, y, *parts)
    more, less = names[0], names[-1]
    finding = f"The best tenth has more {operator_name(more)} and less {operator_name(less)} than all children."
    return Figure("Operators of the best children", finding, [drawing])


def figures(run: Run, baseline: Run | None, limit: int) -> list[Figure]:
    """Return the figures of a search for which it has data; ``limit`` is the largest number of points in each."""
    found = [
        reward_by_child(run, baseline, limit),
        reward_by(run, "size", "Parameters", lambda child: child.num_params, _parameters, limit),
        reward_by_latency(run),
        reward_by(run, "time", "Seconds per evaluation", lambda child: child.seconds, duration, limit),
        embedding_map(run, limit),
        operator_shares(run),
        learning_curves(run),
    ]
    return [figure for figure in found if figure is not None]
