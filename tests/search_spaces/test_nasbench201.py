"""The search space of NAS-Bench-201: strings, keys, and networks, for any order of operators."""

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
from nases_env.evaluation import OperatorShareEvaluator, Status, TrainingEvaluator, resolve_preset
from nases_env.networks import NetworkSettings, count_parameters
from nases_env.networks.nasbench201 import OPERATORS, NasBench201Cell
from nases_env.search_spaces import get_search_space
from nases_env.search_spaces.graph import Branch
from nases_env.search_spaces.nasbench201 import NasBench201

SPACE = NasBench201()
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
CHOSEN = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "none")

spaces = st.permutations(OPERATORS).map(lambda operators: NasBench201(tuple(operators)))
decisions = st.tuples(*[st.integers(0, 4)] * 6)
cells = st.tuples(*[st.sampled_from(OPERATORS)] * 6)


def string(cell: tuple[str, ...]) -> str:
    a, b, c, d, e, f = cell
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def test_six_decisions_of_five_operators_in_two_time_steps() -> None:
    assert SPACE.decision_sizes == (5, 5, 5, 5, 5, 5)
    assert SPACE.num_decisions == 6
    assert SPACE.decisions_per_timestep == 3
    assert SPACE.operators == OPERATORS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert get_search_space("nasbench201") == SPACE


def test_string_of_known_decisions() -> None:
    assert SPACE.to_string(SPACE.architecture([3, 3, 4, 1, 3, 1])) == BEST
    assert SPACE.cell(SPACE.from_string(string(CHOSEN))) == CHOSEN
    backwards = NasBench201(OPERATORS[::-1])
    assert backwards.from_string(BEST).decisions == (1, 1, 0, 3, 1, 3)


@given(spaces, cells)
def test_strings_genotypes_and_json_round_trip(space: NasBench201, cell: tuple[str, ...]) -> None:
    architecture = space.from_string(string(cell))
    assert space.cell(architecture) == cell
    assert space.to_string(architecture) == string(cell)
    assert space.genotype(architecture) == {"cell": string(cell)}
    assert space.from_genotype(json.loads(json.dumps(space.genotype(architecture)))) == architecture
    assert space.from_json(space.to_json(architecture)) == architecture


@given(spaces, decisions)
def test_decode_inverts_encode(space: NasBench201, choices: tuple[int, ...]) -> None:
    architecture = space.architecture(choices)
    vector = space.encode(architecture)
    np.testing.assert_allclose(vector, (np.array(choices) + 0.5) / 5, rtol=1e-6)
    assert space.decode(vector) == architecture
    assert space.from_string(space.to_string(architecture)) == architecture


@given(spaces, spaces, cells)
def test_key_does_not_depend_on_the_order_of_operators(one: NasBench201, other: NasBench201, cell: tuple[str, ...]) -> None:
    here, there = one.from_string(string(cell)), other.from_string(string(cell))
    assert here.key == there.key
    assert (here.decisions == there.decisions) == all(
        one.operators.index(name) == other.operators.index(name) for name in cell
    )


@pytest.mark.parametrize("space", [SPACE, NasBench201(OPERATORS[::-1])])
def test_all_cells_have_distinct_keys(space: NasBench201) -> None:
    assert len({space.architecture(choices).key for choices in itertools.product(range(5), repeat=6)}) == 15_625


@given(spaces, decisions, st.integers(0, 2**32 - 1))
def test_mutation_changes_one_edge(space: NasBench201, choices: tuple[int, ...], seed: int) -> None:
    architecture = space.architecture(choices)
    mutant = space.mutate(architecture, np.random.default_rng(seed))
    assert sum(a != b for a, b in zip(space.cell(mutant), space.cell(architecture), strict=True)) == 1


@given(spaces, decisions)
def test_parameters_are_counted_without_building_the_network(space: NasBench201, choices: tuple[int, ...]) -> None:
    architecture, settings = space.architecture(choices), NetworkSettings(cells_per_stage=1, num_filters=4)
    counted = space.count_parameters(architecture, settings, num_classes=7, image_shape=(1, 8, 8))
    network = space.build(architecture, settings, num_classes=7, image_shape=(1, 8, 8))
    assert counted == count_parameters(network)


def test_search_spaces_are_picklable_and_compared_by_value() -> None:
    permuted = NasBench201(OPERATORS[::-1])
    copy = pickle.loads(pickle.dumps(permuted))
    assert copy == permuted
    assert hash(copy) == hash(permuted)
    assert copy.from_string(BEST) == permuted.from_string(BEST)
    assert permuted != SPACE


