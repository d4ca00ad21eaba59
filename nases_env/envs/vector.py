"""The vector environment: evaluate several children concurrently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from nases_env.envs.accel import AccelEnv
from nases_env.envs.arguments import to_count, to_numbers, to_options, to_seed
from nases_env.envs.base import Action, NASESEnv, Observation
from nases_env.envs.image import ImageEnv
from nases_env.envs.multi_objective import MOEnv, MOImageEnv, MONasBench201Env
from nases_env.envs.nasbench201 import NasBench201Env
from nases_env.envs.query import QueryEnv
from nases_env.envs.synthetic import SyntheticEnv
from nases_env.envs.transnas_micro import TransNASMicroEnv
from nases_env.errors import InputError, shown
from nases_env.evaluation import Evaluation
from nases_env.search_spaces import Architecture

EvaluateAll = Callable[[list[Architecture], NDArray[np.float64]], list[Evaluation]]


class NASESVectorEnv(VectorEnv[Observation, Action, NDArray[Any]]):
    """Several searches in one vector environment.

    ## Description

    K searches of ``NASESEnv`` in one vector environment: a step decodes K actions in one batch and evaluates the K children
    concurrently if the executor can. All sub-environments share one ``NASESEnv``: its search space, embedding, evaluator and
    executor. ``gymnasium.make_vec`` creates it for every id of this package.

    ## Spaces and Rewards

    Same as ``NASESEnv``, batched: actions (K, n) and observations (K, m), float32; rewards (K,), float64, or (K,
    ``reward_dim``) with several objectives. Observations are new arrays in every call. Actions outside the box are clipped.
    If an action is not finite or the shape is wrong, ``InputError`` is raised before any child is evaluated. A child whose
    evaluation fails has the reward 0, or the lowest values, and does not affect the others.

    ## Starting State

    A uniformly sampled architecture for each sub-environment. The options of ``reset``:

    | option | meaning |
    | --- | --- |
    | ``architecture`` | the starting architecture of all, or a list of K; None in the list: sampled |
    | ``fidelity`` | the rung of all sub-environments, as in ``NASESEnv``; not together with ``reset_mask`` |
    | ``reset_mask`` | a Boolean array (K,): the sub-environments to reset; the others do not change |

    ## Episode End

    ``terminations`` are always False. A sub-environment is truncated after ``max_episode_steps`` children. The next episode
    starts according to ``autoreset_mode``, as in Gymnasium's ``SyncVectorEnv``:

    - ``"NextStep"``, the default as in Gymnasium: the next step starts it, ignores the action of this sub-environment and
      returns the reward 0. So one step per ``max_episode_steps`` children resets instead of evaluating. Wrappers such
      as ``gymnasium.wrappers.vector.NormalizeObservation`` require this mode.
    - ``"SameStep"``: the same step starts it and returns the observation of the new random architecture; the reward, and
      ``final_obs`` and ``final_info`` in ``infos``, are those of the last child.
    - ``"Disabled"``: ``reset(options={"reset_mask": truncations})`` starts it, which you must call before the next step.

    ``nases_env.sb3_vec_env.SB3VecEnv`` works with all three, and no step of Stable-Baselines3 resets instead of evaluating.

    ## Information

    Same as ``NASESEnv``, in the format of Gymnasium's vector environments: an array (K,) per key, and a Boolean mask under
    the key with a leading ``_``. Values that are not reproducible are in ``last_evaluations``.

    ## Randomness

    ``reset(seed=s)`` seeds the starting architectures of sub-environment i with s + i; a list gives one seed per
    sub-environment. The seeds of the children are derived from the first of these seeds for all sub-environments. So the
    evaluation of a child depends on its architecture and that seed, not on its position in the batch, and equal
    architectures in a batch are evaluated once. With K = 1 the results equal those of ``NASESEnv``. A partial reset does not
    change the seed of the children.

    ``step`` and ``evaluate`` of the shared environment are not called: overriding them has no effect here. Override
    ``decode_batch``, ``info`` or ``reward_of`` instead.

    Args:
        env: the shared environment; it is closed with this one. If it is not started, the first step starts it with
            ``num_envs`` concurrent evaluations.
        num_envs: K, at least 1.
        max_episode_steps: number of children after which a sub-environment is truncated; None: never.
        autoreset_mode: "NextStep", "SameStep" or "Disabled"; see above. A member of ``AutoresetMode`` works as well, but
            ``spec.to_json`` requires a string.
        evaluate_all: function from the architectures of a step and their actions to evaluations in the same order; None
            submits them to the executor of the environment.

    Raises:
        InputError: if a number is not an integer or less than 1, or the autoreset mode is unknown.

    Examples:
        >>> import gymnasium, nases_env
        >>> envs = gymnasium.make_vec("NASES-Synthetic-v0", num_envs=4)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
        >>> observations.shape, rewards.shape
        ((4, 40), (4,))
        >>> envs.close()
    """

    def __init__(
        self,
        env: NASESEnv,
        num_envs: int,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        evaluate_all: EvaluateAll | None = None,
    ) -> None:
        self.env = env  # set first, so that close() works after an InputError
        self.num_envs = num_envs = to_count("num_envs", num_envs)
        self.max_episode_steps = None if max_episode_steps is None else to_count("max_episode_steps", max_episode_steps)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**env.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = env.render_mode
        self.single_action_space = env.action_space
        self.single_observation_space = env.observation_space
        self._reward_shape: tuple[int, ...] = ()
        if isinstance(env, MOEnv):
            self.reward_space = env.reward_space
            self._reward_shape = (env.reward_dim,)
        self.action_space = batch_space(env.action_space, num_envs)
        self.observation_space = batch_space(env.observation_space, num_envs)
        # Of the last step, with wall times and learning curves; None for a sub-environment that started an episode instead.
        self.last_evaluations: tuple[Evaluation | None, ...] = ()
        self._evaluate_all = self._submit_and_gather if evaluate_all is None else evaluate_all
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._num_steps = [0] * num_envs
        self._architectures: list[Architecture] = []
        self._evaluations: list[Evaluation | None] = [None] * num_envs
        self._observations = np.zeros((num_envs, env.search_space.num_decisions), np.float32)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """The current architecture of each sub-environment.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`.
        """
        self._require_reset()
        return tuple(self._architectures)

    def _require_reset(self) -> None:
        if not self._architectures:
            raise gym.error.ResetNeeded("call reset() first: the environments have no architectures yet")

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset all sub-environments, or those in ``options["reset_mask"]``; see the class docstring.

        Raises:
            InputError: if an option is unknown or not valid, there are not K seeds, or the data set is missing.
        """
        options = to_options(options)
        reset_mask = options.pop("reset_mask", None)
        mask = self._mask(reset_mask)
        starts = self._starts(options.pop("architecture", None))
        fidelity = {"fidelity": options.pop("fidelity")} if reset_mask is None and "fidelity" in options else {}
        if options:
            known = "'architecture', and 'fidelity' or 'reset_mask'"
            raise InputError(f"unknown reset option {next(iter(options))!r}; known: {known}")
        seeds = self._seeds(seed)
        if mask.all():
            super().reset(seed=seeds[0])
            self.env.reset(seed=seeds[0], options=fidelity)
            self._architectures = [self.env.architecture] * self.num_envs
        self._require_reset()
        if reset_mask is None:  # a reset with a mask follows the step that ended an episode
            self.last_evaluations = ()
        infos: dict[str, Any] = {}
        for index in np.flatnonzero(mask).tolist():
            if seeds[index] is not None:
                self._generators[index] = seeding.np_random(seeds[index])[0]
            infos = self._add_info(infos, self._start(index, starts[index]), index)
        return self._observations.copy(), infos

    def step(
        self, actions: Action
    ) -> tuple[Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Decode ``actions`` (K, n), evaluate the children and return their encodings; see the class docstring.

        Raises:
            InputError: if the actions have the wrong shape or are not finite.
            gymnasium.error.ResetNeeded: before the first ``reset``; in the mode ``DISABLED``, also if an episode has ended
                and was not reset.
        """
        self._require_reset()
        given = to_numbers("the actions", actions, self.action_space.shape)
        has_ended = np.array([num_steps == self.max_episode_steps for num_steps in self._num_steps])
        if has_ended.any() and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                f"the episode of sub-environment {has_ended.argmax()} has ended: call reset with "
                'options={"reset_mask": truncations} first'
            )
        evaluated = self._evaluate(given, ~has_ended)
        self.last_evaluations = tuple(child and child[1] for child in evaluated)
        rewards = np.zeros((self.num_envs, *self._reward_shape), np.float64)
        truncations = np.zeros(self.num_envs, np.bool_)
        infos: dict[str, Any] = {}
        for index, child in enumerate(evaluated):
            if child is None:
                infos = self._add_info(infos, self._start(index), index)
                continue
            architecture, evaluation = child
            self.env.set_current(architecture, evaluation)
            observation = self.env.search_space.encode(architecture)
            info = self.env.info(architecture, evaluation)
            rewards[index] = self.env.reward_of(evaluation)
            self._num_steps[index] += 1
            truncations[index] = self._num_steps[index] == self.max_episode_steps
            if truncations[index] and self.autoreset_mode is AutoresetMode.SAME_STEP:
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, index)
                info = self._start(index)
            else:
                self._architectures[index] = architecture
                self._evaluations[index] = evaluation
                self._observations[index] = observation
            infos = self._add_info(infos, info, index)
        return self._observations.copy(), rewards, np.zeros(self.num_envs, np.bool_), truncations, infos

    def render(self) -> tuple[Any, ...]:
        """Render each sub-environment as ``NASESEnv.render`` does: pixels, text or None."""
        frames = []
        for architecture, evaluation in zip(self.architectures, self._evaluations, strict=True):
            if evaluation is None:
                self.env.reset(options={"architecture": architecture})
            else:
                self.env.set_current(architecture, evaluation)
            frames.append(self.env.render())
        return tuple(frames)

    def close_extras(self, **kwargs: Any) -> None:
        """Cancel the evaluations in flight and stop all workers; ``close`` calls it. The next step starts new ones.

        The arguments of ``close``, such as ``timeout`` in other vector environments, have no effect.
        """
        self.env.close()

    def _evaluate(
        self, actions: NDArray[np.float64], mask: NDArray[np.bool_]
    ) -> list[tuple[Architecture, Evaluation] | None]:
        """Decode and evaluate the ``actions`` in ``mask``; None for the others."""
        if not mask.any():
            return [None] * self.num_envs
        architectures = self.env.decode_batch(actions[mask])
        children = zip(architectures, self._evaluate_all(architectures, actions[mask]), strict=True)
        return [next(children) if is_evaluated else None for is_evaluated in mask]

    def _submit_and_gather(self, architectures: list[Architecture], actions: NDArray[np.float64]) -> list[Evaluation]:
        if not self.env.is_started:
            self.env.start(max_in_flight=self.num_envs)
            self.closed = False  # otherwise, ``close`` would return at once if it was called before
        futures = [self.env.submit(architecture) for architecture in architectures]
        return [self.env.with_latency(future.result()) for future in futures]

    def _start(self, index: int, architecture: Architecture | None = None) -> dict[str, Any]:
        """Start an episode of one sub-environment and return its information."""
        start = self.env.search_space.sample(self._generators[index]) if architecture is None else architecture
        self._observations[index], info = self.env.reset(options={"architecture": start})
        self._architectures[index] = start
        self._evaluations[index] = None
        self._num_steps[index] = 0
        return info

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise InputError(
                f"reset_mask must be a Boolean array of shape ({self.num_envs},) with at least one True, not {shown(mask)}"
            )
        return mask

    def _starts(self, architecture: Any) -> list[Architecture | None]:
        given = architecture if isinstance(architecture, list) else [architecture] * self.num_envs
        if len(given) != self.num_envs:
            raise InputError(f"pass one architecture or a list of {self.num_envs}, not of {len(given)}")
        return [None if start is None else self.env.to_architecture(start) for start in given]

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, (str, bytes)):
            if len(seed) != self.num_envs:
                raise InputError(f"pass one seed or a list of {self.num_envs}, not of {len(seed)}")
            return [to_seed(single) for single in seed]
        first = to_seed(seed)
        return [None if first is None else first + index for index in range(self.num_envs)]


def vector_entry_point(env_class: Callable[..., NASESEnv]) -> Callable[..., NASESVectorEnv]:
    """Return a function with which ``gymnasium.make_vec`` creates a ``NASESVectorEnv`` of ``env_class``.

    Register a custom environment with it through a name in its module:

    ```python
    my_vector_env = vector_entry_point(MyEnv)

    gymnasium.register("My-v0", entry_point="my_module:MyEnv", vector_entry_point="my_module:my_vector_env")
    ```
    """

    def make(
        num_envs: int,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> NASESVectorEnv:
        return NASESVectorEnv(
            env_class(**kwargs), num_envs, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode
        )

    return make


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    for known in AutoresetMode:
        if mode in (known, known.value, known.name):
            return known
    names = ", ".join(repr(known.value) for known in AutoresetMode)
    raise InputError(f"unknown autoreset_mode {mode!r}; known: {names}")


accel_vector_env = vector_entry_point(AccelEnv)
image_vector_env = vector_entry_point(ImageEnv)
mo_image_vector_env = vector_entry_point(MOImageEnv)
mo_nasbench201_vector_env = vector_entry_point(MONasBench201Env)
nasbench201_vector_env = vector_entry_point(NasBench201Env)
query_vector_env = vector_entry_point(QueryEnv)
synthetic_vector_env = vector_entry_point(SyntheticEnv)
transnas_micro_vector_env = vector_entry_point(TransNASMicroEnv)
