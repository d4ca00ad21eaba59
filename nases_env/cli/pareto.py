"""``nases pareto``: show the Pareto front of accuracy and a cost among the children of searches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.table import Table

from nases_env.command_line import parse
from nases_env.console import Console
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.evaluation import ACCURACY, COSTS, Cost, Evaluation, Status, parse_objectives
from nases_env.pareto import hypervolume, knee, pareto_front
from nases_env.paths import require_distinct
from nases_env.quantity import REWARD
from nases_env.report import are_comparable
from nases_env.search.run_dir import read_config, read_genotypes, read_trials, recorded_quantity
from nases_env.search.run_report import evaluation_digest
from nases_env.search_spaces import search_space_of


@dataclass(frozen=True)
class ParetoArgs:
    """Show the Pareto front of accuracy and a cost among the children of one or more searches.

    A child is on the front if no other one has at least its accuracy at no more than its cost.
    """

    run_dirs: tyro.conf.Positional[tuple[Path, ...]] = field(
        metadata={"help": "The run directories of one or more searches; a search may be running."}
    )
    objectives: str = field(
        default=f"{ACCURACY},params", metadata={"help": f"{ACCURACY} and one of {', '.join(COSTS)}, separated by a comma."}
    )
    reference: tuple[float, float] | None = field(
        default=None,
        metadata={
            "help": "Accuracy and cost of the reference point of the hypervolume; a latency in seconds. Default: 0 and the "
            "highest cost of a child."
        },
    )
    output: Path | None = field(default=None, metadata={"help": "PNG, SVG or PDF file with a figure to write."})
    json: bool = field(default=False, metadata={"help": "Print the front as JSON, with the genotypes."})


ARGS = ParetoArgs


class _Child(NamedTuple):
    """A child with a result and a known cost."""

    run: int
    number: int
    evaluation: Evaluation


class _Front(NamedTuple):
    """The children of all searches and their front.

    Attributes:
        children: the best trial of each architecture in each search; with rungs, only those at the highest rung.
        costs: their costs.
        rewards: their rewards.
        indices: the children on the front, the highest reward first.
        knee: the child at the knee; None if there is none.
        reference: the reward and the cost of the reference point.
        hypervolume: the area between the front and the reference point, where a cost counts by its decimal logarithm.
    """

    children: Sequence[_Child]
    costs: NDArray[np.float64]
    rewards: NDArray[np.float64]
    indices: Sequence[int]
    knee: int | None
    reference: tuple[float, float]
    hypervolume: float


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases pareto``."""
    pareto_command(parse(ParetoArgs, prog="nases pareto", args=options))


def pareto_command(args: ParetoArgs) -> None:
    """Run ``nases pareto``.

    Raises:
        InputError: if an option is not valid, a run directory is given twice or cannot be read, no child has a known cost,
            or the figure cannot be written.
    """
    _, name, *others = parse_objectives(args.objectives)
    if others:
        raise InputError(f"--objectives must be {ACCURACY} and one cost; omit {', '.join(others)}")
    if not args.run_dirs:
        raise InputError("no run directory is given; pass one or more in runs/")
    require_distinct(args.run_dirs)
    if args.reference is not None and not (0 <= args.reference[0] < 1 and 0 < args.reference[1] < float("inf")):
        raise InputError("--reference must be an accuracy from 0 to less than 1 and a cost above 0, such as 0.5 1e6")
    configs = [read_config(path) for path in args.run_dirs]
    if not are_comparable(evaluation_digest(config["configuration"]) for config in configs):
        print("note: the searches evaluate children differently; compare their rewards with care", file=sys.stderr)
    front = _find_front(args.run_dirs, name, args.reference)
    heading, limit = _reward_heading(front, configs), _limit(configs, COSTS[name])
    if args.output is not None:
        _draw(args.output, front, name, heading, limit)
    if args.json:
        print(json.dumps(_to_json(args.run_dirs, front, name, heading, limit), indent=2))
    else:
        _print(args.run_dirs, front, name, heading)
        if args.output is not None:
            print(printable(args.output))


def _find_front(run_dirs: Sequence[Path], name: str, reference: tuple[float, float] | None) -> _Front:
    cost = COSTS[name]

    def known_children(cost: Cost) -> list[_Child]:
        return [child for child in children if cost.of(child.evaluation) > 0]

    children = [child for run, path in enumerate(run_dirs) for child in _best_trials(run, path)]
    known = known_children(cost)
    if not known:
        if not children:
            raise InputError("no child has a result yet; wait for the search, or resume it")
        others = [other for other, each in COSTS.items() if known_children(each)]
        if not others:
            raise InputError(
                "no cost is known for any child; pass a search that trains networks, or one in NASES-MO-NASBench201-v0"
            )
        raise InputError(
            f"{name} is not known for any child (known: {', '.join(others)}); pass --objectives {ACCURACY},{others[0]}"
        )
    costs = np.array([cost.of(child.evaluation) for child in known], np.float64)
    rewards = np.array([child.evaluation.reward for child in known], np.float64)
    if reference is None:
        reference = (0.0, float(costs.max()))
    points = np.stack([rewards, -np.log10(costs)], axis=1)
    indices = pareto_front(points)
    at_knee = knee(points[indices])
    return _Front(
        known,
        costs,
        rewards,
        indices.tolist(),
        None if at_knee is None else int(indices[at_knee]),
        reference,
        hypervolume(points, np.array([reference[0], -np.log10(reference[1])])),
    )


