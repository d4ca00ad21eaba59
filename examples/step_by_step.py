"""One episode by hand: what an action, an observation, a reward and the information are.

python examples/step_by_step.py
"""

from __future__ import annotations

import gymnasium

import nases_env  # noqa: F401 - registers the environments


def main() -> None:
    env = gymnasium.make("NASES-Digits-v0", preset="cpu", render_mode="ansi")
    observation, info = env.reset(seed=0)
    print(f"an architecture is {observation.shape[0]} numbers in [0, 1]; the first one is {info['key']}")

    env.action_space.seed(0)
    for _ in range(3):
        action = env.action_space.sample()  # an architecture embedding, in units of three standard deviations
        observation, reward, _, _, info = env.step(action)
        print(f"reward {reward:.4f}: {info['num_params']:,} parameters, {info['status']}")

    print(env.render())
    env.close()


if __name__ == "__main__":
    main()
