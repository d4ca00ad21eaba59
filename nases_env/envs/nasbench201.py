"""The environment on the tabular benchmark NAS-Bench-201."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nases_env.envs.base import NASESEnv
from nases_env.evaluation import Evaluation, NasBench201Evaluator
from nases_env.networks.nasbench201 import OPERATORS as NASBENCH201_OPERATORS
from nases_env.search_spaces import Architecture
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import numpy_generator


class NasBench201Env(NASESEnv):
    """
    ## Description

    `NASESEnv` on the benchmark NAS-Bench-201 (Dong and Yang, 2020): all 15,625 cells of a search space were trained on
    CIFAR-10, and a child is looked up in the table of their accuracies. A search takes seconds, the best cell is known, and
    agents can be compared over hundreds of seeds. The id is `NASES-NASBench201-v0`.

    ## Spaces

    The action space is that of `NASESEnv`. The observation is `Box(0, 1, (6,), float32)`: one of five operators (`none`,
    `skip_connect`, `nor_conv_1x1`, `nor_conv_3x3`, `avg_pool_3x3`) for each of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1 and
    3<-2 of the cell, where 0 is its input and 3 its output. A genotype is `{"cell": string}` with NAS-Bench-201's string,
    such as `|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|`.

    ## Rewards

    The validation accuracy after 12 epochs, in [0, 1]; the same whatever the seed. The status is always `ok`.

    ## Information

    That of `NASESEnv`, and after a step:

    | key | type | meaning |
    | --- | --- | --- |
    | `test_accuracy_not_for_search` | float | share of the test images classified correctly after 200 epochs |

    It is what a search is judged by when it has ended (the best possible with the table of CIFAR-10 is 0.9437), and must not
    steer it: it is in no observation, reward or `Evaluation`. Nothing is built or trained, so the training accuracy,
    parameters and operations are 0.

    ## The table

    A CSV file with the header `arch,valid_accuracy_12_epochs,test_accuracy_12_epochs,test_accuracy_200_epochs` and a row for
    each cell, accuracies in percent. `reset` raises `InputError` if it is missing, truncated, or not such a table.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-NASBench201-v0", table="nasbench201-cifar10.csv", operator_permutation_seed=0)
    ```

    Args:
        table: the path of the table; None takes the environment variable `NASES_NASBENCH201_TABLE`, else the file
            `nasbench201-cifar10.csv` in the folder that `NASES_DATA_DIR` names.
        operator_permutation_seed: numbers the operators in a random order. None keeps their natural order, in which the middle
            choices happen to be the convolutions: an agent that only prefers the middle looks good, so that every
            measurement of an agent should draw an order anew for each of its seeds. Keys and genotypes do not depend on it.
        embedding: file with a pretrained embedding, as `nases pretrain` writes it; None takes the one that ships.
        execution: where and how children are evaluated; see `NASESEnv`.
        render_mode: "rgb_array" or "ansi"; see `NASESEnv`.

    ## Version history

    - v0: the first version.
    """

    evaluator: NasBench201Evaluator

    def __init__(
        self,
        *,
        table: str | None = None,
        operator_permutation_seed: int | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        operators = NASBENCH201_OPERATORS
        if operator_permutation_seed is not None:
            operators = tuple(numpy_generator(operator_permutation_seed, "operator order").permutation(operators).tolist())
        super().__init__(
            NasBench201Evaluator(NasBench201(operators), table),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
        )

    def info(self, architecture: Architecture, evaluation: Evaluation) -> dict[str, Any]:
        test_accuracy = self.evaluator.report_test_accuracy(architecture)
        return {**super().info(architecture, evaluation), "test_accuracy_not_for_search": test_accuracy}
