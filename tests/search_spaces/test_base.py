"""The defaults of a custom search space with a name and decision sizes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import EnasMicro, SearchSpace, search_space_of
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.embedding.spaces import ListSpace


class Plain(SearchSpace):
    name = "plain"
    decision_sizes = (2, 50, 1, 3)


SPACE = Plain()
sizes = st.lists(st.sampled_from([1, 2, 3, 7, 50]), min_size=1, max_size=60).map(tuple)


@given(sizes, st.integers(0, 2**32 - 1))
def test_vector_json_and_genotype_round_trip(sizes: tuple[int, ...], seed: int) -> None:
    space = ListSpace(sizes)
    architecture = space.sample(np.random.default_rng(seed))
    assert space.decode(space.encode(architecture)) == architecture
    assert space.from_json(space.to_json(architecture)) == architecture
    assert space.from_genotype(json.loads(json.dumps(space.genotype(architecture)))) == architecture
    assert architecture.key == "list:" + "-".join(map(str, architecture.decisions))
    assert search_space_of(architecture.key) == "list"


@given(sizes, st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_batch_is_decoded_as_each_of_its_vectors(sizes: tuple[int, ...], num_vectors: int, seed: int) -> None:
    space = ListSpace(sizes)
    vectors = np.random.default_rng(seed).uniform(-0.2, 1.2, (num_vectors, len(sizes))).astype(np.float32)
    assert space.decode_batch(vectors) == [space.decode(vector) for vector in vectors]


@given(sizes, st.integers(0, 2**32 - 1))
def test_mutation_changes_one_decision_or_is_an_error_if_none_can_change(sizes: tuple[int, ...], seed: int) -> None:
    space = ListSpace(sizes)
    rng = np.random.default_rng(seed)
    architecture = space.sample(rng)
    if max(sizes) == 1:
        with pytest.raises(InputError, match="the search space list has no network that differs from list:0"):
            space.mutate(architecture, rng)
    else:
        mutant = space.mutate(architecture, rng)
        assert sum(a != b for a, b in zip(mutant.decisions, architecture.decisions, strict=True)) == 1


def test_mutation_of_an_isolated_architecture_is_a_sample() -> None:
    class Isolated(SearchSpace):
        name = "isolated"
        decision_sizes = (4, 4)

        def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
            return decisions if min(decisions) == 3 else (0, 0)

    space, rng = Isolated(), np.random.default_rng(0)
    assert space.mutate(space.architecture((0, 0)), rng).key == "isolated:3-3"  # no change of one decision gives it
    assert space.mutate(space.architecture((3, 3)), rng).key == "isolated:0-0"


@pytest.mark.parametrize("decisions", [(1.0, 0, 0, 0), ("1", 0, 0, 0), (None, 0, 0, 0)])
def test_decisions_must_be_integers(decisions: tuple[Any, ...]) -> None:
    assert SPACE.architecture((np.int64(1), np.uint8(0), 0, False)).decisions == (1, 0, 0, 0)
    with pytest.raises(InputError, match="the decisions of an architecture of plain must be integers"):
        SPACE.architecture(decisions)


@pytest.mark.parametrize(
    "genotype", [None, {}, {"decisions": 3}, {"decisions": "0000"}, {"decisions": [0, 0, 0, 0], "a": 1}]
)
@pytest.mark.parametrize("choice", [None, True, 1.0, "1"])
def test_invalid_genotype_is_a_one_line_error(genotype: object, choice: object) -> None:
    for wrong in (genotype, {"decisions": [0, 0, 0, choice]}):
        with pytest.raises(InputError, match=r"a genotype of plain must be \{\"decisions\"") as caught:
            SPACE.from_genotype(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decisions", [[0, 0, 0], [0, 50, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 0]])
def test_genotype_out_of_range_is_an_input_error(decisions: list[int]) -> None:
    with pytest.raises(InputError, match="plain"):
        SPACE.from_genotype({"decisions": decisions})


def test_deeply_nested_genotype_is_an_input_error() -> None:
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]
    for space in (SPACE, EnasMicro(), NasBench201()):
        with pytest.raises(InputError, match=rf"a genotype of {space.name} must be .*, not <list>"):
            space.from_genotype(nested)


def test_genotype_of_another_search_space_is_an_input_error() -> None:
    with pytest.raises(InputError, match="belongs to the search space 'other', not 'plain'"):
        SPACE.from_json('{"search_space": "other", "decisions": [0, 0, 0, 0]}')


def test_missing_method_error_names_the_method_to_override() -> None:
    architecture = SPACE.architecture([0, 0, 0, 0])
    with pytest.raises(InputError, match="plain does not build networks; override its build method"):
        SPACE.build(architecture, NetworkSettings(), num_classes=2, image_shape=(1, 8, 8))
    with pytest.raises(InputError, match="plain does not provide accuracies; override its query method"):
        SPACE.query(architecture)
    assert SPACE.cell_graphs(architecture) == ()


@pytest.mark.parametrize(
    ("num_decisions", "decisions_per_timestep"), [(1, 1), (2, 2), (3, 3), (6, 3), (12, 3), (13, 4), (40, 10)]
)
def test_time_step_has_a_quarter_of_the_decisions_but_at_least_three(
    num_decisions: int, decisions_per_timestep: int
) -> None:
    assert ListSpace((2,) * num_decisions).decisions_per_timestep == decisions_per_timestep


def test_search_space_without_decision_sizes_cannot_be_created() -> None:
    class Nameless(SearchSpace):
        name = "nothing"

    with pytest.raises(TypeError, match="decision_sizes"):
        Nameless()  # type: ignore[abstract]
