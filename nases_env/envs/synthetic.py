"""The environment with a synthetic reward: no data, no training, a known optimum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nases_env.envs.base import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import OperatorShareEvaluator, RandomLandscapeEvaluator
from nases_env.search_spaces import SearchSpace


class SyntheticEnv(NASESEnv):
    """
    ## Description

    `NASESEnv` with a reward that costs nothing. It is there to see within seconds whether an agent learns; it says nothing
    about images. By default the reward is the share of the network's branches that apply one operator, whose optimum is 1.
    With `landscape_seed` it is a random function with interactions between decisions: see
    `nases_env.evaluation.RandomLandscapeEvaluator`.

    The id is `NASES-Synthetic-v0`. Spaces, episodes and information are those of `NASESEnv`; nothing is trained, so
    parameters and operations are 0.

    Args:
        operator: the operator that is rewarded; None is `sep_conv_3x3`. It does not go with `landscape_seed`.
        landscape_seed: the seed of a random function with interactions between decisions.
        search_space: a name that ships, one of your own as MODULE:CLASS, or a search space; it must have graphs.
        embedding: file with a pretrained embedding; None takes the one that ships.
        execution: where and how children are evaluated; see `NASESEnv`.
        render_mode: "rgb_array" or "ansi"; see `NASESEnv`.

    ## Version history

    - v0: the first version.
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
    ) -> None:
        if operator is not None and landscape_seed is not None:
            raise InputError("give operator or landscape_seed, not both: they are two rewards")
        evaluator = (
            OperatorShareEvaluator(search_space, operator or "sep_conv_3x3")
            if landscape_seed is None
            else RandomLandscapeEvaluator(search_space, landscape_seed)
        )
        super().__init__(evaluator, embedding=embedding, execution=execution, render_mode=render_mode)
