"""Variants that take turns, so that other work on the machine slows all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Figures = dict[str, list[float]]
"""The figures of a variant by name: of each, one value a repeat."""

Measure = Callable[[], Mapping[str, float]]
"""Measures a variant once and gives its figures by name."""


def take_turns(variants: Mapping[str, Measure], num_repeats: int, *, warm_up: bool = False) -> dict[str, Figures]:
    """Measures all variants, then all again, ``num_repeats`` times.

    Args:
        variants: by name.
        num_repeats: how often each is measured.
        warm_up: whether each is measured once more before, without being recorded.
    """
    figures: dict[str, Figures] = {name: {} for name in variants}
    if warm_up:
        for measure in variants.values():
            measure()
    for _ in range(num_repeats):
        for name, measure in variants.items():
            for figure, value in measure().items():
                figures[name].setdefault(figure, []).append(value)
    return figures


def quotients(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Each value over the reference of the same repeat."""
    return [value / reference for value, reference in zip(values, references, strict=True)]
