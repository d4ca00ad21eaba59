"""Gymnasium's vector environments as Stable-Baselines3 takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from nases_env.errors import InputError


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment as a `VecEnv` of Stable-Baselines3, which behaves as `DummyVecEnv` over the same ones.

    ```python
    model = PPO("MlpPolicy", SB3VecEnv(gymnasium.make_vec("NASES-Synthetic-v0", num_envs=4)))
    ```

    Attributes and methods are those of the sub-environments where the vector environment gives access to them, as those of
    Gymnasium do, and else those of the vector environment itself, the same for every index. `set_options` takes one dict,
    which goes to the vector environment's `reset` as it is. Wrap it in `VecMonitor` for SB3's statistics of episodes.

    Args:
        env: a vector environment that resets a sub-environment within the step that ends its episode, as `NASESVectorEnv`
            does; it is closed with this one.

    Raises:
        InputError: if it resets at another time.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise InputError(
                f"Stable-Baselines3 takes vector environments with {AutoresetMode.SAME_STEP}, not {mode}; "
                'give make_vec vector_kwargs={"autoreset_mode": "SameStep"}'
            )
        self.env = env
        self._with_lists = DictInfoToList(env)
        self._actions: NDArray[Any] | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        # Gymnasium counts on from one seed as SB3 does. Options that were set for all are one object.
        if any(options is not self._options[0] for options in self._options) and any(self._options):
            raise InputError("give set_options one dict for all sub-environments")
        observations, infos = self._with_lists.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = [_plain(info) for info in infos]
        self._reset_seeds()
        self._reset_options()
        return cast(VecEnvObs, observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminations, truncations, given = self._with_lists.step(self._actions)
        dones = np.logical_or(terminations, truncations)
        infos = []
        for index, info in enumerate(given):
            if dones[index]:
                final = {**info.pop("final_info"), "terminal_observation": info.pop("final_obs")}
                self.reset_infos[index] = _plain(info)
                info = final
            infos.append({**_plain(info), "TimeLimit.truncated": bool(truncations[index] and not terminations[index])})
        return observations, np.array(rewards, np.float32), dones, infos

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        return cast("Sequence[NDArray[Any] | None]", self.env.render())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        base = self.env.unwrapped
        values = base.get_attr(attr_name) if hasattr(base, "get_attr") else [getattr(base, attr_name)] * self.num_envs
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raises ``InputError`` unless for all sub-environments."""
        self._refuse_some(indices)
        base = self.env.unwrapped
        if hasattr(base, "set_attr"):
            base.set_attr(attr_name, [value] * self.num_envs)
        else:
            setattr(base, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Raises ``InputError`` unless for all sub-environments. The vector environment's own method is called once."""
        self._refuse_some(indices)
        base = self.env.unwrapped
        if hasattr(base, "call"):
            return list(base.call(method_name, *method_args, **method_kwargs))
        return [getattr(base, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """False where there are no single environments in this process that could be."""
        envs = getattr(self.env.unwrapped, "envs", [None] * self.num_envs)
        return [is_wrapped(envs[index], wrapper_class) for index in self._get_indices(indices)]

    def _refuse_some(self, indices: VecEnvIndices) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise InputError("a vector environment is asked as a whole; leave indices out")


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """A copy with Python's numbers in place of NumPy's, as single environments give them."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