@pytest.mark.parametrize(
    "operators", [OPERATORS[:4], (*OPERATORS[:4], "none"), (*OPERATORS, "none"), list(OPERATORS), "none", (1, 2, 3, 4, 5)]
)
def test_invalid_operators_are_a_one_line_error(operators: Any) -> None:
    with pytest.raises(InputError, match=r"operators of nasbench201 are a tuple of none, .* in any order, not") as caught:
        NasBench201(operators)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("no genotype", "dict with the single key cell"),
        ({}, "dict with the single key cell"),
        ({"cell": BEST, "more": 1}, "dict with the single key cell"),
        ({"cell": 7}, "is written .*not 7"),
        ({"cell": ""}, "is written .*not ''"),
        ({"cell": BEST[:-1]}, r"is written \|operator~0\|\+\|operator~0\|operator~1\|\+"),
        ({"cell": BEST + "\n"}, "is written"),
        ({"cell": BEST.replace("~2", "~1")}, "is written"),
        ({"cell": BEST.replace("avg_pool_3x3", "avg_pool_3x4")}, r"'avg_pool_3x4' in .*\(did you mean 'avg_pool_3x3'\?\)"),
        ({"cell": BEST.replace("avg_pool_3x3", "")}, "unknown operator ''"),
    ],
)
def test_invalid_genotype_is_a_one_line_error(genotype: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SPACE.from_genotype(genotype)
    assert "\n" not in str(caught.value)


@given(spaces)
def test_graph_has_the_six_edges(space: NasBench201) -> None:
    (graph,) = space.cell_graphs(space.from_string(string(CHOSEN)))
    assert graph.inputs == ("input",)
    assert graph.nodes == (
        (Branch("none", 0),),
        (Branch("skip_connect", 0), Branch("nor_conv_1x1", 1)),
        (Branch("nor_conv_3x3", 0), Branch("avg_pool_3x3", 1), Branch("none", 2)),
    )
    assert graph.outputs == (3,)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_share_counts_absent_edges(operator: str) -> None:
    space = NasBench201(OPERATORS[::-1])
    evaluator = OperatorShareEvaluator(space, operator)
    for cell in ((operator,) * 6, ("none",) * 6, CHOSEN):
        share = evaluator.evaluate(space.from_string(string(cell)), seed=0).reward
        assert share == pytest.approx(cell.count(operator) / 6)


@given(spaces, cells)
def test_build_does_not_depend_on_the_order_of_operators(space: NasBench201, cell: tuple[str, ...]) -> None:
    network = space.build(space.from_string(string(cell)), NetworkSettings(2, 3), num_classes=4, image_shape=(1, 8, 8))
    built = [module.cell for module in network.modules() if isinstance(module, NasBench201Cell)]
    assert built == [cell] * 6


def test_cell_can_be_trained() -> None:
    _, smoke = resolve_preset("smoke", {"num_filters": 4, "num_train_images": 512, "num_valid_images": 128})
    evaluator = TrainingEvaluator("nasbench201", "digits", smoke, device="cpu")
    evaluation = evaluator.evaluate(SPACE.from_string(BEST), seed=0)
    assert evaluation.status is Status.OK
    assert len(evaluation.curve) == evaluation.num_epochs == 1
    assert evaluation.num_params > 0
    assert evaluation.num_flops > 0
    assert evaluation.valid_accuracy > 0.2  # chance is 0.1
    permuted = NasBench201(OPERATORS[::-1])
    again = TrainingEvaluator(permuted, "digits", smoke, device="cpu").evaluate(permuted.from_string(BEST), seed=0)
    assert again.curve == evaluation.curve


def test_unsupported_auxiliary_head_is_an_error_before_training() -> None:
    _, smoke = resolve_preset("smoke", {"auxiliary_head": True})
    with pytest.raises(InputError, match="no auxiliary head"):
        TrainingEvaluator("nasbench201", "digits", smoke, device="cpu").evaluate(SPACE.from_string(BEST), seed=0)


def test_size_counts_the_operators_on_paths_from_the_input_to_the_output() -> None:
    assert SPACE.size(SPACE.from_cell(("nor_conv_3x3",) * 6)) == 54
    assert (
        SPACE.size(SPACE.from_string(string(("nor_conv_1x1", "none", "none", "none", "nor_conv_3x3", "nor_conv_3x3")))) == 10
    )
    assert SPACE.size(SPACE.from_string(string(("nor_conv_3x3", "none", "none", "none", "none", "nor_conv_3x3")))) == 0


@given(spaces, cells)
def test_size_does_not_depend_on_the_order_of_the_operators(space: NasBench201, cell: tuple[str, ...]) -> None:
    assert space.size(space.from_cell(cell)) == SPACE.size(SPACE.from_cell(cell))
