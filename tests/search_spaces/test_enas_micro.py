"""The search space of ENAS micro: encoding, canonical keys, genotypes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nases_env.errors import InputError
from nases_env.networks import OPERATORS, EnasMicroNetwork, NetworkSettings, count_parameters
from nases_env.networks.enas_micro import Cell, MicroCell, Node
from nases_env.networks.genotype import canonical_cell
from nases_env.search_spaces import Architecture, EnasMicro, get_search_space

SPACE = EnasMicro()
TINY = NetworkSettings(cells_per_stage=1, num_filters=2)

architectures = st.tuples(*(st.integers(0, size - 1) for size in SPACE.decision_sizes)).map(SPACE.architecture)
seeds = st.integers(0, 2**32 - 1)


def reorder_cell(cell: Cell, rng: np.random.Generator) -> tuple[Cell, dict[int, int], list[bool]]:
    """Randomly reorder the nodes of a cell, keeping inputs before the nodes that read them, and swap branches.

    Returns:
        The reordered cell, a map from old to new value indices, and whether each new node has swapped branches.
    """
    labels = {0: 0, 1: 1}
    nodes: list[Node] = []
    swapped: list[bool] = []
    while len(nodes) < len(cell):
        ready = [i for i, (a, _, b, _) in enumerate(cell) if i + 2 not in labels and {a, b} <= labels.keys()]
        index = int(rng.choice(ready))
        a, op_a, b, op_b = cell[index]
        labels[index + 2] = len(labels)
        swap = bool(rng.integers(2))
        nodes.append((labels[b], op_b, labels[a], op_a) if swap else (labels[a], op_a, labels[b], op_b))
        swapped.append(swap)
    return tuple(nodes), labels, swapped


def reorder_architecture(architecture: Architecture, rng: np.random.Generator) -> Architecture:
    cells = [reorder_cell(cell, rng)[0] for cell in SPACE.cells(architecture)]
    return SPACE.architecture([number for cell in cells for node in cell for number in node])


def test_decisions_are_inputs_and_operators_of_two_cells_of_five_nodes() -> None:
    assert SPACE.num_decisions == 40
    assert SPACE.decision_sizes == (2, 5, 2, 5, 3, 5, 3, 5, 4, 5, 4, 5, 5, 5, 5, 5, 6, 5, 6, 5) * 2


@given(architectures)
def test_decode_inverts_encode(architecture: Architecture) -> None:
    vector = SPACE.encode(architecture)
    assert vector.shape == (40,)
    assert vector.dtype == np.float32
    assert (vector >= 0).all()
    assert (vector < 1).all()
    assert SPACE.decode(vector) == architecture


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=40, max_size=40))
def test_decode_accepts_any_finite_vector(numbers: list[float]) -> None:
    architecture = SPACE.decode(np.array(numbers))
    expected = [
        min(int(np.floor(min(max(x, 0.0), 1.0) * k)), k - 1) for x, k in zip(numbers, SPACE.decision_sizes, strict=True)
    ]
    assert list(architecture.decisions) == expected


@pytest.mark.parametrize("vector", [np.zeros(39), np.zeros((1, 40)), np.full(40, np.nan), np.full(40, np.inf)])
def test_decode_rejects_wrong_shapes_and_non_finite_numbers(vector: np.ndarray) -> None:
    with pytest.raises(InputError, match="decodes"):
        SPACE.decode(vector)


@given(architectures, seeds)
def test_key_does_not_depend_on_node_and_branch_order(architecture: Architecture, seed: int) -> None:
    assert reorder_architecture(architecture, np.random.default_rng(seed)).key == architecture.key


@given(architectures)
def test_canonicalize_is_idempotent_and_keeps_the_key(architecture: Architecture) -> None:
    canonicalize = SPACE.architecture(SPACE.canonicalize(architecture.decisions))
    assert canonicalize.key == architecture.key
    assert SPACE.canonicalize(canonicalize.decisions) == canonicalize.decisions


def reordered(cell: Cell, order: tuple[int, ...]) -> Cell | None:
    """Return the nodes of ``cell`` in ``order`` with sorted branches; None if a node would precede one of its inputs."""
    labels, nodes = {0: 0, 1: 1}, []
    for index in order:
        a, op_a, b, op_b = cell[index]
        if not {a, b} <= labels.keys():
            return None
        one, other = sorted([(labels[a], op_a), (labels[b], op_b)])
        nodes.append((*one, *other))
        labels[index + 2] = len(labels)
    return tuple(nodes)


# Few operators, so that many nodes are equal and the nodes that read them decide their order.
cells_of_few_operators = st.tuples(*(st.tuples(*(st.integers(0, node + 1), st.integers(0, 1)) * 2) for node in range(5)))


@given(cells_of_few_operators)
def test_canonical_cell_is_the_smallest_of_all_orders(cell: Cell) -> None:
    orders = [nodes for order in itertools.permutations(range(5)) if (nodes := reordered(cell, order)) is not None]
    assert canonical_cell(cell) == min(orders)


def test_identical_nodes_are_not_merged() -> None:
    """Identical nodes have different weights, so reading one of them twice differs from reading both."""
    alike = [0, 1, 1, 2] * 2
    one_twice = SPACE.architecture([*alike, 2, 0, 2, 0, *[0, 0, 0, 0] * 2, *[0, 0, 0, 0] * 5])
    both = SPACE.architecture([*alike, 2, 0, 3, 0, *[0, 0, 0, 0] * 2, *[0, 0, 0, 0] * 5])
    assert one_twice.key != both.key


@pytest.mark.parametrize("seed", range(8))
def test_equal_keys_are_equal_networks(seed: int) -> None:
    """Two networks built without canonicalization have equal outputs after the weights are copied."""
    rng = np.random.default_rng(seed)
    architecture = SPACE.sample(rng)
    cells = SPACE.cells(architecture)
    reordered = [reorder_cell(cell, rng) for cell in cells]
    assert [cell for cell, _, _ in reordered] != list(cells)

    torch.manual_seed(seed)
    one = network(*cells)
    other = network(*(cell for cell, _, _ in reordered))
    for module in one.modules():  # otherwise batch norm would be the identity
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    copy_weights(one, other, reordered)
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(other(images), one(images))


def network(normal: Cell, reduction: Cell) -> EnasMicroNetwork:
    """Build the network of the cells without canonicalization."""
    return EnasMicroNetwork(normal, reduction, TINY, num_classes=4, image_shape=(3, 9, 9)).double().eval()


def copy_weights(
    one: EnasMicroNetwork, other: EnasMicroNetwork, reordered: list[tuple[Cell, dict[int, int], list[bool]]]
) -> None:
    reductions = [index for index in range(len(one.cells)) if index in (1, 3)]
    # For each output so far: the channel block of ``one`` at each position of the output of ``other``; None if equal.
    orders: list[list[int] | None] = [None]
    other.stem.load_state_dict(one.stem.state_dict())
    for index, (source, target) in enumerate(zip(one.cells, other.cells, strict=True)):
        assert isinstance(source, MicroCell)
        assert isinstance(target, MicroCell)
        _, labels, swapped = reordered[index in reductions]
        old_value = {new: old for old, new in labels.items()}
        copy_layer(source.preprocess0, target.preprocess0, orders[max(0, index - 1)])
        copy_layer(source.preprocess1, target.preprocess1, orders[index])
        for node in range(len(target.cell)):
            for branch in range(2):
                old = 2 * (old_value[node + 2] - 2) + (branch ^ swapped[node])
                target.operations[2 * node + branch].load_state_dict(source.operations[old].state_dict())
        order = [source.loose_ends.index(old_value[value]) for value in target.loose_ends]
        for place, old in enumerate(order):
            target.reduce_loose_ends[place].load_state_dict(source.reduce_loose_ends[old].state_dict())
        orders.append(order)
    copy_layer(one.classifier, other.classifier, orders[-1])


def copy_layer(source: nn.Module, target: nn.Module, order: list[int] | None) -> None:
    """Copy the weights of a layer, and permute the input channels if it reads a concatenated cell output.

    Args:
        source: layer to copy from.
        target: layer to copy to.
        order: channel block of ``source`` at each position in ``target``; None if the order is equal.
    """
    target.load_state_dict(source.state_dict())
    if order is None:
        return
    layers = [layer for layer in target.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    first = layers[0].weight.shape[1] if layers else 0
    for layer in layers:
        if layer.weight.shape[1] == first and len(order) > 1:
            blocks = layer.weight.detach().chunk(len(order), dim=1)
            layer.weight.data = torch.cat([blocks[old] for old in order], dim=1)


@given(architectures, st.integers(1, 2), st.integers(2, 4), st.booleans())
@settings(max_examples=20)
def test_parameters_are_known_without_building(
    architecture: Architecture, cells_per_stage: int, num_filters: int, auxiliary_head: bool
) -> None:
    network = NetworkSettings(cells_per_stage, num_filters, auxiliary_head=auxiliary_head)
    built = SPACE.build(architecture, network, num_classes=5, image_shape=(1, 8, 8))
    counted = SPACE.count_parameters(architecture, network, num_classes=5, image_shape=(1, 8, 8))
    assert counted == count_parameters(built)


def test_networks_of_equal_keys_are_built_with_equal_weights() -> None:
    rng = np.random.default_rng(0)
    architecture = SPACE.sample(rng)
    logits = []
    for same in (architecture, reorder_architecture(architecture, rng)):
        torch.manual_seed(0)
        logits.append(SPACE.build(same, TINY, num_classes=3, image_shape=(1, 8, 8))(torch.ones(2, 1, 8, 8)))
    torch.testing.assert_close(*logits, rtol=0, atol=0)


@given(architectures)
def test_json_round_trip(architecture: Architecture) -> None:
    assert SPACE.from_json(SPACE.to_json(architecture)) == architecture
    assert SPACE.from_genotype(json.loads(json.dumps(SPACE.genotype(architecture)))) == architecture


def node(*branches: list[object]) -> list[list[object]]:
    return [list(branch) for branch in branches]


GOOD_CELL = [node(["identity", 0], ["identity", 1])] * 5


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("no genotype", "dict with the cells normal and reduction"),
        ({"normal": GOOD_CELL}, "dict with the cells"),
        ({"normal": GOOD_CELL, "reduction": GOOD_CELL, "third": GOOD_CELL}, "dict with the cells"),
        ({"normal": GOOD_CELL, "reduction": GOOD_CELL[:4]}, "reduction cell of a genotype is a list of 5 nodes"),
        ({"normal": [*GOOD_CELL[:4], node(["identity", 0])], "reduction": GOOD_CELL}, "node 4 of the normal cell must be"),
        ({"normal": [*GOOD_CELL[:4], [1, 2]], "reduction": GOOD_CELL}, "branch of node 4"),
        (
            {"normal": [node(["sep_conv_3x4", 0], ["identity", 1]), *GOOD_CELL[1:]], "reduction": GOOD_CELL},
            "did you mean 'sep_conv_3x3'",
        ),
        (
            {"normal": [node(["identity", 2], ["identity", 1]), *GOOD_CELL[1:]], "reduction": GOOD_CELL},
            r"reads input 2; it may read 0\.\.1",
        ),
        (
            {"normal": [node(["identity", True], ["identity", 1]), *GOOD_CELL[1:]], "reduction": GOOD_CELL},
            "reads input True",
        ),
        ({"normal": [node([["identity"], 0], ["identity", 1]), *GOOD_CELL[1:]], "reduction": GOOD_CELL}, "unknown operator"),
    ],
)
def test_invalid_genotype_is_a_one_line_error(genotype: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SPACE.from_genotype(genotype)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"search_space": "other", "normal": [], "reduction": []}'])
def test_invalid_json_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="architecture"):
        SPACE.from_json(text)


@pytest.mark.parametrize("decisions", [[0] * 39, [0] * 41, [-1] + [0] * 39, [2] + [0] * 39])
def test_invalid_decisions_are_input_errors(decisions: list[int]) -> None:
    with pytest.raises(InputError):
        SPACE.architecture(decisions)


def test_samples_are_uniform_in_every_decision() -> None:
    rng = np.random.default_rng(0)
    decisions = np.array([SPACE.sample(rng).decisions for _ in range(4000)])
    for column, size in zip(decisions.T, SPACE.decision_sizes, strict=True):
        shares = np.bincount(column, minlength=size) / len(column)
        assert shares.shape == (size,)
        assert np.abs(shares - 1 / size).max() < 5 * np.sqrt(1 / size / len(column))


@given(architectures, seeds)
def test_mutation_changes_one_decision_and_the_key(architecture: Architecture, seed: int) -> None:
    mutant = SPACE.mutate(architecture, np.random.default_rng(seed))
    assert mutant.key != architecture.key
    assert sum(a != b for a, b in zip(mutant.decisions, architecture.decisions, strict=True)) == 1


def test_graph_has_every_branch_and_the_loose_ends() -> None:
    architecture = SPACE.sample(np.random.default_rng(3))
    for graph, cell in zip(SPACE.cell_graphs(architecture), SPACE.cells(architecture), strict=True):
        assert [[(b.source, b.operator) for b in branches] for branches in graph.nodes] == [
            [(a, OPERATORS[op_a]), (b, OPERATORS[op_b])] for a, op_a, b, op_b in cell
        ]
        read = {source for a, _, b, _ in cell for source in (a, b)}
        assert set(graph.outputs) == set(range(7)) - read


def test_enas_micro_is_registered() -> None:
    assert isinstance(get_search_space("enas_micro"), EnasMicro)
    with pytest.raises(InputError, match=r"unknown search space 'enas'.*enas_micro"):
        get_search_space("enas")
