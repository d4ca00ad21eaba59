"""The environment on the tabular benchmark TransNAS-Bench-101, micro."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nases_env.envs.arguments import to_seed
from nases_env.envs.base import NASESEnv
from nases_env.evaluation import TransNASEvaluator
from nases_env.search_spaces.transnas_micro import TransNASMicro


class TransNASMicroEnv(NASESEnv):
    """Neural architecture search on the tabular benchmark TransNAS-Bench-101, micro, in one of seven tasks.

    ## Description

    ``NASESEnv`` on the micro search space of the tabular benchmark TransNAS-Bench-101 (Duan et al., 2021). All 4,096 cells
    of the search space were trained in seven tasks on images of buildings; the result of a child is read from a table. A
    search takes seconds and the best cell is known, so agents can be compared over hundreds of seeds, and over tasks whose
    best cells differ. The id is ``NASES-TransNASMicro-v0``.

    ## Spaces

    The action space is that of ``NASESEnv``. The observation space is ``Box(0, 1, (6,), float32)``: one of four operators
    (``none``, ``skip_connect``, ``nor_conv_1x1``, ``nor_conv_3x3``) for each of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1 and
    3<-2 of the cell; node 0 is the input and node 3 the output. A genotype is ``{"cell": string}`` in the notation of
    NAS-Bench-201, such as
    ``|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|skip_connect~1|nor_conv_3x3~2|``.

    ## Rewards

    The validation metric of the task, mapped to [0, 1]; independent of the seed. The status is always ``ok``.

    - ``class_object``, ``class_scene`` (classification), ``jigsaw`` and ``segmentsemantic`` (segmentation): the percentage,
      divided by 100.
    - ``autoencoder`` and ``normal`` (surface normals): the structural similarity (SSIM).
    - ``room_layout``: ``1 / (1 + loss)``.

    Rewards of different tasks are not comparable. Summaries and reports call them accuracy (a percentage), SSIM and
    ``1 / (1 + loss)``.

    ## Information

    That of ``NASESEnv``, and the string ``task``. ``valid_accuracy`` is the reward. Nothing is built or trained, so the
    training accuracy, ``num_params`` and ``num_flops`` are 0. There are no test accuracies.

    ## Table

    A CSV file with one row per cell. The column ``arch`` contains a tuple of operators from 0 (``none``) to 3
    (``nor_conv_3x3``) in the order of the edges, such as ``"(3, 1, 3, 1, 1, 3)"``. The other columns have the names of the
    tasks, in percent, as SSIM, and as negative loss (``room_layout``). Columns of other tasks may be missing, and further
    columns are ignored. ``reset`` raises ``InputError`` if the file is missing, truncated or not valid, or lacks the task.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-TransNASMicro-v0", task="jigsaw", table="transnasbench101-micro.csv")
    ```

    Args:
        task: ``class_object``, ``class_scene``, ``jigsaw``, ``autoencoder``, ``normal``, ``segmentsemantic`` or
            ``room_layout``.
        table: path of the table; None uses the environment variable ``NASES_TRANSNAS_TABLE``, otherwise the file
            ``transnasbench101-micro.csv`` in the directory given by ``NASES_DATA_DIR``.
        operator_permutation_seed: seed of a random numbering of the operators. None keeps their natural order, in which the
            last choices are the convolutions. Use a different seed for each run when you compare agents. Keys and genotypes
            do not depend on it.
        embedding: file with a pretrained embedding, as written by ``nases pretrain``; None uses the built-in one.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.

    ## Version History

    - v0: initial version.
    """

    evaluator: TransNASEvaluator

    def __init__(
        self,
        *,
        task: str = "class_object",
        table: str | Path | None = None,
        operator_permutation_seed: int | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        space = TransNASMicro(TransNASMicro.order_operators(to_seed(operator_permutation_seed)))
        super().__init__(
            TransNASEvaluator(space, table, task),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
