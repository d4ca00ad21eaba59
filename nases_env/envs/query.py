"""The environment for search spaces that provide accuracies without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nases_env.envs.base import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import QueryEvaluator
from nases_env.search_spaces import SearchSpace


class QueryEnv(NASESEnv):
    """
    ## Description

    `NASESEnv` for a search space of your own that knows its accuracies without training, from a table, a formula or a
    model: the reward of a child is what the space's `query` says of it. The id is `NASES-Query-v0`;
    `examples/custom_search_space.py` shows how a search space is written.

    Spaces, episodes and information are those of `NASESEnv`. The training accuracy is the validation accuracy; nothing is
    built or trained, so parameters and operations are 0, and the seed does not matter.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-Query-v0", search_space="my_space:MySpace", embedding="my_space.safetensors")
    ```

    Args:
        search_space: a search space that overrides `query`, or its name as MODULE:CLASS. It must be given.
        embedding: file with its pretrained embedding, as `nases pretrain --search-space MODULE:CLASS` writes it.
        execution: where and how children are evaluated; see `NASESEnv`.
        render_mode: "rgb_array" or "ansi"; see `NASESEnv`.

    ## Version history

    - v0: the first version.
    """

    def __init__(
        self,
        *,
        search_space: str | SearchSpace | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if search_space is None:
            raise InputError("NASES-Query-v0 has no search space of its own; give search_space as MODULE:CLASS")
        super().__init__(QueryEvaluator(search_space), embedding=embedding, execution=execution, render_mode=render_mode)