def _best_trials(run: int, path: Path) -> Iterator[_Child]:
    """Yield the best trial of each architecture with a result at the highest rung, in order of their first trials."""
    best: dict[str, _Child] = {}
    for record, evaluation in read_trials(path):
        known = best.get(evaluation.key)
        if evaluation.status is Status.OK and (known is None or evaluation.rank > known.evaluation.rank):
            best[evaluation.key] = _Child(run, record["child"], evaluation)
    highest = max((child.evaluation.fidelity or 0 for child in best.values()), default=0)
    yield from (child for child in best.values() if (child.evaluation.fidelity or 0) == highest)


def _limit(configs: Sequence[dict[str, Any]], cost: Cost) -> float | None:
    """Return the limit of the cost, the highest one if searches differ; None if a search has none."""
    limits = [(config["arguments"].get("limits") or {}).get(cost.limit) for config in configs]
    known = [limit for limit in limits if isinstance(limit, (int, float)) and limit > 0]
    return max(known) if len(known) == len(configs) else None


def _reward_heading(front: _Front, configs: Sequence[dict[str, Any]]) -> str:
    """Return what the rewards are: the metric of the searches if they have the same one, or "reward"."""
    names = {recorded_quantity(config).name for config in configs}
    is_metric = len(names) == 1 and all(child.evaluation.score is None for child in front.children)
    return names.pop() if is_metric else REWARD.name


def _print(run_dirs: Sequence[Path], front: _Front, name: str, heading: str) -> None:
    cost = COSTS[name]
    table = Table()
    columns = [*(["run"] if len(run_dirs) > 1 else []), "child", heading, name, ""]
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for index in front.indices:
        child = front.children[index]
        cells = [str(child.run + 1), str(child.number), f"{front.rewards[index]:.4f}", cost.form(front.costs[index])]
        table.add_row(*cells[-len(columns) + 1 :], "knee" if index == front.knee else "")
    console = Console()
    if len(run_dirs) > 1:
        for number, path in enumerate(run_dirs, start=1):
            console.print(f"run {number}: {path}", soft_wrap=True)
    rung = " at the highest rung" if any(child.evaluation.fidelity is not None for child in front.children) else ""
    console.print(f"{len(front.indices)} of {len(front.children):,} children{rung} are on the Pareto front")
    console.print(table)
    console.print(
        f"hypervolume {front.hypervolume:.4f}; reference point: {heading} {front.reference[0]:g}, "
        f"{name} {cost.form(front.reference[1])}"
    )


def _draw(path: Path, front: _Front, name: str, heading: str, limit: float | None) -> None:
    from nases_env import visualization  # imports matplotlib, which is slow
    from nases_env.visualization.pareto import draw_front

    cost = COSTS[name]
    figure = draw_front(
        front.costs,
        front.rewards,
        front.indices,
        labels=(cost.heading, heading),
        unit=cost.unit,
        knee=front.knee,
        limit=limit,
    )
    visualization.save(figure, path)


def _to_json(run_dirs: Sequence[Path], front: _Front, name: str, heading: str, limit: float | None) -> dict[str, Any]:
    on_front = [front.children[index] for index in front.indices]
    genotypes: dict[tuple[int, int], Any] = {}
    for run, path in enumerate(run_dirs):
        numbers = [child.number for child in on_front if child.run == run]
        found = read_genotypes(path, numbers) if numbers else []
        genotypes |= {(run, number): genotype for number, genotype in zip(numbers, found, strict=True)}
    return {
        "objectives": [ACCURACY, name],
        "quantity": heading,
        "num_children": len(front.children),
        "reference": {"reward": front.reference[0], name: front.reference[1]},
        "hypervolume": front.hypervolume,
        "limit": limit,
        "front": [
            {
                "run": str(run_dirs[child.run]),
                "child": child.number,
                "reward": child.evaluation.reward,
                "valid_accuracy": child.evaluation.valid_accuracy,
                name: COSTS[name].of(child.evaluation),
                "is_knee": index == front.knee,
                "genotype": {
                    "search_space": search_space_of(child.evaluation.key),  # for `nases train` and `nases draw`
                    **genotypes[child.run, child.number],
                },
            }
            for index, child in zip(front.indices, on_front, strict=True)
        ],
    }
