"""Interleaved measurement: variants are measured in turns, so that other load on the machine slows all of them equally."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Measurements = dict[str, list[float]]
"""The measurements of a variant: for each metric, one value per repeat."""

Measure = Callable[[], Mapping[str, float]]
"""Measures a variant once and returns its metrics by name."""


def interleave(variants: Mapping[str, Measure], num_repeats: int, *, warm_up: bool = False) -> dict[str, Measurements]:
    """Measure all variants once, then all of them again, ``num_repeats`` times in total.

    Args:
        variants: measure functions by name of the variant.
        num_repeats: number of recorded measurements of each variant.
        warm_up: whether to measure each variant once more at the beginning, without recording it.

    Returns:
        The measurements by name of the variant.
    """
    measurements: dict[str, Measurements] = {name: {} for name in variants}
    if warm_up:
        for measure in variants.values():
            measure()
    for _ in range(num_repeats):
        for name, measure in variants.items():
            for metric, value in measure().items():
                measurements[name].setdefault(metric, []).append(value)
    return measurements


def paired_ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Divide each value by the reference of the same repeat."""
    return [value / reference for value, reference in zip(values, references, strict=True)]
