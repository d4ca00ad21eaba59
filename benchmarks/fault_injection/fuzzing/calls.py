"""Calls of the environments: actions and arguments of ``reset`` of any type."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fault_injection.fuzzing.inputs import FuzzInput
from benchmarks.fault_injection.fuzzing.mutations import VALUES
from benchmarks.fault_injection.fuzzing.values import choose
from nases_env.embedding import load_embedding
from nases_env.envs import NASESEnv, NASESVectorEnv, SyntheticEnv
from nases_env.search_spaces import Architecture, get_search_space

NUM_ENVS = 2
DTYPES = ("f4", "f8", "f2", "i1", "i8", "u8", "?", "c8", "O", "U3", "S3", "M8[s]", "m8[s]", "f8,i4")
NUMBERS = (0.0, 0.5, -1.0, 1.0, 2.0, 1e30, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf"))


@lru_cache(maxsize=1)
def _embedding_size() -> int:
    return load_embedding(get_search_space("enas_micro"), None).embedding_size


def _circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    return value


def any_value(rng: np.random.Generator) -> Any:
    """Return a value of any type."""
    values: tuple[Callable[[], Any], ...] = (
        *(lambda: choose(rng, VALUES), lambda: choose(rng, VALUES), lambda: choose(rng, NUMBERS), lambda: any_array(rng)),
        *(
            lambda: {choose(rng, (1, "a", None, ("a",))): choose(rng, VALUES)},
            lambda: {1, 2},
            lambda: b"bytes",
            lambda: object(),
        ),
        *(
            lambda: int,
            lambda: len,
            lambda: range(3),
            lambda: iter([1]),
            lambda: complex(1, 2),
            lambda: 10**5000,
            _circular,
            _nested,
        ),
        *(
            lambda: np.int64(3),
            lambda: np.float32(0.5),
            lambda: np.bool_(True),
            lambda: np.str_("x"),
            lambda: memoryview(b"ab"),
        ),
        *(
            lambda: torch.zeros(_embedding_size(), requires_grad=True),
            lambda: torch.tensor(1),
            lambda: np.zeros(NUM_ENVS, bool),
        ),
    )
    return choose(rng, values)()


def any_array(rng: np.random.Generator) -> Any:
    """Return an array of any shape and type, or nested lists."""
    size = _embedding_size()
    shapes: tuple[tuple[int, ...], ...] = (
        *((size,), (size,), (size,), (NUM_ENVS, size), (NUM_ENVS, size), (NUM_ENVS, size), (), (0,), (1,), (size + 1,)),
        *((size, 1), (1, size), (0, size), (NUM_ENVS, size + 1), (NUM_ENVS, 1, size), (1,) * 30, (10_000,)),
    )
    array = rng.uniform(-2, 2, choose(rng, shapes))
    if array.size and rng.random() < 0.4:
        array.flat[rng.integers(array.size)] = choose(rng, NUMBERS)
    with np.errstate(all="ignore"):
        changed: Any = array
        if rng.random() < 0.4:
            dtype = choose(rng, DTYPES)
            changed = (
                np.zeros(array.shape, dtype)
                if dtype in DTYPES[-3:]
                else array.real.astype("i8" if dtype[0] in "Mm" else "f8").astype(dtype)
            )
    if rng.random() < 0.2:
        changed = changed.tolist()
    if isinstance(changed, list) and changed and rng.random() < 0.5:
        changed[0] = any_value(rng)
    return changed


def _reset_options(rng: np.random.Generator) -> Any:
    if rng.random() < 0.3:
        return any_value(rng)
    options: dict[Any, Any] = {}
    for _ in range(rng.integers(3)):
        name = choose(rng, ("architecture", "architecture", "fidelity", "reset_mask", "x", 1, None))
        options[name] = _architecture(rng) if name == "architecture" else any_value(rng)
    return options


def _architecture(rng: np.random.Generator) -> Any:
    space = get_search_space("enas_micro")
    valid = space.sample(rng)
    kind = rng.random()
    if kind < 0.2:
        return any_value(rng)
    if kind < 0.4:
        return Architecture(any_value(rng), choose(rng, (valid.decisions, valid.decisions[:-1], any_value(rng))), "key")
    if kind < 0.6:
        text = space.to_json(valid)
        position = rng.integers(len(text))
        return text[:position] + choose(rng, ("", "}", '"', "9", "null", "\ud800")) + text[position + 1 :]
    if kind < 0.8:
        genotype = space.genotype(valid)
        genotype[choose(rng, list(genotype))] = any_value(rng)
        return genotype
    return [valid, any_value(rng)]


def _call(rng: np.random.Generator, env: NASESEnv | NASESVectorEnv) -> tuple[str, Callable[[], object]]:
    kind = rng.random()
    if kind < 0.5:
        action = any_value(rng) if rng.random() < 0.3 else any_array(rng)
        return f"step({_shorten(action)})", lambda: env.step(action)
    if kind < 0.65:
        seed = any_value(rng)
        return f"reset(seed={_shorten(seed)})", lambda: env.reset(seed=seed)
    options = _reset_options(rng)
    return f"reset(options={_shorten(options)})", lambda: env.reset(options=options)


def _shorten(value: Any) -> str:
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception:
        return f"<{type(value).__name__}>"


def draw_call(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that calls an environment, which was reset before, with random arguments."""
    env: NASESEnv | NASESVectorEnv = SyntheticEnv()
    if rng.random() < 0.5:
        env = NASESVectorEnv(SyntheticEnv(), NUM_ENVS)
    text, call = _call(rng, env)

    def run() -> None:
        try:
            env.reset(seed=0)
            call()
        finally:
            env.close()

    return FuzzInput(f"{type(env).__name__}.{text}", run)
