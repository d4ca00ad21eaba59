"""The environment with a synthetic reward: no data, no training, a known optimum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nases_env.envs.arguments import to_seed
from nases_env.envs.base import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluator, OperatorShareEvaluator, RandomLandscapeEvaluator
from nases_env.search_spaces import SearchSpace, get_search_space

DEFAULT_OPERATOR = "sep_conv_3x3"


class SyntheticEnv(NASESEnv):
    """Neural architecture search with a synthetic reward.

    ## Description

    ``NASESEnv`` with a synthetic reward: a sanity check for agents that takes seconds and says nothing about images. By
    default the reward is the fraction of the network's branches that apply one operator; its maximum is 1. With
    ``landscape_seed`` it is a random function with interactions between decisions, see
    ``nases_env.evaluation.RandomLandscapeEvaluator``.

    The id is ``NASES-Synthetic-v0``. Spaces, episodes and information are the same as for ``NASESEnv``. Nothing is trained,
    so ``num_params`` and ``num_flops`` are 0.

    Args:
        operator: the rewarded operator; None is ``sep_conv_3x3``. Cannot be combined with ``landscape_seed``.
        landscape_seed: seed of a random reward function with interactions between decisions.
        search_space: name of a built-in search space, MODULE:CLASS of a custom one, or a search space; it must define
            ``cell_graphs``.
        embedding: file with a pretrained embedding; None uses the built-in one.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.

    ## Version History

    - v0: initial version.
    """

    def __init__(
        self,
        *,
        operator: str | None = None,
        landscape_seed: int | None = None,
        search_space: str | SearchSpace = "enas_micro",
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        seed = to_seed(landscape_seed)
        if operator is not None and seed is not None:
            raise InputError("pass either operator or landscape_seed, not both")
        space = get_search_space(search_space)
        evaluator: Evaluator
        if seed is not None:
            evaluator = RandomLandscapeEvaluator(search_space, seed)
        elif operator is None and DEFAULT_OPERATOR not in space.operators:
            known = ", ".join(space.operators) or "it has none"
            raise InputError(
                f"{space.name} has no operator {DEFAULT_OPERATOR!r}; pass landscape_seed, or one of its operators: {known}"
            )
        else:
            evaluator = OperatorShareEvaluator(search_space, DEFAULT_OPERATOR if operator is None else operator)
        super().__init__(
            evaluator,
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
