"""Named generators are reproducible and independent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nases_env.seeding import derive_seed, numpy_generator, torch_generator

names = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=8)


def test_derived_seed_is_stable() -> None:
    """A different value would change the results of all searches."""
    assert derive_seed(0, "child", "key") == 6677815734523638392


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.lists(names, max_size=3), st.lists(names, max_size=3))
def test_seeds_are_equal_only_for_equal_seed_and_names(a: int, b: int, these: list[str], those: list[str]) -> None:
    one, other = derive_seed(a, *these), derive_seed(b, *those)
    assert 0 <= one < 2**63
    assert (one == other) == ((a, these) == (b, those))


@pytest.mark.parametrize("seed", [1.0, 1.5, "1", None])
def test_seed_that_is_not_an_integer_is_an_error(seed: Any) -> None:
    derive_seed(1)
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        derive_seed(seed)


def test_generators_are_reproducible() -> None:
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert numpy_generator(1, "a").random() != numpy_generator(1, "b").random()
    assert torch.equal(torch.rand(3, generator=torch_generator(1, "a")), torch.rand(3, generator=torch_generator(1, "a")))
