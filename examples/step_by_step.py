"""Tutorial: evaluate three random actions in an environment and print observation, reward and info.

Run ``python examples/step_by_step.py``.
"""

from __future__ import annotations

import gymnasium

import nases_env

gymnasium.register_envs(nases_env)


def main() -> None:
    """Evaluate three random actions and print their results."""
    env = gymnasium.make("NASES-Digits-v0", preset="cpu", render_mode="ansi")
    observation, info = env.reset(seed=0)
    print(f"observation: architecture encoded as {observation.shape[0]} numbers in [0, 1]; key {info['key']}")

    env.action_space.seed(0)
    for _ in range(3):
        action = env.action_space.sample()  # a point in the embedding space, in units of 3 standard deviations
        observation, reward, _, _, info = env.step(action)
        print(f"reward {reward:.4f}: {info['num_params']:,} parameters, status {info['status']}")

    print(env.render())
    env.close()


if __name__ == "__main__":
    main()
