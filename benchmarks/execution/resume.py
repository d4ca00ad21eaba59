"""Seconds to resume a search with many recorded children."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from nases_agents.random_search import RandomSearch

from benchmarks.common.interleave import Measurements, interleave
from nases_env.execution import Store
from nases_env.execution.store import COLUMNS
from nases_env.search import SearchArgs, SearchRun, make_env
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import STORE, TRAJECTORY, read_trajectory

ENV_ID = "NASES-Synthetic-v0"
AGENT = "random_search"
MIB = 2**20


class _NewChild(BaseException):
    """Stops a search at the first child that is not recorded."""


def measure(
    folder: Path, *, num_rows: tuple[int, ...], num_searched: int, num_repeats: int, seed: int
) -> dict[str, Measurements]:
    """Measure how long it takes to resume a search, in a new process each time, not counting its imports.

    Args:
        folder: the folder for the run directories.
        num_rows: numbers of recorded children.
        num_searched: number of recorded children that a search evaluates; see ``make_run_dir``.
        num_repeats: number of measurements per run directory.
        seed: seed of the searches.

    Returns:
        The measurements by number of recorded children.
    """
    variants, sizes = {}, {}
    for number, run_dir in make_run_dirs(folder, num_rows, num_searched, seed).items():
        variants[f"{number:,} children"] = partial(in_new_process, run_dir, number + 1)
        sizes[f"{number:,} children"] = {
            "trajectory_mib": [(run_dir / TRAJECTORY).stat().st_size / MIB],
            "store_mib": [(run_dir / STORE).stat().st_size / MIB],
        }
    measurements = interleave(variants, num_repeats)
    return {name: {**own, **sizes[name]} for name, own in measurements.items()}


def make_run_dirs(folder: Path, num_rows: tuple[int, ...], num_searched: int, seed: int) -> dict[int, Path]:
    """Return the run directories by number of children; those that another part of the benchmark has made are reused."""
    run_dirs = {number: folder / f"{number}-children" for number in num_rows}
    for number, run_dir in run_dirs.items():
        if not run_dir.exists():
            make_run_dir(run_dir, number, num_searched, seed)
    return run_dirs


def make_run_dir(run_dir: Path, num_children: int, num_searched: int, seed: int) -> None:
    """Create the run directory of a random search with ``num_children`` children.

    The first ``num_searched`` children are evaluated by a search. The others are written directly to the trajectory and the
    store, as that search would have written them, but without TensorBoard curves, which are not read when a search resumes.
    """
    budget = min(num_children, num_searched)
    args = SearchArgs(env_id=ENV_ID, budget=budget, run_dir=run_dir, seed=seed)
    with _quiet(), SearchRun(args, agent=AGENT) as run:
        run.search(RandomSearch(run.env, args))
    if num_children > budget:
        extend(run_dir, args, num_children)


def extend(run_dir: Path, args: SearchArgs, num_children: int) -> None:
    """Append the children that the random search ``args`` would evaluate, up to ``num_children``, to its run directory."""
    records = list(read_trajectory(run_dir))
    nases = make_env(args)
    nases.reset(seed=args.seed)
    with contextlib.closing(Store(run_dir / STORE)) as store:
        row = next(store.rows())
    keys = {record["key"] for record in records}
    lines: list[str] = []
    rows: list[dict[str, Any]] = []
    proposals = RandomSearch(nases, args).ask(num_children)
    for number, proposal in enumerate(proposals[len(records) :], start=len(records) + 1):
        architecture = proposal.architecture
        evaluation = nases.evaluate(architecture)
        values = evaluation.to_dict()
        curve = values.pop("curve")
        is_new = evaluation.key not in keys
        keys.add(evaluation.key)
        genotype = nases.search_space.genotype(architecture)
        record = {"child": number, "is_new": is_new, "reward": evaluation.reward, **values}
        lines.append(json.dumps({**record, "action": None, "genotype": genotype}))
        if is_new:
            rows.append({**row, **values, "curve": json.dumps(curve), "genotype": nases.search_space.to_json(architecture)})
    nases.close()
    with open(run_dir / TRAJECTORY, "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    insert = f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
    with contextlib.closing(sqlite3.connect(run_dir / STORE)) as database, database:
        database.executemany(insert, rows)


def resume(run_dir: Path, budget: int) -> dict[str, float]:
    """Resume the search in ``run_dir`` until it submits the first child that is not recorded, and return the durations.

    Reading covers everything before the search: its arguments, the environment, the trajectory, and the store, whose
    integrity is checked when it is opened. Replaying is the rest. Opening the store is then measured once more separately.
    """
    with _quiet():
        bytes_before = psutil.Process().memory_info().rss
        start, cpu_start = time.perf_counter(), time.process_time()
        args = dataclasses.replace(load_args(SearchArgs, run_dir), budget=budget)
        run = SearchRun(args, agent=AGENT)
        read_end = time.perf_counter()
        with contextlib.suppress(_NewChild), run:
            run.env.executor.inner.submit = _stop  # type: ignore[assignment, method-assign]
            try:
                run.search(RandomSearch(run.env, args))
            finally:
                replay_end, cpu_end = time.perf_counter(), time.process_time()
        open_start = time.perf_counter()
        Store(run_dir / STORE).close()
        seconds_to_open = time.perf_counter() - open_start
    if run.loop.num_trials != budget - 1:
        raise RuntimeError(f"{run.loop.num_trials} children were replayed, not {budget - 1}")
    return {
        "seconds": replay_end - start,
        "cpu_seconds": cpu_end - cpu_start,
        "reading_seconds": read_end - start,
        "opening_store_seconds": seconds_to_open,
        "replaying_seconds": replay_end - read_end,
        "memory_mib": (psutil.Process().memory_info().rss - bytes_before) / MIB,
    }


def _stop(*_: Any) -> Any:
    raise _NewChild


def in_new_process(run_dir: Path, budget: int) -> dict[str, float]:
    """Call ``resume`` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(resume, run_dir, budget).result()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of a search."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
