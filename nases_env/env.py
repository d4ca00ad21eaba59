"""The Gymnasium environments: thin, they join search space, embedding and evaluator."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from nases_env.embedding import load_embedding
from nases_env.errors import InputError
from nases_env.evaluation import (
    AnalyticEvaluator,
    ChildSettings,
    Evaluation,
    Evaluator,
    InteractionEvaluator,
    LookUpEvaluator,
    TableEvaluator,
    TrainingEvaluator,
    resolve_device,
    resolve_preset,
)
from nases_env.execution import Executor, make_executor, resolve_execution
from nases_env.networks.nasbench201 import OPERATORS as NASBENCH201_OPERATORS
from nases_env.search_spaces import Architecture, SearchSpace, make_search_space
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.seeding import derive_seed, numpy_generator

logger = logging.getLogger(__name__)

Observation = NDArray[np.float32]
Action = NDArray[np.float32]

ACTION_SCALE = 3.0  # standard deviations of the embedding at the ends of the action space


class NASESEnv(gym.Env[Observation, Action]):
    """
    ## Description

    Architecture search as a continuing task (C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1). An
    action is an architecture *embedding*. The environment decodes it with a pretrained LSTM decoder, reads the decoded
    numbers as the decisions of a search space, evaluates the child network that they describe, and rewards with its
    validation accuracy. The subclasses differ in how a child is evaluated.

    ## Action space

    `Box(-1, 1, (n,), float32)`: the standardised embedding divided by 3, so that standard-normal embeddings reach
    the bounds at three standard deviations. n is the size of the embedding, 20 for the one that ships for `enas_micro`.
    Actions outside of the box are clipped into it; NaN, infinity or another shape raise `InputError`.

    ## Observation space

    `Box(0, 1, (m,), float32)`: the child just evaluated as the paper's architecture vector, decision `i` with choice `c`
    of `k` as `(c + 0.5) / k`. m is the number of decisions, 40 for `enas_micro`: for each of the two cells and five nodes
    (input, operator, input, operator).

    ## Rewards

    The child's validation accuracy in [0, 1]. A child that cannot be measured has the reward 0, and `info["status"]` says
    why. The test set is never read.

    ## Starting state

    A uniformly drawn architecture, or the one in `reset(options={"architecture": ...})`: an `Architecture`, a genotype,
    or the JSON text of either. It is observed, not evaluated: children are dear, and `reset` has no reward to give.

    ## Episode end

    Never: `terminated` is always false. The registration truncates an episode after 100 children.

    ## Information

    | key | type | meaning |
    | --- | --- | --- |
    | `key` | str | the architecture's canonical key: equal exactly for equal networks |
    | `genotype` | str | the architecture in words, as one line of JSON |
    | `status` | str | `ok`, `diverged`, `out_of_memory`, `too_large`, `timed_out` or `failed` |
    | `valid_accuracy` | float | share of the validation images classified correctly; 0 unless `ok` |
    | `train_accuracy` | float | the same on training images; 0 unless `ok` |
    | `num_params` | int | trainable parameters |
    | `num_flops` | int | operations of one forward pass of one image |

    `reset` gives `key` and `genotype` alone. The same seed and the same actions give the same information; what does not
    repeat, such as wall time, is in `env.unwrapped.last_evaluation`.

    ## Randomness

    A child's own seed (initial weights, batches, augmentation) derives from the seed of the last seeded `reset` and from
    its key, so the order in which children come does not matter, nor where they are evaluated, and a child that is met
    again under the same seed is not trained again. On a CPU everything repeats bit for bit; on a GPU, sums in another order
    make accuracies differ in the last digits.

    ## Where children are evaluated

    `execution` holds fields of `nases_env.execution.ExecutionSettings` by name. By default a child is evaluated in this
    process and remembered as long as the environment lives. `{"executor": "processes", "time_limit": 600}` has it evaluated
    in a process that is watched, `{"store": "results.sqlite"}` keeps every result in a file that other searches may share.
    `submit` evaluates in the background; `gymnasium.make_vec` gives an environment of many children at once.

    Args:
        evaluator: evaluates the children; its search space is the environment's.
        embedding: file with a pretrained embedding, as `nases pretrain` writes it; None takes the one that ships.
        execution: where and how children are evaluated, by fields of `ExecutionSettings`; None: in this process.
        render_mode: "rgb_array" draws the current cells as an array (height, width, 3); "ansi" describes them in text.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as Gymnasium declares it
        "render_modes": ["rgb_array", "ansi"],
        "render_fps": 1,
    }

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"unknown render_mode {render_mode!r}; known: {', '.join(self.metadata['render_modes'])}")
        self.render_mode = render_mode
        self.evaluator = evaluator
        self.search_space = make_search_space(evaluator.search_space)
        self.embedding = load_embedding(self.search_space, embedding)
        self.action_space = spaces.Box(-1.0, 1.0, (self.embedding.embedding_size,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (self.search_space.num_dims,), np.float32)
        self.last_evaluation: Evaluation | None = None
        """The record of the last child, wall time and learning curve included; None before the first step."""
        self.max_in_flight = 1
        """Children that may be under evaluation at once, which decides how many workers there are; to be set before."""
        self.execution = resolve_execution(execution)
        self._executor: Executor | None = None
        self._architecture: Architecture | None = None
        self._evaluations: dict[tuple[str, int], Evaluation] = {}
        self._in_flight: dict[tuple[str, int], Future[Evaluation]] = {}

    @property
    def executor(self) -> Executor:
        """What evaluates the children; made when it is first asked for, after which `execution` is settled."""
        if self._executor is None:
            self._executor = make_executor(
                self.evaluator, self.execution, max_in_flight=self.max_in_flight, describe=self.search_space.to_json
            )
        return self._executor

    @property
    def architecture(self) -> Architecture:
        """The current child.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`.
        """
        if self._architecture is None:
            raise gym.error.ResetNeeded("call reset() first: the environment has no architecture yet")
        return self._architecture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Starts from a random architecture, or from `options["architecture"]`; see the class.

        Raises:
            InputError: if an option is unknown, the architecture is none, or the evaluator misses its data.
        """
        super().reset(seed=seed)
        self.evaluator.prepare()
        options = dict(options or {})
        start = options.pop("architecture", None)
        if options:
            raise InputError(f"unknown reset option {next(iter(options))!r}; the only one is 'architecture'")
        self._architecture = self.search_space.sample(self.np_random) if start is None else self.parse(start)
        self.last_evaluation = None
        return self.search_space.encode(self._architecture), self._describe(self._architecture)

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decodes `action`, evaluates that child and observes it; see the class.

        Raises:
            InputError: if the action has another shape or is not finite.
        """
        _ = self.architecture
        architecture = self.decode(action)
        evaluation = self.evaluate(architecture)
        return self.search_space.encode(architecture), evaluation.reward, False, False, self.info(architecture, evaluation)

    def decode(self, action: Action) -> Architecture:
        """The architecture that `action` means, without evaluating it.

        Raises:
            InputError: if the action has another shape or is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape:
            raise InputError(f"an action has the shape {self.action_space.shape}, not {action.shape}")
        return self.decode_all(action[None])[0]

    def decode_all(self, actions: NDArray[np.floating[Any]]) -> list[Architecture]:
        """The architectures that ``actions`` of shape (B, n) mean: `decode` for many at once, which is faster.

        Raises:
            InputError: if the shape is another or an action is not finite.
        """
        if not np.isfinite(actions).all():
            raise InputError("an action must be finite; this one holds NaN or infinity: has the agent diverged?")
        embeddings = ACTION_SCALE * np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        return [self.search_space.decode(vector) for vector in self.embedding.decode(embeddings.astype(np.float32))]

    def submit(self, architecture: Architecture) -> Future[Evaluation]:
        """Has `architecture` evaluated, in the background where the executor can; `visit` it when it is done.

        One that is known, or under evaluation already, is not evaluated again.
        """
        child = architecture.key, self._child_seed(architecture)
        if child in self._evaluations:
            known: Future[Evaluation] = Future()
            known.set_result(self._evaluations[child])
            return known
        future = self._in_flight.get(child)
        if future is None or (future.done() and (future.cancelled() or future.exception() is not None)):
            self._in_flight[child] = self.executor.submit(architecture, child[1])
        return self._in_flight[child]

    def visit(self, architecture: Architecture, evaluation: Evaluation) -> None:
        """Makes `architecture` the current child, `evaluation` what is known of it."""
        self.remember(evaluation)
        self._architecture = architecture
        self.last_evaluation = evaluation

    def remember(self, evaluation: Evaluation) -> None:
        """Takes note of an evaluation, so that its child is not evaluated again under the same seed."""
        self._evaluations[evaluation.key, evaluation.seed] = evaluation
        self._in_flight.pop((evaluation.key, evaluation.seed), None)

    def evaluate(self, architecture: Architecture) -> Evaluation:
        """Evaluates `architecture` as `step` does, for agents that search among architectures and need no embedding."""
        evaluation = self.submit(architecture).result()
        self.visit(architecture, evaluation)
        return evaluation

    def close(self) -> None:
        """Abandons what is under evaluation and ends all workers; to call it twice does no harm."""
        if self._executor is not None:
            self._executor.shutdown()
        super().close()

    def _child_seed(self, architecture: Architecture) -> int:
        return derive_seed(self.np_random_seed, "child", architecture.key)

    def parse(self, architecture: Any) -> Architecture:
        """The `Architecture` of an `Architecture`, a genotype, or the JSON text of a genotype.

        Raises:
            InputError: if it is none of this search space.
        """
        if isinstance(architecture, Architecture):
            return self.search_space.architecture(architecture.decisions)
        text = architecture if isinstance(architecture, str) else json.dumps(architecture, default=repr)
        return self.search_space.from_json(text)

    def render(self) -> NDArray[np.uint8] | str | None:
        """The current cells: pixels (height, width, 3) for "rgb_array", text for "ansi", None without a render mode."""
        from nases_env import drawing  # imports matplotlib, which is slow

        architecture = self.architecture
        title = self._title()
        if self.render_mode == "rgb_array":
            return drawing.to_array(drawing.draw(self.search_space, architecture, title))
        if self.render_mode == "ansi":
            return f"{title}\n{drawing.describe(self.search_space, architecture)}\n"
        return None

    def _title(self) -> str:
        evaluation = self.last_evaluation
        if evaluation is None:
            return "not evaluated yet"
        size = f"{evaluation.num_params:,} parameters"
        return f"validation accuracy {evaluation.valid_accuracy:.2%}, {size} ({evaluation.status.value})"

    def _describe(self, architecture: Architecture) -> dict[str, Any]:
        return {"key": architecture.key, "genotype": self.search_space.to_json(architecture)}

    def info(self, architecture: Architecture, evaluation: Evaluation) -> dict[str, Any]:
        """What `step` tells of a child; see the class."""
        return {
            **self._describe(architecture),
            "status": evaluation.status.value,
            "valid_accuracy": evaluation.valid_accuracy,
            "train_accuracy": evaluation.train_accuracy,
            "num_params": evaluation.num_params,
            "num_flops": evaluation.num_flops,
        }


class ImageEnv(NASESEnv):
    """
    ## Description

    The paper's task: `NASESEnv` whose children are trained on the training split of an image data set and measured on its
    validation split, a tenth of the training images. Spaces, rewards, episodes and information are those of `NASESEnv`.

    | id | data |
    | --- | --- |
    | `NASES-CIFAR10-v0` | CIFAR-10: torchvision's files, or folders `cifar10/train/<class>/` of JPEG or PNG files |
    | `NASES-CIFAR100-v0`, `NASES-FashionMNIST-v0`, `NASES-SVHN-v0` | torchvision's files |
    | `NASES-ImageFolder-v0` | `data_dir/train/<class>/` and `data_dir/test/<class>/`, PNG or JPEG of any size |
    | `NASES-Digits-v0` | scikit-learn's digits, 8×8, part of that library |

    ## Arguments

    ```python
    env = gymnasium.make("NASES-CIFAR10-v0", preset="cpu", num_epochs=4)
    ```

    Args:
        dataset: the data set's name; the ids above set it.
        preset: a name of `nases_env.evaluation.PRESETS`: "paper", "gpu", "cpu" or "smoke"; "auto" is "gpu" where torch
            sees a GPU and "cpu" elsewhere. What was chosen is logged and is `env.unwrapped.preset`.
        data_dir: the folder with the data; None takes the environment variable `NASES_DATA_DIR`, else a folder of
            the user's cache.
        download: whether torchvision may download a data set that is not there.
        device: a torch device such as "cpu" or "cuda:1"; "auto" is the GPU where there is one.
        split_seed: decides which tenth of the training images is the validation split.
        num_threads: CPU threads of a training.
        search_space: a name that ships, one of your own as MODULE:CLASS, or a search space.
        embedding: file with a pretrained embedding, as `nases pretrain` writes it; None takes the one that ships.
        execution: where and how children are evaluated; see `NASESEnv`.
        render_mode: "rgb_array" or "ansi"; see `NASESEnv`.
        **overrides: any field of `nases_env.evaluation.ChildSettings` by name, in place of the preset's value:

            {overrides}

    ## Version history

    - v0: the first version.
    """

    def __init__(
        self,
        dataset: str,
        *,
        preset: str = "auto",
        data_dir: str | None = None,
        download: bool = True,
        device: str = "auto",
        split_seed: int = 0,
        num_threads: int = 1,
        search_space: str | SearchSpace = "enas_micro",
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        **overrides: Any,
    ) -> None:
        self.preset, self.settings = resolve_preset(preset, overrides)
        logger.info("preset %s on %s", self.preset, resolve_device(device))
        evaluator = TrainingEvaluator(
            search_space,
            dataset,
            self.settings,
            data_dir=data_dir,
            download=download,
            device=device,
            split_seed=split_seed,
            num_threads=num_threads,
        )
        super().__init__(evaluator, embedding=embedding, execution=execution, render_mode=render_mode)


if ImageEnv.__doc__:  # absent under python -OO
    _OPTIONS = [f"{option.name}: {option.metadata['help']}" for option in dataclasses.fields(ChildSettings)]
    ImageEnv.__doc__ = ImageEnv.__doc__.replace("{overrides}", "\n            ".join(_OPTIONS))


class TableEnv(NASESEnv):
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
    env = gymnasium.make("NASES-NASBench201-v0", table="nasbench201-cifar10.csv", permutation_seed=0)
    ```

    Args:
        table: the path of the table; None takes the environment variable `NASES_NASBENCH201_TABLE`, else the file
            `nasbench201-cifar10.csv` in the folder that `NASES_DATA_DIR` names.
        permutation_seed: numbers the operators in a random order. None keeps their natural order, in which the middle
            choices happen to be the convolutions: an agent that only prefers the middle looks good, so that every
            measurement of an agent should draw an order anew for each of its seeds. Keys and genotypes do not depend on it.
        embedding: file with a pretrained embedding, as `nases pretrain` writes it; None takes the one that ships.
        execution: where and how children are evaluated; see `NASESEnv`.
        render_mode: "rgb_array" or "ansi"; see `NASESEnv`.

    ## Version history

    - v0: the first version.
    """

    evaluator: TableEvaluator

    def __init__(
        self,
        *,
        table: str | None = None,
        permutation_seed: int | None = None,
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        operators = NASBENCH201_OPERATORS
        if permutation_seed is not None:
            operators = tuple(numpy_generator(permutation_seed, "operator order").permutation(operators).tolist())
        super().__init__(
            TableEvaluator(NasBench201(operators), table), embedding=embedding, execution=execution, render_mode=render_mode
        )

    def info(self, architecture: Architecture, evaluation: Evaluation) -> dict[str, Any]:
        test_accuracy = self.evaluator.report_test_accuracy(architecture)
        return {**super().info(architecture, evaluation), "test_accuracy_not_for_search": test_accuracy}


class LookUpEnv(NASESEnv):
    """
    ## Description

    `NASESEnv` for a search space of your own that knows its accuracies without training, from a table, a formula or a
    model: the reward of a child is what the space's `look_up` says of it. The id is `NASES-LookUp-v0`;
    `examples/own_search_space.py` shows how a search space is written.

    Spaces, episodes and information are those of `NASESEnv`. The training accuracy is the validation accuracy; nothing is
    built or trained, so parameters and operations are 0, and the seed does not matter.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-LookUp-v0", search_space="my_space:MySpace", embedding="my_space.safetensors")
    ```

    Args:
        search_space: a search space that overrides `look_up`, or its name as MODULE:CLASS. It must be given.
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
            raise InputError("NASES-LookUp-v0 has no search space of its own; give search_space as MODULE:CLASS")
        super().__init__(LookUpEvaluator(search_space), embedding=embedding, execution=execution, render_mode=render_mode)


class AnalyticEnv(NASESEnv):
    """
    ## Description

    `NASESEnv` with a reward that costs nothing. It is there to see within seconds whether an agent learns; it says nothing
    about images. By default the reward is the share of the network's branches that apply one operator, whose optimum is 1.
    With `landscape` it is a random function with interactions between decisions: see
    `nases_env.evaluation.InteractionEvaluator`.

    The id is `NASES-Analytic-v0`. Spaces, episodes and information are those of `NASESEnv`; nothing is trained, so
    parameters and operations are 0.

    Args:
        operator: the operator that is rewarded; None is `sep_conv_3x3`. It does not go with `landscape`.
        landscape: the seed of a random function with interactions between decisions.
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
        landscape: int | None = None,
        search_space: str | SearchSpace = "enas_micro",
        embedding: str | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if operator is not None and landscape is not None:
            raise InputError("give operator or landscape, not both: they are two rewards")
        evaluator = (
            AnalyticEvaluator(search_space, operator or "sep_conv_3x3")
            if landscape is None
            else InteractionEvaluator(search_space, landscape)
        )
        super().__init__(evaluator, embedding=embedding, execution=execution, render_mode=render_mode)
