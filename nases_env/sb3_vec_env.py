"""Adapter from Gymnasium's vector environments to Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import iterate
from gymnasium.wrappers.vector import DictInfoToList
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from nases_env.envs import NASESVectorEnv
from nases_env.errors import InputError


class SB3VecEnv(VecEnv):
    """Wrap a Gymnasium vector environment as a ``VecEnv`` of Stable-Baselines3; it behaves like ``DummyVecEnv``.

    Attributes and methods are taken from the sub-environments if the vector environment exposes them, as Gymnasium's do;
    otherwise from the vector environment, with the same value for every index. ``set_options`` takes one dict, which is
    passed to ``reset`` of the vector environment unchanged. Wrap it in ``VecMonitor`` for SB3's episode statistics.

    SB3 requires that the step that ends an episode starts the next one. The autoreset mode ``SAME_STEP`` does so. In the
    modes ``NEXT_STEP`` and ``DISABLED``, this class resets the sub-environments whose episodes ended with
    ``options={"reset_mask": dones}`` in the same step. The transitions are identical in the three modes.
    Of several objectives, the first one is the reward.

    Args:
        env: ``NASESVectorEnv``, ``SyncVectorEnv`` or ``AsyncVectorEnv`` in any autoreset mode, or any other vector
            environment in the mode ``SAME_STEP``. Closing this environment closes it.

    Raises:
        InputError: if ``env`` cannot reset single sub-environments: other vector environments in the modes ``NEXT_STEP`` and
            ``DISABLED``, and ``AsyncVectorEnv`` without shared memory in the mode ``NEXT_STEP``.

    Examples:
        >>> import gymnasium, nases_env
        >>> from stable_baselines3 import PPO
        >>> from nases_env.sb3_vec_env import SB3VecEnv
        >>> env = SB3VecEnv(gymnasium.make_vec("NASES-Synthetic-v0", num_envs=4))
        >>> model = PPO("MlpPolicy", env, n_steps=2, batch_size=8).learn(8)
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        self._resets_in_step = mode is AutoresetMode.SAME_STEP
        if not self._resets_in_step and not _can_reset_single(env, mode):
            raise InputError(
                f"{type(env.unwrapped).__name__} with the autoreset mode {mode} cannot reset single sub-environments, as "
                'Stable-Baselines3 requires; pass vectorization_mode="sync" to make_vec, or use the autoreset mode '
                f"{AutoresetMode.SAME_STEP}"
            )
        self.env = env
        self._with_lists = DictInfoToList(env)
        self._actions: NDArray[Any] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all sub-environments with the values of ``seed`` and ``set_options``, and return their observations.

        Raises:
            InputError: if the options differ between the sub-environments.
        """
        # Gymnasium and SB3 both derive consecutive seeds from one. ``set_options`` with one dict repeats the same object.
        if any(options is not self._options[0] for options in self._options) and any(self._options):
            raise InputError("pass one dict for all sub-environments to set_options")
        observations, infos = self._with_lists.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = [_plain(info) for info in infos]
        self._reset_seeds()
        self._reset_options()
        return cast(VecEnvObs, observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Set the actions of the next ``step_wait``, shape (num_envs, n)."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all sub-environments; return observations, rewards, dones and one info per sub-environment."""
        observations, rewards, terminations, truncations, vector_infos = self._with_lists.step(self._actions)
        dones = np.logical_or(terminations, truncations)
        only_truncated = np.logical_and(truncations, np.logical_not(terminations))
        if dones.any() and not self._resets_in_step:
            final_observations = list(iterate(self.env.observation_space, deepcopy(observations)))
            observations, reset_infos = self._with_lists.reset(options={"reset_mask": dones})
            for index in np.flatnonzero(dones).tolist():  # the format of SAME_STEP
                final = {"final_info": vector_infos[index], "final_obs": final_observations[index]}
                vector_infos[index] = {**reset_infos[index], **final}
        infos = []
        for index, info in enumerate(vector_infos):
            if dones[index]:
                final = {**info.pop("final_info"), "terminal_observation": info.pop("final_obs")}
                if "episode" in info:  # of Gymnasium's RecordEpisodeStatistics in the mode SAME_STEP
                    final["episode"] = info.pop("episode")
                self.reset_infos[index] = _plain(info)
                info = final
            infos.append({**_plain(info), "TimeLimit.truncated": bool(only_truncated[index])})
        of_each = np.array(rewards, np.float32).reshape(self.num_envs, -1)[:, 0]  # the first objective
        return observations, of_each, dones, infos

    def close(self) -> None:
        """Close the vector environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Render all sub-environments."""
        return cast("Sequence[NDArray[Any] | None]", self.env.render())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute ``attr_name`` of the sub-environments ``indices``; None means all."""
        base = self.env.unwrapped
        values = base.get_attr(attr_name) if hasattr(base, "get_attr") else [getattr(base, attr_name)] * self.num_envs
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute ``attr_name`` of all sub-environments to ``value``.

        Raises:
            InputError: if ``indices`` are not all sub-environments.
        """
        self._require_all(indices)
        base = self.env.unwrapped
        if hasattr(base, "set_attr"):
            base.set_attr(attr_name, [value] * self.num_envs)
        else:
            setattr(base, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the method ``method_name`` of all sub-environments; a method of the vector environment is called once.

        Raises:
            InputError: if ``indices`` are not all sub-environments.
        """
        self._require_all(indices)
        base = self.env.unwrapped
        if hasattr(base, "call"):
            return list(base.call(method_name, *method_args, **method_kwargs))
        return [getattr(base, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return whether each sub-environment is wrapped by ``wrapper_class``; False if it has no object in this process."""
        envs = getattr(self.env.unwrapped, "envs", [None] * self.num_envs)
        return [is_wrapped(envs[index], wrapper_class) for index in self._get_indices(indices)]

    def _require_all(self, indices: VecEnvIndices) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise InputError("a vector environment cannot address single sub-environments; omit indices")


def _can_reset_single(env: VectorEnv[Any, Any, Any], mode: AutoresetMode | None) -> bool:
    """Return whether ``reset`` of ``env`` supports ``reset_mask`` and clears the autoreset of the next step."""
    base = env.unwrapped
    if isinstance(base, AsyncVectorEnv) and not base.shared_memory:
        return mode is AutoresetMode.DISABLED  # Gymnasium clears the autoreset only with shared memory
    return isinstance(mode, AutoresetMode) and isinstance(base, (NASESVectorEnv, SyncVectorEnv, AsyncVectorEnv))


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``info`` with Python numbers instead of NumPy scalars, as in single environments."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
