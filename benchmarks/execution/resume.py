"""Seconds until a search that has many children behind it goes on with the next."""

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
from typing import Any, cast

import psutil
from nases_agents.random_search import RandomSearch

from benchmarks.common.interleave import Figures, take_turns
from nases_env.envs import NASESEnv
from nases_env.execution import Store
from nases_env.execution.store import COLUMNS
from nases_env.search import SearchArgs, SearchRun, make_env
from nases_env.search.options import load_args
from nases_env.search.run_dir import STORE, TRAJECTORY, read_trajectory

ENV_ID = "NASES-Synthetic-v0"
AGENT = "random_search"
MIB = 2**20


class _Asked(BaseException):
    """Ends a search at the first child that it does not know."""


def measure(
    folder: Path, *, num_rows: tuple[int, ...], num_searched: int, num_repeats: int, seed: int
) -> dict[str, Figures]:
    """The figures by number of recorded children. Each resumption is that of a process of its own, without its imports.

    Args:
        folder: for the run folders.
        num_rows: recorded children.
        num_searched: of these, the first ones, that a search has really evaluated; see ``make_run_folder``.
        num_repeats: resumptions of each run folder.
        seed: of the searches.
    """
    variants, sizes = {}, {}
    for number in num_rows:
        run_dir = folder / f"{number}-children"
        make_run_folder(run_dir, number, num_searched, seed)
        variants[f"{number:,} children"] = partial(in_new_process, run_dir, number + 1)
        sizes[f"{number:,} children"] = {
            "trajectory_mib": [(run_dir / TRAJECTORY).stat().st_size / MIB],
            "store_mib": [(run_dir / STORE).stat().st_size / MIB],
        }
    figures = take_turns(variants, num_repeats)
    return {name: {**own, **sizes[name]} for name, own in figures.items()}


def make_run_folder(run_dir: Path, num_children: int, num_searched: int, seed: int) -> None:
    """The run folder of a random search with ``num_children`` children.

    The first ``num_searched`` are those of a real search. The others are what that search would have written to the
    trajectory and the store, at once. Of them there are no curves, which a search that goes on does not read.
    """
    budget = min(num_children, num_searched)
    args = SearchArgs(env_id=ENV_ID, budget=budget, run_dir=run_dir, seed=seed)
    with _quiet(), SearchRun(args, agent=AGENT) as run:
        run.search(RandomSearch(run.env, args))
    if num_children > budget:
        lengthen(run_dir, args, num_children)


def lengthen(run_dir: Path, args: SearchArgs, num_children: int) -> None:
    """Appends what the random search ``args`` would have found, up to child ``num_children``, to its run folder."""
    records = list(read_trajectory(run_dir))
    env = make_env(args)
    nases = cast(NASESEnv, env.unwrapped)
    env.reset(seed=args.seed)
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
    env.close()
    with open(run_dir / TRAJECTORY, "a") as file:
        file.writelines(f"{line}\n" for line in lines)
    insert = f"INSERT INTO evaluations ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
    with contextlib.closing(sqlite3.connect(run_dir / STORE)) as database, database:
        database.executemany(insert, rows)


def resume(run_dir: Path, budget: int) -> dict[str, float]:
    """Goes on with the search in ``run_dir`` until it asks for the first child that it does not know.

    Reading is all until the search could begin: its arguments, the environment, the trajectory, and the store, which is
    checked as it is opened. Replaying is what follows. To open the store is then measured once more by itself.
    """
    with _quiet():
        bytes_before = psutil.Process().memory_info().rss
        start, cpu_start = time.perf_counter(), time.process_time()
        args = dataclasses.replace(load_args(SearchArgs, run_dir), budget=budget)
        run = SearchRun(args, agent=AGENT)
        has_read = time.perf_counter()
        with contextlib.suppress(_Asked), run:
            run.env.executor.inner.submit = _stop  # type: ignore[assignment, method-assign]
            try:
                run.search(RandomSearch(run.env, args))
            finally:
                has_replayed, cpu_end = time.perf_counter(), time.process_time()
        opened = time.perf_counter()
        Store(run_dir / STORE).close()
        seconds_to_open = time.perf_counter() - opened
    if len(run.loop.trials) != budget - 1:
        raise RuntimeError(f"{len(run.loop.trials)} children were replayed, not {budget - 1}")
    return {
        "seconds": has_replayed - start,
        "cpu_seconds": cpu_end - cpu_start,
        "reading_seconds": has_read - start,
        "of_it_opening_store": seconds_to_open,
        "replaying_seconds": has_replayed - has_read,
        "occupied_mib": (psutil.Process().memory_info().rss - bytes_before) / MIB,
    }


def _stop(*_: Any) -> Any:
    raise _Asked


def in_new_process(run_dir: Path, budget: int) -> dict[str, float]:
    """``resume`` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(resume, run_dir, budget).result()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what a search prints."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
