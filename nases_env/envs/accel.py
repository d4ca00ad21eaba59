"""The environment on a surrogate of Accel-NASBench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nases_env.envs.base import NASESEnv
from nases_env.evaluation import AccelEvaluator


class AccelEnv(NASESEnv):
    """Neural architecture search on a surrogate of Accel-NASBench.

    ## Description

    ``NASESEnv`` on the search space of Accel-NASBench (Ahmad et al., 2024): 1.0e11 MnasNet-like networks for ImageNet. The
    table has the results of about 5,000 of them. The reward is predicted for all networks by a surrogate, a regression that
    is fitted to the table. A search takes seconds, in a space that is too large to be enumerated. The id is
    ``NASES-Accel-v0``.

    ## Spaces

    The action space is that of ``NASESEnv``. The observation space is ``Box(0, 1, (28,), float32)``: for each of the seven
    blocks the expansion factor (1, 4 or 6), the kernel size (3 or 5), the number of layers (1, 2 or 3; also 4 in block 5)
    and squeeze-and-excitation (0 or 1). A genotype is ``{"blocks": [block, …]}`` with seven blocks such as
    ``{"expansion": 6, "kernel_size": 3, "num_layers": 2, "squeeze_excitation": 0}``. The networks have no cells; ``render``
    shows the decisions.

    ## Rewards

    The predicted validation accuracy (top-1) on ImageNet, in [0, 1], independent of the seed. It is also predicted for
    networks in the table, so that all rewards are of the same kind. The status is always ``ok``.

    The best network of the space is not known, and there are no test accuracies. Agents are compared by the best reward of a
    search, which is an accuracy predicted by the surrogate.

    ## Information

    That of ``NASESEnv``. Nothing is built or trained. The training accuracy is 0. ``num_params`` and ``num_flops`` (two per
    multiply-add) are predicted, too. They are 0 if the table lacks the columns, or if their mean relative error in a
    cross-validation is above 1%.

    ## Table

    A CSV file with one row per network, and the columns ``block0_e``, ``block0_k``, ``block0_l``, ``block0_se``, …,
    ``block6_se`` (expansion factor, kernel size, number of layers and squeeze-and-excitation of each block), ``val_top1``
    (percent), and optionally ``params`` and ``macs`` (millions). Further columns are ignored. ``reset`` fits the surrogate,
    which takes a few seconds, and raises ``InputError`` if the file is missing, not valid or has fewer than 100 networks.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-Accel-v0", table="accel-nasbench.csv")
    ```

    Args:
        table: path of the table; None uses the environment variable ``NASES_ACCEL_TABLE``, otherwise the file
            ``accel-nasbench.csv`` in the directory given by ``NASES_DATA_DIR``.
        embedding: file with a pretrained embedding, as written by ``nases pretrain``; None uses the built-in one.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.

    ## Version History

    - v0: initial version.
    """

    evaluator: AccelEvaluator

    def __init__(
        self,
        *,
        table: str | Path | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        super().__init__(
            AccelEvaluator(path=table),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
