"""The base class of all environments: search space, embedding and evaluator as one Gymnasium environment."""

from __future__ import annotations

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
    Evaluation,
    Evaluator,
)
from nases_env.execution import Executor, make_executor, resolve_execution
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import derive_seed

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
        self.search_space = get_search_space(evaluator.search_space)
        self.embedding = load_embedding(self.search_space, embedding)
        self.action_space = spaces.Box(-1.0, 1.0, (self.embedding.embedding_size,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (self.search_space.num_decisions,), np.float32)
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
        return self.decode_batch(action[None])[0]

    def decode_batch(self, actions: NDArray[np.floating[Any]]) -> list[Architecture]:
        """The architectures that ``actions`` of shape (B, n) mean: `decode` for many at once, which is faster.

        Raises:
            InputError: if the shape is another or an action is not finite.
        """
        if not np.isfinite(actions).all():
            raise InputError("an action must be finite; this one holds NaN or infinity: has the agent diverged?")
        embeddings = ACTION_SCALE * np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        return [self.search_space.decode(vector) for vector in self.embedding.decode(embeddings.astype(np.float32))]

    def submit(self, architecture: Architecture) -> Future[Evaluation]:
        """Has `architecture` evaluated, in the background where the executor can; `set_current` it when it is done.

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

    def set_current(self, architecture: Architecture, evaluation: Evaluation) -> None:
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
        self.set_current(architecture, evaluation)
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
        from nases_env import visualization  # imports matplotlib, which is slow

        architecture = self.architecture
        title = self._title()
        if self.render_mode == "rgb_array":
            return visualization.to_array(visualization.draw(self.search_space, architecture, title))
        if self.render_mode == "ansi":
            return f"{title}\n{visualization.describe(self.search_space, architecture)}\n"
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
