"""The micro search space of TransNAS-Bench-101: genotypes, keys, and networks, for any order of operators."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.evaluation import NasBench201Evaluator
from nases_env.networks import NetworkSettings
from nases_env.networks.nasbench201 import NasBench201Cell
from nases_env.search_spaces import get_search_space, importable_name, parse_architecture
from nases_env.search_spaces.graph import Branch
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.search_spaces.transnas_micro import TransNASMicro

SPACE = TransNASMicro()
OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
STRING = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"

spaces = st.permutations(OPERATORS).map(lambda operators: TransNASMicro(tuple(operators)))
decisions = st.tuples(*[st.integers(0, 3)] * 6)
cells = st.tuples(*[st.sampled_from(OPERATORS)] * 6)


def test_six_decisions_of_four_operators_in_two_time_steps() -> None:
    assert SPACE.decision_sizes == (4, 4, 4, 4, 4, 4)
    assert SPACE.decisions_per_timestep == 3
    assert SPACE.operators == OPERATORS
    assert SPACE.zero_operators == {"none"}
    assert SPACE.identity_operators == {"skip_connect"}
    assert get_search_space("transnas_micro") == SPACE
    assert importable_name(SPACE) == "transnas_micro"


def test_string_of_known_decisions() -> None:
    assert SPACE.to_string(SPACE.architecture([3, 1, 2, 0, 1, 3])) == STRING
    assert TransNASMicro(OPERATORS[::-1]).from_string(STRING).decisions == (0, 2, 1, 3, 2, 0)


@given(spaces, cells)
def test_genotypes_and_json_round_trip(space: TransNASMicro, cell: tuple[str, ...]) -> None:
    architecture = space.from_cell(cell)
    assert space.cell(architecture) == cell
    assert space.from_string(space.to_string(architecture)) == architecture
    assert space.from_genotype(json.loads(json.dumps(space.genotype(architecture)))) == architecture
    assert space.from_json(space.to_json(architecture)) == architecture
    named, parsed = parse_architecture(space.to_json(architecture))
    assert (named, parsed.key) == (SPACE, architecture.key)


@given(spaces, decisions)
def test_decode_inverts_encode(space: TransNASMicro, choices: tuple[int, ...]) -> None:
    architecture = space.architecture(choices)
    vector = space.encode(architecture)
    np.testing.assert_allclose(vector, (np.array(choices) + 0.5) / 4, rtol=1e-6)
    assert space.decode(vector) == architecture


@given(spaces, spaces, cells)
def test_key_does_not_depend_on_the_order_of_operators(
    one: TransNASMicro, other: TransNASMicro, cell: tuple[str, ...]
) -> None:
    assert one.from_cell(cell).key == other.from_cell(cell).key
    assert SPACE.architecture(one.canonicalize(one.from_cell(cell).decisions)).key == one.from_cell(cell).key


@pytest.mark.parametrize("space", [SPACE, TransNASMicro(OPERATORS[::-1])])
def test_all_cells_have_distinct_keys(space: TransNASMicro) -> None:
    assert len({space.architecture(choices).key for choices in itertools.product(range(4), repeat=6)}) == 4096


@given(spaces, decisions, st.integers(0, 2**32 - 1))
def test_mutation_changes_one_edge(space: TransNASMicro, choices: tuple[int, ...], seed: int) -> None:
    architecture = space.architecture(choices)
    mutant = space.mutate(architecture, np.random.default_rng(seed))
    assert sum(a != b for a, b in zip(space.cell(mutant), space.cell(architecture), strict=True)) == 1


def test_search_spaces_are_picklable_and_differ_from_nasbench201() -> None:
    permuted = TransNASMicro(OPERATORS[::-1])
    copy = pickle.loads(pickle.dumps(permuted))
    assert copy == permuted
    assert hash(copy) == hash(permuted)
    assert copy.from_string(STRING) == permuted.from_string(STRING)
    assert SPACE.from_string(STRING).key != NasBench201().from_string(STRING).key
    with pytest.raises(InputError, match="requires the search space nasbench201, not transnas_micro"):
        NasBench201Evaluator(SPACE)


def test_order_of_operators_depends_on_the_seed() -> None:
    assert TransNASMicro.order_operators(None) == OPERATORS
    orders = [TransNASMicro.order_operators(seed) for seed in range(200)]
    assert orders[7] == TransNASMicro.order_operators(7)
    assert set(orders) == set(itertools.permutations(OPERATORS))


@pytest.mark.parametrize("operators", [OPERATORS[:3], (*OPERATORS[:3], "avg_pool_3x3"), list(OPERATORS), (1, 2, 3, 4)])
def test_invalid_operators_are_a_one_line_error(operators: Any) -> None:
    with pytest.raises(InputError, match=r"operators of transnas_micro are a tuple of none, .* in any order, not") as caught:
        TransNASMicro(operators)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("no genotype", "a genotype of transnas_micro must be a dict with the single key cell"),
        ({"cell": STRING, "more": 1}, "with the single key cell"),
        ({"cell": STRING[:-1]}, r"a cell of transnas_micro is written \|operator~0\|\+\|operator~0\|operator~1\|\+"),
        ({"cell": STRING.replace("none", "avg_pool_3x3")}, "unknown operator 'avg_pool_3x3' in .*; known: none, skip_conn"),
        ({"cell": STRING.replace("none", "nonne")}, r"\(did you mean 'none'\?\)"),
    ],
)
def test_invalid_genotype_is_a_one_line_error(genotype: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SPACE.from_genotype(genotype)
    assert "\n" not in str(caught.value)


@given(spaces)
def test_graph_has_the_six_edges(space: TransNASMicro) -> None:
    (graph,) = space.cell_graphs(space.from_string(STRING))
    assert graph.inputs == ("input",)
    assert graph.nodes == (
        (Branch("nor_conv_3x3", 0),),
        (Branch("skip_connect", 0), Branch("nor_conv_1x1", 1)),
        (Branch("none", 0), Branch("skip_connect", 1), Branch("nor_conv_3x3", 2)),
    )
    assert graph.outputs == (3,)


@given(spaces, cells)
def test_network_is_that_of_nasbench201_with_the_cell(space: TransNASMicro, cell: tuple[str, ...]) -> None:
    network = space.build(space.from_cell(cell), NetworkSettings(2, 3), num_classes=4, image_shape=(1, 8, 8))
    assert [module.cell for module in network.modules() if isinstance(module, NasBench201Cell)] == [cell] * 6
