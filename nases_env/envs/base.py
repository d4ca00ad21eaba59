"""The base class of all environments: search space, embedding and evaluator as one Gymnasium environment."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import HumanRendering, OrderEnforcing, PassiveEnvChecker, RenderCollection, TimeLimit
from numpy.typing import NDArray

from nases_env.embedding import Embedding, load_embedding
from nases_env.envs.arguments import to_numbers, to_options, to_seed
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.execution import CachingExecutor, ExecutionSettings, make_executor, resolve_execution
from nases_env.quantity import Quantity
from nases_env.search_spaces import Architecture, get_search_space
from nases_env.seeding import derive_seed

logger = logging.getLogger(__name__)

Observation = NDArray[np.float32]
Action = NDArray[np.float32]

ACTION_SCALE = 3.0  # standard deviations of the embedding at the bounds of the action space


class NASESEnv(gym.Env[Observation, Action]):
    """Neural architecture search as a Gymnasium environment.

    ## Description

    The task of C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1. An action is an architecture
    *embedding*. The environment decodes it with a pretrained LSTM decoder into the decisions of a search space, evaluates
    the network that they describe (the *child*), and returns its validation accuracy as the reward. The subclasses differ in
    how a child is evaluated.

    ## Action Space

    ``Box(-1, 1, (n,), float32)``: the standardized embedding divided by 3, so that ±1 is ±3 standard deviations. n is the
    size of the embedding, 20 for the built-in embedding of ``enas_micro``. Actions outside the box are clipped; NaN,
    infinity, or a wrong shape raises ``InputError``.

    ## Observation Space

    ``Box(0, 1, (m,), float32)``: the current child as the paper's architecture vector. Decision ``i`` with choice ``c`` of
    ``k`` is encoded as ``(c + 0.5) / k``. m is the number of decisions, 40 for ``enas_micro``: (input, operator, input,
    operator) for each of five nodes in two cells.

    ## Rewards

    The validation accuracy of the child in [0, 1], unless the subclass says otherwise. A child that cannot be measured has
    the reward 0, and ``info["status"]`` gives the reason. The test set is never read. A reward depends on the action of its
    step alone.

    ## Starting State

    A uniformly sampled architecture, or the one in ``reset(options={"architecture": ...})``: an ``Architecture``, a
    genotype, or the JSON text of a genotype. ``reset`` returns its encoding without evaluating it.

    ## Rungs

    An environment that was created with ``rungs`` evaluates a child after one of these numbers of epochs: the last one, or
    the one in ``reset(options={"fidelity": ...})``, which is used until a later reset changes it. An action never changes
    the rung. A search with rungs evaluates new children at the first rung and continues the best of them.

    ## Episode End

    ``terminated`` is always False. The registered environments truncate an episode after 100 children.

    ## Information

    | key | type | meaning |
    | --- | --- | --- |
    | ``key`` | str | canonical key: architectures with equal keys describe the same network |
    | ``genotype`` | str | the architecture as one line of JSON |
    | ``status`` | str | ``ok``, ``diverged``, ``out_of_memory``, ``too_large``, ``timed_out`` or ``failed`` |
    | ``valid_accuracy`` | float | accuracy on the validation images, in [0, 1]; 0 unless ``ok`` |
    | ``train_accuracy`` | float | accuracy on training images, in [0, 1]; 0 unless ``ok`` |
    | ``num_params`` | int | number of trainable parameters |
    | ``num_flops`` | int | floating-point operations of one forward pass of one image |
    | ``activation_bytes`` | int | peak memory of the activations of one image; see ``nases_env.networks.count_costs`` |
    | ``file_bytes`` | int | bytes of the tensors in a weights file |
    | ``latency`` | float | measured seconds of a forward pass of one image; only with ``max_latency``, or as an objective |
    | ``fidelity`` | int | the rung of the evaluation; only with ``rungs`` |

    Costs of a child (``num_params`` to ``latency``) are 0 if they are not known: if nothing is built, if the result was
    stored by an earlier version, or if an infeasible child exceeds another limit.
    ``reset`` returns only ``key`` and ``genotype``, and the labels of the evaluator such as ``task``; with
    ``info_text=False``, it returns the numbers, which are 0 except ``fidelity``.
    The same seed and actions always produce the same information, except for measured latencies, which ``max_latency`` also
    compares. Values that are not reproducible, such as wall time, are in ``env.unwrapped.last_evaluation``.

    ## Randomness

    The seed of a child (initial weights, batches, augmentation) is derived from the seed of the last seeded ``reset`` and
    from the key of the child. It does not depend on the order of the children or on where they are evaluated, and repeated
    evaluations of the same architecture under the same seed are cached. On a CPU, results are bit-for-bit reproducible; on
    a GPU, accuracies differ in the last digits because the order of summation is not fixed.

    ## Execution

    ``execution`` holds fields of ``nases_env.execution.ExecutionSettings`` by name. By default, a child is evaluated in this
    process and its result is cached until the environment is closed. ``{"executor": "processes", "time_limit": 600}``
    evaluates it in a monitored process; ``{"store": "results.sqlite"}`` stores every result in a file that several searches
    can share. ``submit`` evaluates in the background; ``gymnasium.make_vec`` creates an environment that evaluates many
    children concurrently.

    Args:
        evaluator: evaluates the children; the environment uses its search space.
        embedding: file with a pretrained embedding, as written by ``nases pretrain``; None uses the built-in one.
        execution: where and how children are evaluated, by fields of ``ExecutionSettings``; None: in this process.
        render_mode: "rgb_array" draws the current cells as an array (height, width, 3); "ansi" describes them in text.
        info_text: whether the information contains the strings ``key``, ``genotype`` and ``status``. TorchRL cannot stack
            strings; without them, ``reset`` returns the numbers as 0 so that all steps have the same entries.

    Attributes:
        is_started_by_submit: whether ``step`` or ``submit`` started the executor, which evaluates one child at a time then.

    Examples:
        >>> import gymnasium, nases_env
        >>> env = gymnasium.make("NASES-Synthetic-v0")
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        >>> observation.shape, info["status"]
        ((40,), 'ok')
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
        info_text: bool = True,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"unknown render_mode {render_mode!r}; known: {', '.join(self.metadata['render_modes'])}")
        self.render_mode = render_mode
        self.info_text = info_text
        self.evaluator = evaluator
        self.search_space = get_search_space(evaluator.search_space)
        self._embedding_file = embedding
        self.observation_space = spaces.Box(0.0, 1.0, (self.search_space.num_decisions,), np.float32)
        self.execution = resolve_execution(execution)
        self.last_evaluation: Evaluation | None = None  # with wall time and learning curve; None before the first step
        self._executor: CachingExecutor | None = None
        self.is_started_by_submit = False
        self._architecture: Architecture | None = None
        self._fidelity = evaluator.rungs[-1] if evaluator.rungs else None
        self._latencies: dict[str, float] = {}  # by key
        self._screened: dict[tuple[str, int], Evaluation | None] = {}  # by key and seed

    @cached_property
    def embedding(self) -> Embedding:
        """The embedding, loaded when it is first used: agents that propose architectures need none.

        The checker of ``gymnasium.make`` loads it too, unless you pass ``disable_env_checker=True``.

        Raises:
            InputError: if there is no such file, or no built-in embedding for the search space.
        """
        return load_embedding(self.search_space, self._embedding_file)

    @cached_property
    def action_space(self) -> spaces.Space[Action]:  # type: ignore[override] # mypy takes it for a read-only property
        """The action space; loads the embedding."""
        return spaces.Box(-1.0, 1.0, (self.embedding.embedding_size,), np.float32)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The numbers of epochs after which a child can be evaluated, increasing; empty: only after its whole training."""
        return self.evaluator.rungs

    @property
    def measures_latency(self) -> bool:
        """Whether the latency of a child is measured before it is evaluated."""
        return self.evaluator.limits.max_latency is not None

    @property
    def is_started(self) -> bool:
        """Whether the executor is running: ``start`` was called, and ``close`` was not called since."""
        return self._executor is not None and not self._executor.is_shut_down

    @property
    def executor(self) -> CachingExecutor:
        """The executor that evaluates the children.

        Raises:
            RuntimeError: before ``start``.
        """
        if self._executor is None:
            raise RuntimeError("call start() first: the environment has no executor yet")
        return self._executor

    def start(self, execution: ExecutionSettings | None = None, *, max_in_flight: int = 1) -> None:
        """Start the executor. The first ``submit`` or ``step`` does this with the defaults.

        Args:
            execution: where and how children are evaluated; None uses the settings given to the constructor.
            max_in_flight: number of concurrent evaluations, which determines the number of workers.

        Raises:
            InputError: if the store, the cluster or an option cannot be used.
            RuntimeError: if the executor is running.
        """
        if self.is_started:
            raise RuntimeError("the executor is running; call close() before start()")
        if execution is not None:
            self.execution = execution
        self.is_started_by_submit = False
        self._executor = make_executor(
            self.evaluator, self.execution, max_in_flight=max_in_flight, describe=self.search_space.to_json
        )

    @property
    def architecture(self) -> Architecture:
        """The architecture of the current child.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        self._require_reset()
        assert self._architecture is not None
        return self._architecture

    def _require_reset(self) -> None:
        if self._architecture is None:
            raise gym.error.ResetNeeded("call reset() first: the environment has no architecture yet")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start from a random architecture, or from ``options["architecture"]``; see the class docstring.

        Raises:
            InputError: if the seed or an option is not valid, or the data set is missing.
        """
        options = to_options(options)
        seed = to_seed(seed)
        initial, fidelity = options.pop("architecture", None), options.pop("fidelity", None)
        if options:
            raise InputError(f"unknown reset option {next(iter(options))!r}; known: 'architecture' and 'fidelity'")
        if fidelity is not None:
            self.evaluator.require_rung(fidelity)
        given = None if initial is None else self.to_architecture(initial)
        if self._architecture is None:  # the first reset
            self.evaluator.prepare()
        super().reset(seed=seed)  # nothing is changed before, because an argument can be invalid
        if fidelity is not None:
            self._fidelity = fidelity
        self._architecture = self.search_space.sample(self.np_random) if given is None else given
        self.last_evaluation = None
        if self.info_text:
            info = self._texts(self._architecture)
        else:
            info = self.info(self._architecture, Evaluation(self._architecture.key, 0, Status.FAILED))
            if "latency" in info:
                info["latency"] = 0.0  # also of a child that was measured before
        return self.search_space.encode(self._architecture), info

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decode ``action``, evaluate the child, and return its encoding as the observation; see the class docstring.

        Raises:
            InputError: if the action has the wrong shape or is not finite.
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        self._require_reset()
        architecture = self.decode(action)
        evaluation = self.evaluate(architecture)
        info = self.info(architecture, evaluation)
        return self.search_space.encode(architecture), self.reward_of(evaluation), False, False, info

    def reward_of(self, evaluation: Evaluation) -> float:
        """Return the reward of a child; environments with several objectives return a vector."""
        return evaluation.reward

    def decode(self, action: Action) -> Architecture:
        """Decode ``action`` into an architecture, without evaluating it.

        Raises:
            InputError: if the action has the wrong shape or is not finite.
        """
        return self.decode_batch(to_numbers("an action", action, self.action_space.shape)[None])[0]

    def decode_batch(self, actions: NDArray[np.floating[Any]]) -> list[Architecture]:
        """Decode ``actions`` of shape (B, n) into B architectures; faster than B calls of ``decode``.

        Raises:
            InputError: if an action is not finite.
        """
        if not np.isfinite(actions).all():
            raise InputError("an action contains NaN or infinity; check whether the agent has diverged")
        embeddings = ACTION_SCALE * np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        return self.search_space.decode_batch(self.embedding.decode(embeddings.astype(np.float32)))

    def submit(self, architecture: Architecture, fidelity: int | None = None) -> Future[Evaluation]:
        """Evaluate ``architecture``, in the background if the executor can.

        With rungs, it is evaluated at ``fidelity``; None: at the rung of the last reset.

        The current child, which ``architecture``, ``last_evaluation`` and ``render`` refer to, does not change until
        ``set_current`` is called. An architecture that was evaluated before, or is being evaluated, is not evaluated again.

        Raises:
            InputError: if ``fidelity`` is not a rung.
        """
        if fidelity is None:
            fidelity = self._fidelity
        else:
            self.evaluator.require_rung(fidelity)
        return self._submit(architecture, self._child_seed(architecture), fidelity)

    def submit_again(self, architecture: Architecture) -> Future[Evaluation]:
        """Evaluate ``architecture`` with another seed, at the last rung if there are rungs; see ``submit``."""
        seed = derive_seed(self.np_random_seed, "finalist", architecture.key)
        return self._submit(architecture, seed, self.rungs[-1] if self.rungs else None)

    def _submit(self, architecture: Architecture, seed: int, fidelity: int | None) -> Future[Evaluation]:
        if not self.is_started:
            self.start()
            self.is_started_by_submit = True
        infeasible = self.screen(architecture)
        if infeasible is not None:
            future: Future[Evaluation] = Future()
            future.set_result(infeasible)
            return future
        if self.measures_latency:
            self._latency(architecture, seed)  # for ``with_latency``
        return self.executor.submit(architecture, seed, fidelity)

    def screen(self, architecture: Architecture) -> Evaluation | None:
        """Return the evaluation of ``architecture`` if it is infeasible, without training; None if it is feasible.

        An architecture is infeasible if it exceeds a limit such as ``max_params``. A search does not evaluate it and asks
        the agent for another one; ``step`` returns the reward 0. Answers are cached in memory and not stored, because they
        depend on the limits.
        """
        limits_latency = self.evaluator.limits.max_latency is not None
        if type(self.evaluator).screen is Evaluator.screen and not limits_latency:  # all children are feasible
            return None
        seed = self._child_seed(architecture)
        child = (architecture.key, seed)
        if child not in self._screened:
            screened = self.evaluator.screen(architecture, seed)
            if screened is None and limits_latency:
                screened = self.evaluator.screen_latency(architecture, seed, self._latency(architecture, seed))
            self._screened[child] = screened
        return self._screened[child]

    def is_feasible(self, architecture: Architecture) -> bool:
        """Return whether ``architecture`` exceeds no limit; see ``screen``."""
        return self.screen(architecture) is None

    def size(self, architecture: Architecture) -> float | None:
        """Return a zero-cost proxy of the reward, which needs no training; see ``Evaluator.size``."""
        return self.evaluator.size(architecture)

    def costs(self, architecture: Architecture) -> Evaluation | None:
        """Return an evaluation with the exact costs of the network, without training; None: no network can be built."""
        return self.evaluator.costs(architecture, self._child_seed(architecture))

    def _latency(self, architecture: Architecture, seed: int) -> float:
        """Measure the latency of an architecture once, or return the one in the store, which ``close`` closes.

        So a resumed search uses the same value.
        """
        key = architecture.key
        if key not in self._latencies:
            store = self._executor.store if self._executor is not None and self.is_started else None
            digest = "" if store is None else self._digest
            known = None if store is None else store.get_latency(key, digest)
            if known is None:
                known = self.evaluator.measure_latency(architecture, seed)
                if known and store is not None:  # one that is not known may be measured by a later search
                    known = store.put_latency(key, digest, known)
            self._latencies[key] = known
        return self._latencies[key]

    @cached_property
    def _digest(self) -> str:
        """The digest of the evaluator's configuration, computed once because it can take long."""
        return self.evaluator.digest()

    def with_latency(self, evaluation: Evaluation) -> Evaluation:
        """Return ``evaluation`` with the latency of the child, if it was measured."""
        latency = self._latencies.get(evaluation.key)
        return evaluation if latency is None else dataclasses.replace(evaluation, latency=latency)

    def preload(self, evaluation: Evaluation) -> None:
        """Use an evaluation of a resumed search if the child is proposed again, with the latency that was measured then."""
        self.executor.preload(evaluation)
        if evaluation.latency:
            self._latencies[evaluation.key] = evaluation.latency

    def set_current(self, architecture: Architecture, evaluation: Evaluation) -> None:
        """Make ``architecture`` the current child and ``evaluation`` its ``last_evaluation``."""
        self._architecture = architecture
        self.last_evaluation = evaluation

    def evaluate(self, architecture: Architecture) -> Evaluation:
        """Evaluate ``architecture`` as ``step`` does, for agents that do not use the embedding."""
        evaluation = self.with_latency(self.submit(architecture).result())
        self.set_current(architecture, evaluation)
        return evaluation

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_executor": None}  # a copy starts its own executor

    def close(self) -> None:
        """Cancel the evaluations in flight and stop all workers. Can be called repeatedly; the next step starts new ones."""
        if self._executor is not None:
            self._executor.shutdown()
        super().close()

    def _child_seed(self, architecture: Architecture) -> int:
        return derive_seed(self.np_random_seed, "child", architecture.key)

    def to_architecture(self, architecture: Any) -> Architecture:
        """Convert an ``Architecture``, a genotype, or the JSON text of a genotype into an ``Architecture``.

        Raises:
            InputError: if it is not an architecture of this search space.
        """
        if isinstance(architecture, Architecture):
            if architecture.search_space == self.search_space.name:
                own = self.search_space.architecture(architecture.decisions)
                if own.key == architecture.key:
                    return own
            raise InputError(
                f"{architecture.key} belongs to another search space, or to {self.search_space.name} with another order of "
                "operators; pass its genotype"
            )
        try:
            text = architecture if isinstance(architecture, str) else json.dumps(architecture, default=repr)
        except (TypeError, ValueError, RecursionError) as error:  # such as a list that contains itself
            raise InputError(f"not an architecture: it cannot be written as JSON ({error})") from None
        return self.search_space.from_json(text)

    def render(self) -> NDArray[np.uint8] | str | None:
        """Render the current cells: pixels (height, width, 3) for "rgb_array", text for "ansi", otherwise None."""
        from nases_env import visualization  # imports matplotlib, which is slow

        architecture = self.architecture
        title = self._title()
        if self.render_mode == "rgb_array":
            return visualization.to_array(visualization.draw(self.search_space, architecture, title, fixed_size=True))
        if self.render_mode == "ansi":
            return f"{title}\n{visualization.describe(self.search_space, architecture)}\n"
        return None

    def _title(self) -> str:
        evaluation = self.last_evaluation
        if evaluation is None:
            return "not evaluated yet"
        return f"{describe_result(evaluation, self.evaluator.quantity)} ({evaluation.status.value})"

    def _texts(self, architecture: Architecture) -> dict[str, Any]:
        """Return the strings of the information that do not depend on the evaluation."""
        genotype = self.search_space.to_json(architecture)
        return {"key": architecture.key, "genotype": genotype, **self.evaluator.labels()}

    def info(self, architecture: Architecture, evaluation: Evaluation) -> dict[str, Any]:
        """Return the information that ``step`` returns for a child; see the class docstring."""
        info: dict[str, Any] = {
            "valid_accuracy": evaluation.valid_accuracy,
            "train_accuracy": evaluation.train_accuracy,
            "num_params": evaluation.num_params,
            "num_flops": evaluation.num_flops,
            "activation_bytes": evaluation.activation_bytes,
            "file_bytes": evaluation.file_bytes,
        }
        if self.measures_latency:
            info["latency"] = self.with_latency(evaluation).latency
        if self.rungs:
            info["fidelity"] = evaluation.fidelity or self._fidelity  # None if the child was not evaluated
        if not self.info_text:
            return info
        return {**self._texts(architecture), "status": evaluation.status.value, **info}


