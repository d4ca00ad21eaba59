"""The report on a search: reads a run directory into the plain data of ``nases_env.report``, and writes the page."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nases_env.atomic_io import write_atomically
from nases_env.cell_layout import drawn_graphs
from nases_env.errors import InputError, one_line
from nases_env.evaluation import Evaluation, config_digest, describe_search_space
from nases_env.execution import Store
from nases_env.hashing import sha256_hex
from nases_env.report import (
    MAX_CHILDREN,
    Child,
    Curve,
    Design,
    EvaluationDigest,
    Finalist,
    Numbers,
    Run,
    Totals,
    TotalsCounter,
    TrialSample,
    is_spaced,
    rank,
    render,
)
from nases_env.search.run_dir import (
    REPORT,
    STORE,
    is_locked,
    read_config,
    read_finalists,
    read_genotypes,
    read_trajectory,
    read_trials,
    recorded_quantity,
)
from nases_env.search.time_budget import limited_budget
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, get_search_space, search_space_of

NUM_DESIGNS, NUM_CURVES = 3, 5  # best children that are drawn, and whose learning curves are shown
MIN_ARCHITECTURES = 50  # for the operators of the best tenth
MAX_COORDINATE, MAX_DIMENSIONS = 1e6, 1000  # of a vector; an action has few dimensions and is a few units long
GROUPS = ("env_kwargs", "limits", "child", "execution")  # arguments that are dictionaries
OTHER_ARGUMENTS = ("env_id", "seed", "budget")  # in the title of the report


def write_report(run_dir: Path) -> Path:
    """Write the report on the search in ``run_dir`` to this directory and return its path.

    Raises:
        InputError: if a file cannot be read, or the report cannot be written.
    """
    path = run_dir / REPORT
    write_atomically(path, render([read_run(run_dir)]).encode())
    return path


def read_run(run_dir: Path) -> Run:
    """Read a search, which may be running.

    Nothing that a file names is imported; the cells of a custom search space are therefore not drawn.

    Raises:
        InputError: if it is not a run directory, or a file in it is not valid.
    """
    config = read_config(run_dir)
    arguments, configuration = config["arguments"], config["configuration"]
    is_running = is_locked(run_dir)
    recorded = read_finalists(run_dir)
    described_space = _described_space(run_dir, configuration)
    trials = _Trials(_built_in_space(described_space), [each["child"] for each in recorded])
    trials.read(run_dir)
    # The finalists of a search that is resumed may be newer or older than the trials that were read.
    finalists = [
        Finalist(each["child"], _child(each, Evaluation.from_dict(each["second"])), each["mean_reward"])
        for each in recorded
        if each["child"] in trials.details
    ]
    top = rank(trials.children, finalists)
    notes: list[str] = []
    try:
        curves = _read_curves(run_dir, config, [(child, trials.details[child.number].seed) for child in top[:NUM_CURVES]])
    except InputError as error:
        curves = []
        notes.append(f"Learning curves are missing: {one_line(error)}")
    vectors = _to_vectors([trials.details[child.number].action for child in trials.children])
    is_embedded = vectors is not None
    if vectors is None:
        vectors = _architecture_vectors(trials.children, described_space)
    best = finalists[0] if finalists else trials.best
    finished = config.get("finished")
    return Run(
        name=str(run_dir),
        agent=config["agent"],
        env_id=arguments["env_id"],
        seed=arguments["seed"],
        budget=limited_budget(arguments["budget"]),
        state="running" if is_running else "finished" if _is_date(finished) else "stopped",
        started=config["started"],
        finished=finished if _is_date(finished) else None,
        command=str(config.get("command", "")),
        versions={name: str(version) for name, version in _entries(config.get("versions"))},
        settings=_settings(arguments),
        digest=evaluation_digest(configuration, arguments["env_id"]),
        is_trained=configuration.get("evaluator") == "training",
        totals=trials.totals(),
        children=trials.children,
        stride=trials.stride,
        is_embedded=is_embedded,
        vectors=vectors,
        best=None if best is None else best.number,
        best_reward=best.mean_reward if isinstance(best, Finalist) else 0.0 if best is None else best.reward,
        quantity=recorded_quantity(config),
        has_metric_rewards=_has_metric_rewards(configuration) and not trials.has_scores,
        finalists=finalists,
        designs=trials.designs(run_dir, [child.number for child in top[:NUM_DESIGNS]]),
        curves=curves,
        operators=trials.operator_shares(finalists),
        notes=notes,
    )


def evaluation_digest(configuration: Mapping[str, Any], env_id: str = "") -> EvaluationDigest:
    """Return how the children of a search are evaluated; the validation split, which its seed determines, is separate."""
    others = {name: value for name, value in configuration.items() if name not in ("split_seed", "images")}
    digest = sha256_hex(json.dumps([env_id, others], sort_keys=True))
    return EvaluationDigest(digest, str(configuration.get("split_seed")), str(configuration.get("images")))


class _Details(NamedTuple):
    """What the report needs of a trial in addition to its ``Child``."""

    seed: int
    action: Any
    operators: bytes  # indices of the operators of all branches; empty if not known


class _Trials:
    """The trials of a search, of which only those that the report needs are kept, since there may be a million.

    Args:
        space: the search space; None if it is not a built-in one.
        always: numbers of children to keep.
    """

    def __init__(self, space: SearchSpace | None, always: Sequence[int]) -> None:
        self._space = space
        self._operators: dict[str, int] = {}  # index by name
        self._cache: dict[str, bytes] = {}  # ``_Details.operators`` by key
        self._counter = TotalsCounter()
        self._sample = TrialSample[_Details](MAX_CHILDREN, always)
        self.children: list[Child] = []
        self.details: dict[int, _Details] = {}  # by number
        self.has_scores = False  # whether a reward is not the validation metric

    @property
    def stride(self) -> int:
        return self._sample.stride

    @property
    def best(self) -> Child | None:
        return self._sample.best

    def read(self, run_dir: Path) -> None:
        """Read the trials."""
        for record, evaluation in read_trials(run_dir):
            child = _child(record, evaluation)
            self.has_scores |= evaluation.score is not None
            self._counter.add(child)
            self._sample.add(child, partial(self._details, record, evaluation))
        kept = self._sample.kept()
        self.children = [child for child, _ in kept]
        self.details = {child.number: details for child, details in kept}

    def totals(self) -> Totals:
        return self._counter.totals()

    def _details(self, record: Mapping[str, Any], evaluation: Evaluation) -> _Details:
        operators = self._branch_operators(evaluation.key, record["genotype"])
        return _Details(evaluation.seed, _compact(record.get("action")), operators)

    def _branch_operators(self, key: str, genotype: Any) -> bytes:
        if self._space is not None and key not in self._cache:
            try:
                graphs = drawn_graphs(self._space, self._space.from_genotype(genotype))
            except InputError:  # of another version; its children are shown as text
                self._space = None
                return b""
            names = [branch.operator for graph in graphs for node in graph.nodes for branch in node]
            if len(self._cache) >= 2 * MAX_CHILDREN:
                self._cache.clear()
            self._cache[key] = bytes(self._operators.setdefault(name, len(self._operators)) for name in names)
        return self._cache.get(key, b"")

    def designs(self, run_dir: Path, numbers: Sequence[int]) -> list[Design]:
        """Return how the architectures of the children with these numbers are shown."""
        genotypes = read_genotypes(run_dir, numbers)
        return [self._design(number, genotype) for number, genotype in zip(numbers, genotypes, strict=True)]

    def _design(self, number: int, genotype: Any) -> Design:
        if self._space is None:
            return Design(number, json.dumps(genotype))
        architecture = self._space.from_genotype(genotype)
        graphs, summary = drawn_graphs(self._space, architecture), self._space.summary(architecture)
        return Design(number, json.dumps(genotype), graphs, summary)

    def operator_shares(self, finalists: Sequence[Finalist]) -> dict[str, tuple[float, float]]:
        """Return the share of each operator among all architectures and the best tenth, of the evenly spaced trials."""
        top = rank((child for child in self.children if is_spaced(child.number, self.stride)), finalists)
        if self._space is None or len(top) < MIN_ARCHITECTURES:
            return {}
        shares = [self._shares(part) for part in (top, top[: len(top) // 10])]
        return {
            name: (float(shares[0][index]), float(shares[1][index]))
            for name, index in sorted(self._operators.items())
            if shares[0][index] > 0
        }

    def _shares(self, children: Sequence[Child]) -> Numbers:
        indices = np.frombuffer(b"".join(self.details[child.number].operators for child in children), dtype=np.uint8)
        return np.bincount(indices, minlength=len(self._operators)) / max(1, len(indices))


def _compact(action: Any) -> Any:
    """Return ``action`` as an array, which takes a quarter of the memory of a list of numbers; others remain as they are."""
    try:
        return None if action is None else array("d", action)
    except (TypeError, OverflowError):
        return action


def _child(record: Mapping[str, Any], evaluation: Evaluation) -> Child:
    return Child(
        number=record["child"],
        key=evaluation.key,
        status=sys.intern(evaluation.status.value),
        reward=evaluation.reward,
        num_params=evaluation.num_params,
        num_flops=evaluation.num_flops,
        activation_bytes=evaluation.activation_bytes,
        file_bytes=evaluation.file_bytes,
        latency=evaluation.latency,
        num_epochs=evaluation.num_epochs,
        seconds=evaluation.seconds,
        device=evaluation.device,
        fidelity=evaluation.fidelity,
        is_new=record.get("is_new", True),
        is_promotion=record.get("is_promotion", False),
        reason=evaluation.reason,
        valid_accuracy=evaluation.valid_accuracy,
    )


def _described_space(run_dir: Path, configuration: Mapping[str, Any]) -> Any:
    """Return the description of the search space; None if it is not known.

    The configuration of a table lacks it; the keys of the children name it.
    """
    if "search_space" in configuration:
        return configuration["search_space"]
    first = next(read_trajectory(run_dir), {"key": ""})
    name = search_space_of(first["key"])
    return describe_search_space(get_search_space(name)) if name in SEARCH_SPACES else None


def _built_in_space(described: Any) -> SearchSpace | None:
    if not isinstance(described, dict) or "class" in described:  # the class of a custom search space
        return None
    name = described.get("name")
    return get_search_space(name) if isinstance(name, str) and name in SEARCH_SPACES else None


def _has_metric_rewards(configuration: Mapping[str, Any]) -> bool:
    settings = configuration.get("settings")
    return not isinstance(settings, dict) or "reward_signal" not in settings


def _read_curves(run_dir: Path, config: Mapping[str, Any], children: Sequence[tuple[Child, int]]) -> list[Curve]:
    """Read the learning curves of ``children``, each with its seed, from the store.

    Raises:
        InputError: if the store cannot be read.
    """
    if config["configuration"].get("evaluator") != "training" or not children:
        return []
    curves = []
    with Store(config["arguments"]["execution"]["store"] or run_dir / STORE, read_only=True) as store:
        for child, seed in children:
            rung = {} if child.fidelity is None else {"fidelity": child.fidelity}
            found = store.get(child.key, config_digest({**config["configuration"], **rung}), seed)
            if found is not None and found.curve:
                epochs, accuracies = [each.epoch for each in found.curve], [each.train_accuracy for each in found.curve]
                if all(0 <= accuracy <= 1 for accuracy in accuracies):
                    curves.append(Curve(child.number, epochs, accuracies))
    return curves


def _to_vectors(rows: Sequence[Any]) -> Numbers | None:
    """Return ``rows`` as an array, shape (rows, dimensions); None if it is not such a list of numbers."""
    try:
        vectors = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= MAX_DIMENSIONS:
        return None
    return vectors if -MAX_COORDINATE < vectors.min() <= vectors.max() < MAX_COORDINATE else None


def _architecture_vectors(children: Sequence[Child], described_space: Any) -> Numbers | None:
    """Return the architecture vectors of the canonical architectures, which the keys contain; None if they are not known."""
    try:
        choices = [array("H", map(int, child.key.rpartition(":")[2].split("-"))) for child in children]
        sizes = np.array(described_space["decision_sizes"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    vectors = _to_vectors(choices)
    if vectors is None or sizes.shape != vectors.shape[1:] or (sizes < 1).any():
        return None
    vectors += 0.5
    vectors /= sizes
    return vectors


def _settings(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of a search, except for those in its title, as text by name."""
    settings = {name: value for name, value in arguments.items() if name not in (*OTHER_ARGUMENTS, *GROUPS)}
    for group in GROUPS:
        settings.update({f"{group}.{name}": value for name, value in _entries(arguments.get(group))})
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _is_date(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True
