"""The environment on the tabular benchmark NAS-Bench-201."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nases_env.envs.arguments import to_rungs, to_seed
from nases_env.envs.base import NASESEnv
from nases_env.evaluation import NasBench201Evaluator
from nases_env.search_spaces.nasbench201 import NasBench201


class NasBench201Env(NASESEnv):
    """Neural architecture search on the tabular benchmark NAS-Bench-201.

    ## Description

    ``NASESEnv`` on the tabular benchmark NAS-Bench-201 (Dong and Yang, 2020). All 15,625 cells of the search space were
    trained on CIFAR-10, CIFAR-100 and ImageNet16-120; the accuracy of a child is read from a table for one of these data
    sets. A search takes seconds and the best cell is known, so agents can be compared over hundreds of seeds. The id is
    ``NASES-NASBench201-v0``.

    ## Spaces

    The action space is that of ``NASESEnv``. The observation space is ``Box(0, 1, (6,), float32)``: one of five operators
    (``none``, ``skip_connect``, ``nor_conv_1x1``, ``nor_conv_3x3``, ``avg_pool_3x3``) for each of the edges 1<-0, 2<-0,
    2<-1, 3<-0, 3<-1 and 3<-2 of the cell; node 0 is the input and node 3 the output. A genotype is ``{"cell": string}`` in
    the notation of NAS-Bench-201, such as
    ``|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|``.

    ## Rewards

    The validation accuracy after 12 epochs, in [0, 1], independent of the seed. The status is always ``ok``.

    ## Information

    That of ``NASESEnv``. Nothing is built or trained, so the training accuracy, ``num_params`` and ``num_flops`` are 0. The
    test accuracy after 200 epochs is in no observation, reward, information or ``Evaluation``. To judge a finished search,
    call ``env.unwrapped.evaluator.report_test_accuracy(architecture)``; its maximum over all cells of the table is 0.9437 on
    CIFAR-10.

    ## Table

    A CSV file with the header ``arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,test_accuracy_200_epochs`` and one row
    per cell, accuracies in percent. ``reset`` raises ``InputError`` if the file is missing, truncated or not valid.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-NASBench201-v0", table="nasbench201-cifar10.csv", operator_permutation_seed=0)
    env = gymnasium.make("NASES-NASBench201-v0", dataset="cifar100")  # nasbench201-cifar100.csv in NASES_DATA_DIR
    ```

    Args:
        dataset: the data set of the table, ``cifar10``, ``cifar100``, ``imagenet16-120`` or another name. Results of
            different data sets are kept apart in a store.
        table: path of the table; None uses the file ``nasbench201-<dataset>.csv`` in the directory given by
            ``NASES_DATA_DIR``. For ``cifar10``, the environment variable ``NASES_NASBENCH201_TABLE`` has precedence.
        operator_permutation_seed: seed of a random numbering of the operators. None keeps their natural order, in which the
            middle choices are the convolutions: an agent that merely prefers the middle then scores well. Use a different
            seed for each run when you compare agents. Keys and genotypes do not depend on it.
        embedding: file with a pretrained embedding, as written by ``nases pretrain``; None uses the built-in one.
        rungs: (12, 200): the reward is the validation accuracy after 12 or 200 epochs; see "Rungs" in ``NASESEnv``. The
            table then needs a fifth column ``valid_accuracy_200_epochs``. None: after 12 epochs.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.

    ## Version History

    - v0: initial version.
    """

    evaluator: NasBench201Evaluator

    def __init__(
        self,
        *,
        dataset: str = "cifar10",
        table: str | Path | None = None,
        operator_permutation_seed: int | None = None,
        embedding: str | None = None,
        rungs: Sequence[int] | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        space = NasBench201(NasBench201.order_operators(to_seed(operator_permutation_seed)))
        super().__init__(
            NasBench201Evaluator(space, table, to_rungs(rungs), dataset=dataset),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
