"""Arguments of any type give a result or an ``InputError`` of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.envs import (
    ImageEnv,
    MONasBench201Env,
    NasBench201Env,
    NASESEnv,
    NASESVectorEnv,
    SyntheticEnv,
    TransNASMicroEnv,
)
from nases_env.errors import InputError
from nases_env.search_spaces import Architecture

SIZE = 20
NESTED: list[Any] = []
for _ in range(5000):
    NESTED = [NESTED]


@pytest.fixture(params=[0, 2])
def env(request: pytest.FixtureRequest) -> NASESEnv | NASESVectorEnv:
    """An environment, or a vector environment of two."""
    env = SyntheticEnv() if request.param == 0 else NASESVectorEnv(SyntheticEnv(), request.param)
    env.reset(seed=0)
    return env


ACTIONS: dict[str, Any] = {
    "text": "x",
    "bytes": b"x",
    "a dictionary": {"a": 1},
    "None": None,
    "an object": object(),
    "nested lists": NESTED,
    "lists of different lengths": [[1.0], [1.0, 2.0]],
    "complex numbers": np.zeros(SIZE, complex),
    "dates": np.zeros(SIZE, "M8[s]"),
    "structures": np.zeros(SIZE, "f8,i4"),
    "numbers as text": ["0.5"] * SIZE,
    "objects": np.array([0.5] * (SIZE - 1) + [None]),
    "huge integers": [10**400] * SIZE,
    "a tensor with a gradient": torch.zeros(SIZE, requires_grad=True),
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_actions_that_are_not_numbers_are_rejected(kind: str, env: NASESEnv | NASESVectorEnv) -> None:
    with pytest.raises(InputError, match=r"must be an array of numbers|must have the shape|NaN or infinity"):
        env.step(ACTIONS[kind])


@pytest.mark.parametrize("dtype", ["f4", "f2", "i1", "u8", "?", "O"])
def test_actions_may_have_any_numeric_type(dtype: str, env: NASESEnv | NASESVectorEnv) -> None:
    ones: Any = np.ones_like(env.action_space.sample())
    expected = env.step(ones)[0]
    np.testing.assert_array_equal(env.step(ones.astype(dtype))[0], expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", b"1", 10**5000, {"a": 1}, object(), np.float32(1)], ids=type)
def test_seeds_that_are_not_integers_from_0_are_rejected(seed: Any, env: NASESEnv | NASESVectorEnv) -> None:
    with pytest.raises(InputError, match="a seed must be"):
        env.reset(seed=seed)


SEEDS: dict[str, Callable[[Any], NASESEnv]] = {
    "split_seed": lambda seed: ImageEnv("digits", preset="smoke", split_seed=seed),
    "landscape_seed": lambda seed: SyntheticEnv(landscape_seed=seed),
    "operator_permutation_seed": lambda seed: NasBench201Env(operator_permutation_seed=seed),
    "with objectives": lambda seed: MONasBench201Env(operator_permutation_seed=seed),
    "of TransNAS-Bench-101": lambda seed: TransNASMicroEnv(operator_permutation_seed=seed),
}


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
@pytest.mark.parametrize("name", SEEDS)
def test_seeds_of_constructors_that_are_not_integers_from_0_are_rejected(name: str, seed: Any) -> None:
    with pytest.raises(InputError, match="a seed must be"):
        SEEDS[name](seed)


def test_seeds_of_constructors_may_be_integers_of_numpy() -> None:
    for name in ("split_seed", "landscape_seed"):
        assert SEEDS[name](np.int64(3)).evaluator == SEEDS[name](3).evaluator
    with pytest.raises(InputError, match="split_seed must be an integer, not None"):
        SEEDS["split_seed"](None)


def test_seed_may_be_an_integer_of_numpy(env: NASESEnv | NASESVectorEnv) -> None:
    np.testing.assert_array_equal(env.reset(seed=np.int64(3))[0], env.reset(seed=3)[0])


@pytest.mark.parametrize("options", [1, 0, "x", [], ["x"], {1, 2}, np.zeros(3), NESTED, 10**5000], ids=type)
def test_options_that_are_not_a_dictionary_are_rejected(options: Any, env: NASESEnv | NASESVectorEnv) -> None:
    with pytest.raises(InputError, match="the options of reset must be a dictionary"):
        env.reset(options=options)


@pytest.mark.parametrize(
    "architecture",
    [
        1,
        {("a",): 1},
        {"a": NESTED},
        Architecture("enas_micro", (0.5,) * 40, "key"),  # type: ignore[arg-type]
        Architecture("enas_micro", 3, "key"),  # type: ignore[arg-type]
        "\ud800",
        {"normal": object()},
    ],
)
def test_architectures_of_any_type_are_rejected(architecture: Any, env: NASESEnv | NASESVectorEnv) -> None:
    with pytest.raises(InputError) as caught:
        env.reset(options={"architecture": architecture})
    assert len(str(caught.value).splitlines()) == 1


def test_mask_of_several_lines_is_reported_in_one_line() -> None:
    env = NASESVectorEnv(SyntheticEnv(), 2)
    with pytest.raises(InputError, match="reset_mask must be") as caught:
        env.reset(options={"reset_mask": np.zeros((30, 3))})
    assert len(str(caught.value).splitlines()) == 1
