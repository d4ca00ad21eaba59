"""The base class of environments for custom tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nases_env.envs.base import NASESEnv
from nases_env.evaluation import TaskTableEvaluator


class TableEnv(NASESEnv):
    """Neural architecture search with rewards from a custom table.

    ## Description

    ``NASESEnv`` with the results of all architectures of a search space in a CSV file, such as a tabular benchmark. A
    subclass defines ``evaluator_class``; [Custom search spaces](../../guides/custom_search_space.md#tables) shows an example
    and the form of the file.

    Spaces and episodes are the same as for ``NASESEnv``. Nothing is built or trained, so the training accuracy,
    ``num_params`` and ``num_flops`` are 0, and the seed has no effect. The information also has the string ``task``.

    Args:
        task: the column of the rewards; None is the first of ``evaluator_class.metrics``.
        table: path of the table; None uses the environment variable ``evaluator_class.table_variable``, otherwise the file
            ``evaluator_class.table_name`` in the directory given by ``NASES_DATA_DIR``.
        embedding: file with a pretrained embedding of the search space, as written by ``nases pretrain``.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.
    """

    evaluator_class: ClassVar[type[TaskTableEvaluator]]
    """Reads the table."""

    def __init__(
        self,
        *,
        task: str | None = None,
        table: str | Path | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        evaluator_class = self.evaluator_class
        first_task = next(iter(evaluator_class.metrics))
        super().__init__(
            evaluator_class(evaluator_class.space_class(), table, task=first_task if task is None else task),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
