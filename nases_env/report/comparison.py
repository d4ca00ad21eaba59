"""The comparison of several searches: the best so far by agent and options, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from markupsafe import Markup

from nases_env.quantity import Quantity
from nases_env.report.data import Numbers, Run
from nases_env.report.figures import HEIGHT, WIDE, WIDTH, Figure, best_so_far, reward_axis, whole
from nases_env.report.svg import BOTTOM, LEFT, TOP, Axis, element, make_scale, path, plot, spread
from nases_env.seeding import numpy_generator

NUM_RESAMPLES = 5000
NUM_POINTS = 200  # of a curve
LABEL_WIDTH = 150.0
CHARACTERS = 22  # of a label
NUM_SERIES_COLORS = 7
NOT_OF_SEARCH = ("time", "num_finalists", "track", "data_dir", "device", "num_threads")
"""Settings that do not determine the search, or no more than its rounding errors."""
EXECUTION_LIMITS = ("execution.time_limit", "execution.memory_limit")
"""The only settings of the execution that can change results."""


@dataclass(frozen=True)
class Estimate:
    """A mean over searches and its 95% bootstrap interval, which is None for a single search."""

    value: float
    interval: tuple[float, float] | None
    quantity: Quantity

    def __str__(self) -> str:
        value, *bounds = map(self.quantity.format, (self.value, *(self.interval or ())))
        return f"{value} ({' to '.join(bounds)})" if bounds else value


@dataclass(frozen=True)
class Summary:
    """Searches that differ only in the seed.

    Attributes:
        label: name of the agent, and the options that distinguish these searches from others of this agent.
        runs: the searches.
        at_length: the best reward after ``common_length`` trials.
        final: the best reward at the end.
        confirmed: the ``mean_reward`` of the best finalist; None unless all searches have finalists.
        seconds: mean wall time of the evaluations of a search.
    """

    label: str
    runs: Sequence[Run]
    at_length: Estimate
    final: Estimate
    confirmed: Estimate | None
    seconds: float

    @property
    def num_children(self) -> str:
        """The number of children of each search, or the range."""
        numbers = [run.totals.num_trials - run.totals.num_promotions for run in self.runs]
        return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)}))


def by_options(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Return the searches with a result that differ only in the seed, with the label of each group, sorted by agent.

    If two labels are equal after ``_shorten``, all of them end with a number.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted((run for run in runs if run.has_result), key=lambda run: (run.agent, run.seed, run.name)):
        options = (f"{name} {value}" for name, value in sorted(_options(run).items()))
        groups.setdefault((run.agent, *options), []).append(run)
    firsts = [group[0] for group in groups.values()]
    labels = [_label(run, (first for first in firsts if first.agent == run.agent)) for run in firsts]
    if len(set(map(_shorten, labels))) < len(labels):
        labels = [f"{label} ({number})" for number, label in enumerate(labels, 1)]
    return list(zip(labels, groups.values(), strict=True))


def _options(run: Run) -> Mapping[str, str]:
    """Return everything except the seed that determines the search. Each seed may have its own file with an embedding."""
    options = {
        name: value
        for name, value in run.settings.items()
        if name not in NOT_OF_SEARCH and (name in EXECUTION_LIMITS or not name.startswith("execution."))
    }
    if "embedding" in options:
        options["embedding"] = Path(options["embedding"]).name
    return {"env_id": run.env_id, **options}


def _label(run: Run, others: Iterable[Run]) -> str:
    """Return the name of the agent and the options of ``run`` that differ from those of at least one of ``others``."""
    options = _options(run)
    differing = {name for other in others for name, _ in options.items() - _options(other).items()}
    return ", ".join([run.agent, *(f"{name} {value}" for name, value in options.items() if name in differing)])


def _shorten(label: str) -> str:
    """Return the end of a label, which has the options."""
    return label if len(label) <= CHARACTERS else f"…{label[1 - CHARACTERS :]}"


def common_length(runs: Sequence[Run]) -> int:
    """Return the number of trials of the shortest search with a result."""
    return min((run.totals.num_trials for run in runs if run.has_result), default=0)


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """Return the summary of each agent and its options; the best after the same number of trials is first."""
    length = common_length(runs)
    summaries = []
    for label, group in by_options(runs):
        at_length = np.array([_curve(run, np.array([length]))[0] for run in group])
        finals = np.array([best_so_far(run.children)[-1].reward for run in group])
        confirmed = np.array([run.best_reward for run in group])
        has_finalists = all(run.finalists and run.finalists[0].is_confirmed for run in group)
        summaries.append(
            Summary(
                label=label,
                runs=group,
                at_length=_estimate(at_length, group),
                final=_estimate(finals, group),
                confirmed=_estimate(confirmed, group) if has_finalists else None,
                seconds=float(np.mean([sum(run.seconds_by_device.values()) for run in group])),
            )
        )
    return sorted(summaries, key=lambda summary: -summary.at_length.value)


def bootstrap(values: Numbers) -> tuple[Numbers, Numbers]:
    """Return the bounds of the 95% percentile interval of the mean over searches, for each column of ``values``."""
    num_searches = len(values)
    rng = numpy_generator(0, "report")
    weights = rng.multinomial(num_searches, np.full(num_searches, 1 / num_searches), size=NUM_RESAMPLES) / num_searches
    low, high = np.quantile(weights @ values, [0.025, 0.975], axis=0)
    return low, high


def _estimate(rewards: Numbers, runs: Sequence[Run]) -> Estimate:
    """Return the mean of the rewards of ``runs`` with its interval."""
    mean, quantity = float(rewards.mean()), runs[0].reward_quantity
    if len(rewards) < 2:
        return Estimate(mean, None, quantity)
    low, high = bootstrap(rewards[:, None])
    return Estimate(mean, (float(low[0]), float(high[0])), quantity)


def _curve(run: Run, numbers: Numbers) -> Numbers:
    """Return the reward of the best child among the first ``numbers``."""
    records = best_so_far(run.children)
    places = np.searchsorted([record.number for record in records], numbers, side="right") - 1
    rewards = np.array([record.reward for record in records])
    return np.where(places < 0, 0.0, rewards[np.maximum(places, 0)])


def comparison_figure(runs: Sequence[Run]) -> Figure | None:
    """Return the mean of the best so far by agent and options, with 95% bootstrap intervals over searches."""
    groups = by_options(runs)
    if not groups:
        return None
    curves: list[tuple[str, Numbers, Numbers]] = []
    for label, group in groups:
        length = min(run.totals.num_trials for run in group)
        numbers = np.unique(np.linspace(1, length, min(length, NUM_POINTS)).astype(int))
        curves.append((label, numbers, np.stack([_curve(run, numbers) for run in group])))
    first = groups[0][1][0]
    if len({group[0].reward_quantity for _, group in groups}) > 1:  # they have no common name and unit
        first = replace(first, has_metric_rewards=False)
    drawings = [_draw(curves, first, width, css) for width, css in ((WIDE, "wide-only"), (WIDTH, "narrow-only"))]
    summaries = summarize(runs)
    unit = "trials" if any(run.totals.num_promotions for run in runs) else "children"
    place = "is highest, at" if len(summaries) > 1 else "is at"
    finding = f"After {common_length(runs):,} {unit}, {summaries[0].label} {place} {summaries[0].at_length}."
    note = (
        "Lines are means over searches that differ only in the seed, up to the end of the shortest one; bands are 95% "
        "bootstrap intervals of the mean, if there are several searches."
    )
    return Figure("Best reward so far, by agent", finding, drawings, note)


def _draw(curves: Sequence[tuple[str, Numbers, Numbers]], run: Run, width: float, css_class: str) -> Markup:
    end = width - LABEL_WIDTH
    means = [values.mean(axis=0) for _, _, values in curves]
    bounds = [bootstrap(values) for _, _, values in curves]
    # The first children are poor by chance; the axis begins where all curves have left them.
    limits = [each[len(mean) // 50 :] for mean, (_, high) in zip(means, bounds, strict=True) for each in (mean, high)]
    y = reward_axis(np.concatenate(limits), run, f"Best {run.reward_name} so far")
    last = max(numbers[-1] for _, numbers, _ in curves)
    x = Axis("Child", make_scale(1, max(2, last), LEFT, end), whole)
    bands, lines, labels = [], [], []
    ends = spread([y.scale(mean[-1]) for mean in means], TOP, HEIGHT - BOTTOM)
    for index, ((label, numbers, values), mean, label_y) in enumerate(zip(curves, means, ends, strict=True)):
        css = f"s{index % NUM_SERIES_COLORS}"
        xs = [x.scale(each) for each in numbers]
        if len(values) > 1:
            low, high = bounds[index]
            outline = [*zip(xs, map(y.scale, high), strict=True), *reversed(list(zip(xs, map(y.scale, low), strict=True)))]
            bands.append(element("path", d=f"{path(outline)}Z", class_=f"band {css}"))
        lines.append(element("path", d=path(zip(xs, map(y.scale, mean), strict=True)), class_=f"series {css}"))
        labels.append(element("text", _shorten(label), x=xs[-1] + 6, y=label_y + 4, class_=f"label {css}"))
    return plot("Best reward so far by agent", width, HEIGHT, x, y, *bands, *lines, *labels, css_class=css_class)