def describe_result(evaluation: Evaluation, quantity: Quantity) -> str:
    """Describe the accuracy, or another metric, and the size of a child in the title of a drawing."""
    size = f", {evaluation.num_params:,} parameters" if evaluation.num_params else ""
    return f"validation {quantity.name} {quantity.format(evaluation.valid_accuracy)}{size}"


TRANSPARENT_WRAPPERS = (PassiveEnvChecker, OrderEnforcing, TimeLimit, HumanRendering, RenderCollection)
"""The wrappers that ``gymnasium.make`` adds; they change neither actions nor observations nor rewards."""


def unwrap(env: gym.Env[Any, Any]) -> NASESEnv:
    """Return the ``NASESEnv`` in ``env``, for searches and agents, which do not call ``step``.

    Raises:
        InputError: if ``env`` has a wrapper that ``gymnasium.make`` does not add, or contains no ``NASESEnv``.
    """
    while isinstance(env, gym.Wrapper):
        if type(env) not in TRANSPARENT_WRAPPERS:
            raise InputError(
                f"the wrapper {type(env).__name__} would have no effect, because a search does not call step; remove it and "
                "change rewards in an Evaluator, or call step in a loop as examples/reinforce_single_file.py does"
            )
        env = env.env
    if not isinstance(env, NASESEnv):
        raise InputError(f"{env} is not an environment for architecture search: it must be a NASESEnv")
    return env
