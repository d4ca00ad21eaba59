"""The random landscape depends only on the network, and its decisions interact."""

from __future__ import annotations

import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import OperatorShareEvaluator, RandomLandscapeEvaluator
from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search_spaces import get_search_space
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.embedding.spaces import ListSpace


def rewards(landscape_seed: int, num: int = 300) -> list[float]:
    space, rng = get_search_space("enas_micro"), np.random.default_rng(0)
    evaluator = RandomLandscapeEvaluator("enas_micro", landscape_seed)
    return [evaluator.evaluate(space.sample(rng), 0).reward for _ in range(num)]


def test_scores_of_uniform_architectures_have_about_unit_std() -> None:
    for landscape_seed in range(3):
        scores = 2 * np.log(1 / (1 / np.array(rewards(landscape_seed)) - 1))
        assert 0.7 < scores.std() < 1.5


def test_landscape_depends_on_its_seed() -> None:
    assert rewards(0, 5) == rewards(0, 5) != rewards(1, 5)


def test_equivalent_architectures_have_the_same_reward_for_any_seed() -> None:
    space, evaluator = get_search_space("enas_micro"), RandomLandscapeEvaluator("enas_micro")
    rng = np.random.default_rng(1)
    for _ in range(50):
        architecture = space.sample(rng)
        same = space.architecture(space.canonicalize(architecture.decisions))
        assert evaluator.evaluate(architecture, 0).reward == pytest.approx(evaluator.evaluate(same, 1).reward, abs=1e-12)


def test_order_of_operators_does_not_change_the_reward() -> None:
    natural, reversed_ = NasBench201(), NasBench201(OPERATORS[::-1])
    genotype = natural.genotype(natural.sample(np.random.default_rng(2)))
    first = RandomLandscapeEvaluator(natural).evaluate(natural.from_genotype(genotype), 0)
    second = RandomLandscapeEvaluator(reversed_).evaluate(reversed_.from_genotype(genotype), 0)
    assert first == second


def test_gain_of_a_change_depends_on_other_decisions() -> None:
    """The gain of changing the operator on edge 1<-0 is not constant over 20 choices of the other edges."""
    space, rng = NasBench201(), np.random.default_rng(3)
    evaluator = RandomLandscapeEvaluator(space)
    gains = []
    for _ in range(20):
        rest = rng.integers(5, size=5).tolist()
        before, after = (evaluator.evaluate(space.architecture([first, *rest]), 0).reward for first in (1, 3))
        gains.append(after - before)
    assert np.std(gains) > 0.01


def test_search_space_without_graphs_is_an_input_error() -> None:
    space = ListSpace((2, 3))
    with pytest.raises(InputError, match="has no cell graph with operators"):
        RandomLandscapeEvaluator(space).evaluate(space.architecture([0, 0]), 0)


class Operators(ListSpace):
    operators = ("pool", "conv")


def test_share_of_an_operator_in_a_search_space_without_graphs_is_an_input_error() -> None:
    space = Operators((2, 2))
    with pytest.raises(InputError, match="has no cell graph with operators"):
        OperatorShareEvaluator(space, "conv").evaluate(space.architecture([0, 0]), 0)
