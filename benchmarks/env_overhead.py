"""Overhead of the environments: steps per second with a free evaluation, and the share of decoding.

    python -m benchmarks.env_overhead --output overhead.json

"single" is the environment of ``gymnasium.make``, "vector" is ``NASESVectorEnv`` with K sub-environments, and "sync" is
Gymnasium's ``SyncVectorEnv`` of K single environments. No child is repeated. All variants are measured in each repeat, so
that other load on the machine slows all of them equally; ratios are computed within a repeat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nases_env
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.cpu import torch_threads
from nases_env.envs import ACTION_SCALE, NASESEnv, NASESVectorEnv
from nases_env.errors import InputError
from nases_env.seeding import derive_seed, numpy_generator

gym.register_envs(nases_env)


@dataclass(frozen=True)
class Args:
    """Options of the benchmark."""

    env_id: str = "NASES-Synthetic-v0"
    """Environment with a free evaluation; NASES-NASBench201-v0 needs its table."""
    num_envs: tuple[int, ...] = (1, 16, 256)
    """Numbers K of sub-environments of the vector environments."""
    num_children: int = 1024
    """Children per variant and repeat, rounded up to a multiple of K."""
    num_repeats: int = 7
    """Number of timed repeats, after one warm-up repeat."""
    num_threads: int = 1
    """Number of CPU threads of torch."""
    seed: int = 0
    """Seed of the actions, which are standard-normal embeddings."""
    output: Path | None = None
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        for option in ("num_children", "num_repeats"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(self, option)}")
        if not self.num_envs:
            raise InputError("--num-envs must name at least one size")


class Timing(NamedTuple):
    """Duration of ``num_children`` evaluations in seconds, and the part of it spent in decoding."""

    num_children: int
    seconds: float
    decode_seconds: float

    @property
    def steps_per_second(self) -> float:
        return self.num_children / self.seconds

    @property
    def decode_share(self) -> float:
        return self.decode_seconds / self.seconds


class Stopwatch:
    """Accumulates the seconds that environments spend in ``decode_batch``."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, env: NASESEnv) -> None:
        decode_batch = env.decode_batch

        def timed(actions: NDArray[np.floating[Any]]) -> Any:
            start = time.perf_counter()
            architectures = decode_batch(actions)
            self.seconds += time.perf_counter() - start
            return architectures

        env.decode_batch = timed  # type: ignore[method-assign]


class Variant:
    """A kind of environment.

    Args:
        step: the ``step`` method of the environment.
        shape: shape of its actions; two-dimensional for vector environments.
        envs: environments whose decoding is timed.
    """

    def __init__(self, step: Callable[[Any], Any], shape: tuple[int, ...], envs: list[NASESEnv]) -> None:
        self.step = step
        self.shape = shape
        self.stopwatch = Stopwatch()
        for env in envs:
            self.stopwatch.watch(env)

    def measure(self, args: Args, *names: str) -> Timing:
        """Step through random children; ``names`` determines their random stream."""
        size = self.shape[0] if len(self.shape) == 2 else 1
        num_steps = -(-args.num_children // size)
        rng = numpy_generator(args.seed, "env overhead", *names)
        actions = (rng.standard_normal((num_steps, *self.shape)) / ACTION_SCALE).astype(np.float32)
        before = self.stopwatch.seconds
        start = time.perf_counter()
        for action in actions:
            self.step(action)
        seconds = time.perf_counter() - start
        return Timing(num_steps * size, seconds, self.stopwatch.seconds - before)


def make_variants(args: Args) -> dict[str, Variant]:
    """Return the variants by name, reset: single, and vector and sync of each size."""
    seed = derive_seed(args.seed, "env overhead") % 2**32
    single = gym.make(args.env_id, max_episode_steps=-1)
    single.reset(seed=seed)
    variants = {"single": Variant(single.step, single.action_space.shape or (), [cast(NASESEnv, single.unwrapped)])}
    for size in args.num_envs:
        vector = cast(NASESVectorEnv, gym.make_vec(args.env_id, size, max_episode_steps=None))
        sync = cast(gym.vector.SyncVectorEnv[Any, Any], gym.make_vec(args.env_id, size, "sync", max_episode_steps=-1))
        singles = [cast(NASESEnv, env.unwrapped) for env in sync.envs]
        kinds: dict[str, tuple[VectorEnv[Any, Any, Any], list[NASESEnv]]] = {
            "vector": (vector, [vector.env]),
            "sync": (sync, singles),
        }
        for kind, (envs, watched) in kinds.items():
            envs.reset(seed=seed)
            variants[f"{kind}, K = {size}"] = Variant(envs.step, envs.action_space.shape or (), watched)
    return variants


def median_and_range(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum of ``values``."""
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def main(args: Args) -> None:
    """Measure the steps per second of the environment and of its vector environments, including decoding."""
    with torch_threads(args.num_threads):
        variants = make_variants(args)
        timings: dict[str, list[Timing]] = {name: [] for name in variants}
        for repeat in range(args.num_repeats + 1):
            for name, variant in variants.items():
                timing = variant.measure(args, name, str(repeat))
                if repeat > 0:
                    timings[name].append(timing)
    table = Table(title=f"{args.env_id}: children per second, median (range) of {args.num_repeats} repeats")
    for heading in ("environment", "children/s", "times single", "decoding"):
        table.add_column(heading, justify="right", no_wrap=True)
    results = {}
    for name, measured in timings.items():
        ratios = [
            own.steps_per_second / single.steps_per_second for own, single in zip(measured, timings["single"], strict=True)
        ]
        results[name] = {
            "steps_per_second": median_and_range([timing.steps_per_second for timing in measured]),
            "times_single": median_and_range(ratios),
            "decode_share": median_and_range([timing.decode_share for timing in measured]),
        }
        rate, ratio, share = results[name].values()
        table.add_row(
            name,
            f"{rate['median']:,.0f} ({rate['min']:,.0f}–{rate['max']:,.0f})",
            f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})",
            f"{share['median']:.0%} ({share['min']:.0%}–{share['max']:.0%})",
        )
    Console().print(table)
    if args.output is not None:
        settings = {option: value for option, value in asdict(args).items() if option != "output"}
        record = {"benchmark": "env_overhead", "settings": settings, "torch": torch.__version__, "results": results}
        write_atomically(args.output, (json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    run_command(Args, main)
