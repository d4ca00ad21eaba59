"""Environments with a reward vector, in the convention of MO-Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from nases_env.envs.arguments import to_seed
from nases_env.envs.base import NASESEnv
from nases_env.envs.image import ImageEnv
from nases_env.errors import InputError
from nases_env.evaluation import (
    ACCURACY,
    COSTS,
    LOWEST_VALUE,
    Evaluation,
    Limits,
    objective_value,
    parse_objectives,
    split_objectives,
)
from nases_env.evaluation.nasbench201_costs import DEVICE_PREFIX, NasBench201CostEvaluator
from nases_env.search_spaces.nasbench201 import NasBench201

DEFAULT_OBJECTIVES = (ACCURACY, "params")
LATENCY = "latency"


class MOEnv(NASESEnv):
    """The base class of environments with several objectives.

    ## Description

    ``NASESEnv`` whose reward is a vector, in the convention of MO-Gymnasium: ``step`` returns an array of the shape
    ``(reward_dim,)``, whose bounds are in ``reward_space``. Create it with ``gymnasium.make`` or ``mo_gymnasium.make``;
    MO-Gymnasium's wrappers, such as ``LinearReward``, work. Spaces, episodes and information are those of ``NASESEnv``.

    ## Rewards

    All objectives are maximized.

    | objective | value | range |
    | --- | --- | --- |
    | ``accuracy`` | the reward of the environment with one objective; NAS-Bench-201: accuracy after 200 epochs | [0, 1] |
    | ``params``, ``flops`` | -log10 of the number of parameters, or of operations for one image | [-16, 0] |
    | ``memory`` | -log10 of the peak memory of the activations of one image in bytes | [-16, 0] |
    | ``latency`` | -log10 of the time to classify one image in nanoseconds | [-16, 0] |

    Halving a cost increases its objective by log10(2), about 0.3. A child without a result has the lowest value of every
    objective, as does a child above a limit.

    A search is the same as with one objective: ``Evaluation.reward`` is the first one, and the best child of a search is the
    one with the highest accuracy. Agents with several objectives use ``reward_of``. ``nases pareto`` shows the Pareto front.

    Attributes:
        objectives: the names of the objectives.
        kinds: their names in ``nases_env.evaluation.OBJECTIVES``: ``latency`` for a device.
        reward_dim: number of objectives.
        reward_space: the space of rewards.
    """

    objectives: tuple[str, ...]
    kinds: tuple[str, ...]
    reward_dim: int
    reward_space: spaces.Box

    def _set_objectives(self, objectives: tuple[str, ...]) -> None:
        self.objectives = objectives
        self.kinds = tuple(LATENCY if name.startswith(DEVICE_PREFIX) else name for name in objectives)
        self.reward_dim = len(objectives)
        low = np.array([0.0 if name == ACCURACY else LOWEST_VALUE for name in objectives], np.float32)
        high = np.array([1.0 if name == ACCURACY else 0.0 for name in objectives], np.float32)
        self.reward_space = spaces.Box(low, high, dtype=np.float32)

    @property
    def measures_latency(self) -> bool:
        return LATENCY in self.kinds or super().measures_latency

    def reward_of(self, evaluation: Evaluation) -> NDArray[np.float32]:  # type: ignore[override] # MO-Gymnasium's convention
        """Return the vector of objectives of a child."""
        evaluation = self.with_latency(evaluation)
        return np.array([objective_value(kind, evaluation) for kind in self.kinds], np.float32)


class MOImageEnv(MOEnv, ImageEnv):
    """Neural architecture search on images, with several objectives.

    ``ImageEnv`` with a reward vector; see ``MOEnv``. With the objective ``latency``, the latency of each child is measured
    on the CPU before its training, as with ``max_latency``.

    ```python
    env = gymnasium.make("NASES-MO-Digits-v0", preset="cpu", objectives=("accuracy", "flops"))
    ```

    Args:
        dataset: name of the data set; set by the ids ``NASES-MO-CIFAR10-v0``, ``NASES-MO-Digits-v0`` and
            ``NASES-MO-ImageFolder-v0``.
        objectives: ``accuracy`` and then one or more of ``params``, ``flops``, ``memory`` and ``latency``; names, or one
            text with commas.
        **options: arguments of ``ImageEnv``.

    Raises:
        InputError: if the objectives are not valid; see also ``ImageEnv``.
    """

    def __init__(self, dataset: str, *, objectives: str | Sequence[str] = DEFAULT_OBJECTIVES, **options: Any) -> None:
        names = parse_objectives(objectives)
        super().__init__(dataset, **options)
        self._set_objectives(names)


class MONasBench201Env(MOEnv):
    """Neural architecture search on NAS-Bench-201, with several objectives.

    ## Description

    The accuracy after 200 epochs on CIFAR-10 and latencies are read from a table, and the Pareto front is known. The id is
    ``NASES-MO-NASBench201-v0``; see ``MOEnv`` for rewards, and ``NasBench201Env`` for the spaces.

    ## Table

    A CSV file with one row per cell and the columns ``arch``, ``valid_accuracy_200_epochs_cifar10`` (percent) and
    ``ms_<device>`` (milliseconds) for any devices. Parameters, FLOPs and memory are computed from the network.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-MO-NASBench201-v0", objectives=("accuracy", "ms_pixel3"))
    ```

    Args:
        objectives: ``accuracy`` and then one or more of ``params``, ``flops``, ``memory`` and a column of the table such as
            ``ms_pixel3``; names, or one text with commas.
        table: path of the table; None uses the environment variable ``NASES_NASBENCH201_LATENCY_TABLE``, else the file
            ``nasbench201-latency.csv`` in the directory given by ``NASES_DATA_DIR``.
        operator_permutation_seed: seed of a random numbering of the operators; see ``NasBench201Env``.
        embedding: file with a pretrained embedding, as written by ``nases pretrain``; None uses the built-in one.
        max_params: maximum number of parameters of a child; None: no limit. See ``ImageEnv`` for the limits.
        max_flops: maximum number of floating-point operations for one image.
        max_memory: maximum peak memory of the activations of one image in bytes.
        max_latency: maximum latency in seconds on the device of the objectives.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.

    Raises:
        InputError: if the objectives are not valid; ``reset`` raises it if the table lacks the device, is missing or is
            invalid.

    ## Version History

    - v0: initial version.
    """

    def __init__(
        self,
        *,
        objectives: str | Sequence[str] = DEFAULT_OBJECTIVES,
        table: str | Path | None = None,
        operator_permutation_seed: int | None = None,
        embedding: str | None = None,
        max_params: float | None = None,
        max_flops: float | None = None,
        max_memory: float | None = None,
        max_latency: float | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
    ) -> None:
        given = split_objectives(objectives)
        devices = [name for name in given if isinstance(name, str) and name.startswith(DEVICE_PREFIX)]
        if len(devices) > 1:
            raise InputError(f"the objectives have the latencies of {', '.join(devices)}; choose one device")
        counted = [ACCURACY, *(name for name in COSTS if name != LATENCY)]
        names = parse_objectives(given, (*counted, *(devices or [f"{DEVICE_PREFIX}<device>"])))
        super().__init__(
            NasBench201CostEvaluator(
                NasBench201(NasBench201.order_operators(to_seed(operator_permutation_seed))),
                table,
                devices[0] if devices else None,
                counts_costs=any(name in counted[1:] for name in names),
                limits=Limits(max_params, max_flops, max_memory, max_latency),  # type: ignore[arg-type] # it converts 5e6
            ),
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
        self._set_objectives(names)
