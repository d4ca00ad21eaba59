"""The search space of ENAS micro with the size of the network: encoding, canonical keys, genotypes, sizes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings, count_parameters
from nases_env.search_spaces import Architecture, EnasMicro, EnasMicroSized, get_search_space
from nases_env.search_spaces.enas_micro_sized import NUM_SIZES, SIZE_SETTINGS
from tests.search_spaces.test_enas_micro import reorder_architecture

SPACE = EnasMicroSized()
CELLS = EnasMicro()
TINY = NetworkSettings(cells_per_stage=1, num_filters=2)
ENAS_SIZES = (0, 2, 1, 1, 0, 0, 0, 0)
"""The decisions for the size of the networks of ``enas_micro``."""

sizes = st.tuples(*(st.integers(0, size - 1) for size in SPACE.decision_sizes[:NUM_SIZES]))
architectures = st.tuples(*(st.integers(0, size - 1) for size in SPACE.decision_sizes)).map(SPACE.architecture)
seeds = st.integers(0, 2**32 - 1)

NO_CONVOLUTION = CELLS.architecture([0, 0, 1, 3] * 10)


def with_cells(sizes: tuple[int, ...], cells: Architecture) -> Architecture:
    return SPACE.architecture([*sizes, *cells.decisions])


def reorder(architecture: Architecture, rng: np.random.Generator) -> Architecture:
    cells = CELLS.architecture(architecture.decisions[NUM_SIZES:])
    return with_cells(architecture.decisions[:NUM_SIZES], reorder_architecture(cells, rng))


def test_decisions_are_eight_sizes_and_those_of_enas_micro() -> None:
    assert SPACE.num_decisions == 48
    assert SPACE.decision_sizes == (2, 5, 3, 3, 3, 3, 3, 2, *CELLS.decision_sizes)


def test_space_is_registered() -> None:
    assert isinstance(get_search_space("enas_micro_sized"), EnasMicroSized)
    assert type(get_search_space("enas_micro")) is EnasMicro


@given(architectures)
def test_decode_inverts_encode(architecture: Architecture) -> None:
    assert SPACE.decode(SPACE.encode(architecture)) == architecture


@given(architectures)
def test_json_round_trip(architecture: Architecture) -> None:
    assert SPACE.from_json(SPACE.to_json(architecture)) == architecture
    assert SPACE.from_genotype(json.loads(json.dumps(SPACE.genotype(architecture)))) == architecture


def test_genotype_has_the_values_of_the_sizes() -> None:
    architecture = with_cells((1, 0, 0, 2, 2, 0, 1, 1), NO_CONVOLUTION)
    genotype = SPACE.genotype(architecture)
    assert {name: genotype[name] for name in ("normal", "reduction")} == CELLS.genotype(NO_CONVOLUTION)
    others = {"stem_stride": 2, "width": 0.25, "growth": [1, 3], "depth": [3, 1, 2], "expansion": 2}
    assert {name: genotype[name] for name in others} == others
    assert len(genotype) == 7


@given(architectures, seeds)
def test_key_does_not_depend_on_node_and_branch_order(architecture: Architecture, seed: int) -> None:
    assert reorder(architecture, np.random.default_rng(seed)).key == architecture.key


@given(architectures)
def test_canonicalize_is_idempotent_and_keeps_the_key(architecture: Architecture) -> None:
    canonical = SPACE.architecture(SPACE.canonicalize(architecture.decisions))
    assert canonical.key == architecture.key
    assert SPACE.canonicalize(canonical.decisions) == canonical.decisions


@given(sizes, sizes, architectures)
def test_different_sizes_are_different_keys(one: tuple[int, ...], other: tuple[int, ...], cells: Architecture) -> None:
    cells = CELLS.architecture((0, 1, *cells.decisions[NUM_SIZES + 2 :]))  # with a separable convolution
    assert (with_cells(one, cells).key == with_cells(other, cells).key) == (one == other)


def test_expansion_without_a_separable_convolution_does_not_change_the_key_or_the_network() -> None:
    expanded, plain = (with_cells((0, 1, 0, 0, 0, 0, 0, expansion), NO_CONVOLUTION) for expansion in (1, 0))
    assert expanded.key == plain.key
    torch.manual_seed(0)
    state = SPACE.build(expanded, TINY, num_classes=3, image_shape=(1, 8, 8)).state_dict()
    torch.manual_seed(0)
    expected = SPACE.build(plain, TINY, num_classes=3, image_shape=(1, 8, 8)).state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize("network", [TINY, NetworkSettings(2, 3, 0.2, auxiliary_head=True)])
def test_networks_of_enas_micro_are_in_the_space(network: NetworkSettings) -> None:
    cells = CELLS.sample(np.random.default_rng(0))
    shape: Any = {"num_classes": 4, "image_shape": (3, 9, 9)}
    torch.manual_seed(0)
    expected = CELLS.build(cells, network, **shape)
    torch.manual_seed(0)
    built = SPACE.build(with_cells(ENAS_SIZES, cells), network, **shape)
    assert list(built.state_dict()) == list(expected.state_dict())
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(built.eval()(images), expected.eval()(images), rtol=0, atol=0)


def test_networks_of_equal_keys_are_built_with_equal_weights() -> None:
    rng = np.random.default_rng(0)
    architecture = SPACE.sample(rng)
    logits = []
    for same in (architecture, reorder(architecture, rng)):
        torch.manual_seed(0)
        logits.append(SPACE.build(same, TINY, num_classes=3, image_shape=(1, 8, 8))(torch.ones(2, 1, 8, 8)))
    torch.testing.assert_close(*logits, rtol=0, atol=0)


@given(architectures, st.integers(1, 2), st.integers(1, 4), st.booleans())
@settings(max_examples=20)
def test_parameters_are_known_without_building(
    architecture: Architecture, cells_per_stage: int, num_filters: int, auxiliary_head: bool
) -> None:
    network = NetworkSettings(cells_per_stage, num_filters, auxiliary_head=auxiliary_head)
    shape: Any = {"num_classes": 5, "image_shape": (1, 8, 8)}
    built = SPACE.build(architecture, network, **shape)
    assert SPACE.count_parameters(architecture, network, **shape) == count_parameters(built)


@pytest.mark.parametrize("seed", range(5))
def test_size_is_the_number_of_parameters_for_color_images_and_ten_classes(seed: int) -> None:
    architecture = SPACE.sample(np.random.default_rng(seed))
    with torch.device("meta"):
        built = SPACE.build(architecture, SIZE_SETTINGS, num_classes=10, image_shape=(3, 32, 32))
    assert SPACE.size(architecture) == count_parameters(built)


def test_random_networks_have_the_documented_sizes() -> None:
    rng = np.random.default_rng(0)
    counts = [SPACE.size(SPACE.sample(rng)) for _ in range(1000)]
    quantiles = np.quantile(counts, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    np.testing.assert_allclose(quantiles, [1_566, 5_700, 20_000, 83_000, 370_000, 2.0e6, 9.1e6], rtol=0.02)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (5, 7)])
@pytest.mark.parametrize("stem_stride", [0, 1])
def test_small_images_work_with_every_stem_stride(size: tuple[int, int], stem_stride: int) -> None:
    architecture = SPACE.sample(np.random.default_rng(1))
    architecture = SPACE.architecture([stem_stride, *architecture.decisions[1:]])
    network = SPACE.build(architecture, TINY, num_classes=3, image_shape=(1, *size))
    logits = network(torch.rand(4, 1, *size))
    logits.sum().backward()
    assert logits.shape == (4, 3)
    assert all(parameter.grad is not None for parameter in network.parameters())


@given(architectures, seeds)
def test_mutation_changes_one_decision_and_the_key(architecture: Architecture, seed: int) -> None:
    mutant = SPACE.mutate(architecture, np.random.default_rng(seed))
    assert mutant.key != architecture.key
    assert sum(a != b for a, b in zip(mutant.decisions, architecture.decisions, strict=True)) == 1


def test_mutation_reaches_every_size_but_not_an_expansion_without_effect() -> None:
    architecture, rng = with_cells(ENAS_SIZES, NO_CONVOLUTION), np.random.default_rng(0)
    mutants = [SPACE.mutate(architecture, rng) for _ in range(1000)]
    changed = {
        index
        for mutant in mutants
        for index, (one, other) in enumerate(zip(mutant.decisions, architecture.decisions, strict=True))
        if one != other
    }
    assert changed & set(range(NUM_SIZES)) == set(range(NUM_SIZES - 1))


def test_cell_graphs_are_those_of_enas_micro() -> None:
    cells = CELLS.sample(np.random.default_rng(3))
    assert SPACE.cell_graphs(with_cells(ENAS_SIZES, cells)) == CELLS.cell_graphs(cells)


def test_summary_names_every_size() -> None:
    assert SPACE.summary(with_cells((1, 0, 0, 2, 2, 0, 1, 1), NO_CONVOLUTION)) == (
        "stem stride 2, width 0.25, growth 1 3, depth 3 1 2, expansion 2"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 3}, "the width of a genotype is 3; it must be one of 0.25, 0.5, 1, 2, 4"),
        ({"growth": None}, "the growth of a genotype is None; it must be a list of 2 numbers"),
        ({"normal": 3}, "the normal cell of a genotype is a list of 5 nodes"),
        ({"third": 3}, "a genotype of enas_micro_sized must be a dict with stem_stride, width, growth, depth, expansion, "),
    ],
)
def test_invalid_genotype_is_a_one_line_error(changes: dict[str, Any], message: str) -> None:
    genotype = SPACE.genotype(with_cells(ENAS_SIZES, NO_CONVOLUTION))
    with pytest.raises(InputError, match=message) as caught:
        SPACE.from_genotype({**genotype, **changes})
    assert "\n" not in str(caught.value)


def test_genotype_of_enas_micro_is_refused() -> None:
    with pytest.raises(InputError, match="belongs to the search space 'enas_micro', not 'enas_micro_sized'"):
        SPACE.from_json(CELLS.to_json(NO_CONVOLUTION))
