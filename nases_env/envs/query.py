"""The environment for search spaces that provide accuracies without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nases_env.envs.base import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import QueryEvaluator
from nases_env.search_spaces import SearchSpace


class QueryEnv(NASESEnv):
    """Neural architecture search in a search space that provides accuracies.

    ## Description

    ``NASESEnv`` for custom search spaces that provide accuracies directly, from a table, a formula or a model: the reward of
    a child is the value of the search space's ``query`` method. The id is ``NASES-Query-v0``;
    ``examples/custom_search_space.py`` shows how to write a search space.

    Spaces, episodes and information are the same as for ``NASESEnv``. The training accuracy equals the validation accuracy.
    Nothing is built or trained, so ``num_params`` and ``num_flops`` are 0 and the seed has no effect.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-Query-v0", search_space="my_space:MySpace", embedding="my_space.safetensors")
    ```

    Args:
        search_space: a search space that overrides ``query``, or its name as MODULE:CLASS. Required.
        embedding: file with its pretrained embedding, as written by ``nases pretrain --search-space MODULE:CLASS``.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.

    ## Version History

    - v0: initial version.
    """

    def __init__(
        self,
        *,
        search_space: str | SearchSpace | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        if search_space is None:
            raise InputError("NASES-Query-v0 needs a search space; pass search_space as MODULE:CLASS")
        super().__init__(
            QueryEvaluator(search_space),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
