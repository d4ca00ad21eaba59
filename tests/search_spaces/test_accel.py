"""The search space of Accel-NASBench: values, genotypes, and the notation in a table."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import get_search_space, importable_name, parse_architecture
from nases_env.search_spaces.accel import Accel
from nases_env.visualization import describe

SPACE = Accel()
TEXT = "6,3,1,0,1,5,3,0,6,3,2,0,6,3,1,0,4,3,2,1,6,5,4,0,4,5,2,0"
BLOCK = {"expansion": 6, "kernel_size": 3, "num_layers": 1, "squeeze_excitation": 0}

decisions = st.tuples(*(st.integers(0, size - 1) for size in SPACE.decision_sizes))


def test_four_decisions_for_each_of_seven_blocks_in_seven_time_steps() -> None:
    assert SPACE.decision_sizes == (3, 2, 3, 2) * 5 + (3, 2, 4, 2) + (3, 2, 3, 2)
    assert math.prod(SPACE.decision_sizes) == pytest.approx(1.04e11, rel=0.01)
    assert SPACE.decisions_per_timestep == 4
    assert get_search_space("accel").decision_sizes == SPACE.decision_sizes
    assert importable_name(SPACE) == "accel"
    assert pickle.loads(pickle.dumps(SPACE)).from_string(TEXT) == SPACE.from_string(TEXT)


def test_notation_and_genotype_of_known_decisions() -> None:
    architecture = SPACE.from_string(TEXT)
    assert architecture.decisions[:8] == (2, 0, 0, 0, 0, 1, 2, 0)
    assert architecture.decisions[20:24] == (2, 1, 3, 0)
    assert SPACE.genotype(architecture)["blocks"][0] == BLOCK
    assert SPACE.genotype(architecture)["blocks"][4]["squeeze_excitation"] == 1
    assert SPACE.to_string(architecture) == TEXT


@given(decisions)
def test_notation_genotypes_json_and_vectors_round_trip(choices: tuple[int, ...]) -> None:
    architecture = SPACE.architecture(choices)
    assert SPACE.from_string(SPACE.to_string(architecture)) == architecture
    assert SPACE.from_values(SPACE.values(architecture)) == architecture
    assert SPACE.from_genotype(json.loads(json.dumps(SPACE.genotype(architecture)))) == architecture
    named, parsed = parse_architecture(SPACE.to_json(architecture))
    assert (named.name, parsed) == ("accel", architecture)
    vector = SPACE.encode(architecture)
    np.testing.assert_allclose(vector, (np.array(choices) + 0.5) / SPACE.decision_sizes, rtol=1e-6)
    assert SPACE.decode(vector) == architecture


@given(decisions, st.integers(0, 2**32 - 1))
def test_mutation_changes_one_decision_and_the_key(choices: tuple[int, ...], seed: int) -> None:
    architecture = SPACE.architecture(choices)
    mutant = SPACE.mutate(architecture, np.random.default_rng(seed))
    assert sum(a != b for a, b in zip(mutant.decisions, choices, strict=True)) == 1
    assert mutant.key != architecture.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is written as 28 integers separated by commas, not ''"),
        (TEXT.replace("6,3", "six,3", 1), "is written as 28 integers separated by commas, not 'six,3,"),
        (TEXT.replace("6,3", "6.0,3", 1), "is written as 28 integers"),
        (TEXT[:-2], "an architecture of accel has 28 values, not 27"),
        ("5" + TEXT[1:], "block 0 expansion is 5; it must be one of 1, 4, 6"),
        (TEXT.replace("6,5,4,0", "6,5,5,0"), "block 5 num layers is 5; it must be one of 1, 2, 3, 4"),
        (TEXT.replace("1,5,3,0", "1,5,4,0"), "block 1 num layers is 4; it must be one of 1, 2, 3$"),
        (TEXT[:-1] + "2", "block 6 squeeze excitation is 2; it must be one of 0, 1"),
    ],
)
def test_invalid_notation_is_a_one_line_error(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SPACE.from_string(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (None, r'a genotype of accel must be \{"blocks": \[block, ...\]\} with 7 blocks, not None'),
        ({"blocks": [BLOCK] * 6}, "with 7 blocks"),
        ({"blocks": [BLOCK] * 7, "more": 1}, "with 7 blocks"),
        ({"blocks": [*[BLOCK] * 3, 3, *[BLOCK] * 3]}, 'block 3 of a genotype of accel must be such as {"expansion": 6, '),
        ({"blocks": [{**BLOCK, "more": 1}, *[BLOCK] * 6]}, "block 0 of a genotype"),
        ({"blocks": [{**BLOCK, "squeeze_excitation": True}, *[BLOCK] * 6]}, "block 0 of a genotype"),
        ({"blocks": [{**BLOCK, "expansion": "6"}, *[BLOCK] * 6]}, "block 0 of a genotype"),
        ({"blocks": [{**BLOCK, "kernel_size": 7}, *[BLOCK] * 6]}, "block 0 kernel size is 7; it must be one of 3, 5"),
    ],
)
def test_invalid_genotype_is_a_one_line_error(genotype: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SPACE.from_genotype(genotype)
    assert "\n" not in str(caught.value)


def test_networks_have_no_cells_and_are_described_by_their_decisions() -> None:
    architecture = SPACE.from_string(TEXT)
    assert SPACE.cell_graphs(architecture) == ()
    lines = describe(SPACE, architecture).splitlines()
    assert len(lines) == 28
    assert lines[:2] == ["block 0 expansion: 6", "block 0 kernel size: 3"]
    with pytest.raises(InputError, match="accel does not build networks"):
        SPACE.build(architecture, NetworkSettings(), num_classes=2, image_shape=(3, 8, 8))


def test_size_grows_with_the_parameters() -> None:
    smallest = SPACE.from_values((1, 3, 1, 0) * 7)
    assert SPACE.size(smallest) == sum(width * (2 * width + 9) for width in (16, 24, 40, 80, 112, 192, 320))
    for index, larger in enumerate((6, 5, 3)):
        block = [1, 3, 1, 0]
        block[index] = larger
        assert SPACE.size(SPACE.from_values((*block, *(1, 3, 1, 0) * 6))) > SPACE.size(smallest)
