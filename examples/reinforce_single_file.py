"""REINFORCE in the embedding space as a single loop over ``env.step``: lines 3 to 11 of Algorithm 1 in the NASES paper.

Run ``python examples/reinforce_single_file.py --env-id NASES-Digits-v0 --num-children 40 --env-kwargs preset cpu``. The
paper does not state the standard deviation and the learning rate; with the defaults, the agent learns within 200 children.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import torch
import tyro
from torch.distributions import Normal
from torch.utils.tensorboard import SummaryWriter

from nases_env.envs import ACTION_SCALE, NASESEnv


@dataclass
class Args:
    """REINFORCE in the embedding space, Algorithm 1 of the NASES paper, in a single file."""

    env_id: str = "NASES-Synthetic-v0"
    """ID of the environment."""
    env_kwargs: dict[str, int | float | str] = field(default_factory=dict)
    """Keyword arguments of the environment as NAME VALUE pairs, such as preset cpu num_epochs 1."""
    num_children: int = 200
    """Number of children to evaluate."""
    std: float = 0.9
    """Standard deviation of the policy, in standard deviations of the embedding."""
    learning_rate: float = 6e-3
    """Learning rate of Adam."""
    baseline_decay: float = 0.9
    """Decay of the moving average of the rewards, which is the baseline."""
    seed: int = 0
    """Seed of the environment and of the policy."""
    log_dir: Path | None = None
    """Directory of the TensorBoard log. Default: no log."""


def search(args: Args) -> tuple[list[float], str]:
    """Run the search; return the rewards of all children and the genotype of the best one."""
    torch.manual_seed(args.seed)
    env_kwargs: dict[str, Any] = {"max_episode_steps": args.num_children, **args.env_kwargs}
    env = gym.make(args.env_id, **env_kwargs)
    writer = None if args.log_dir is None else SummaryWriter(str(args.log_dir))

    # Line 3: the controller starts with the weights of the pretrained simulator.
    controller = cast(NASESEnv, env.unwrapped).embedding.controller()
    optimizer = torch.optim.Adam(controller.parameters(), lr=args.learning_rate)

    rewards: list[float] = []
    best_genotype = ""
    baseline: float | None = None
    observation, _ = env.reset(seed=args.seed)
    for child in range(args.num_children):  # line 4
        # Line 9: the controller maps the current architecture to an embedding. A Gaussian policy around it explores.
        policy = Normal(controller(torch.from_numpy(observation)[None])[0], args.std)
        embedding = policy.sample()  # type: ignore[no-untyped-call]

        # Lines 10, 5, 6 and 7: the environment decodes the embedding, trains the child, and returns its accuracy.
        action = (embedding / ACTION_SCALE).clamp(-1, 1).numpy()
        observation, accuracy, _, _, info = env.step(action)
        reward = float(accuracy)

        # Line 8: one policy-gradient step; the baseline is a moving average of the rewards.
        baseline = reward if baseline is None else baseline
        log_prob = policy.log_prob(embedding).sum()  # type: ignore[no-untyped-call]
        loss = -(reward - baseline) * log_prob
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        baseline = args.baseline_decay * baseline + (1 - args.baseline_decay) * reward

        if reward > max(rewards, default=-1.0):
            best_genotype = info["genotype"]
        rewards.append(reward)
        print(f"child {child + 1}: reward {reward:.4f}, baseline {baseline:.4f}, best {max(rewards):.4f}")
        if writer is not None:
            writer.add_scalar("search/reward", reward, child + 1)
            writer.add_scalar("update/policy/baseline", baseline, child + 1)

    if writer is not None:
        writer.close()
    env.close()
    return rewards, best_genotype


if __name__ == "__main__":
    all_rewards, genotype = search(tyro.cli(Args))
    print(f"best reward: {max(all_rewards):.4f}\nbest genotype: {genotype}")
