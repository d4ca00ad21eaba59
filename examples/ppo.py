"""PPO in a single file, in the style of CleanRL, on the vector environment.

    python examples/ppo.py --env-id nases_env:NASES-Digits-v0 --num-envs 4 --num-children 96

A reward depends on the action of its step alone, so the return of a step is its reward: no discount, no bootstrapping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import gymnasium as gym
import torch
import tyro
from torch import nn
from torch.distributions import Normal


@dataclass
class Args:
    env_id: str = "nases_env:NASES-Synthetic-v0"
    num_children: int = 1000
    num_envs: int = 16
    num_steps: int = 4  # per sub-environment and update
    num_epochs: int = 8
    learning_rate: float = 3e-3
    clip_coef: float = 0.2
    std: float = 0.7  # initial standard deviation, in standard deviations of the embedding
    seed: int = 0


def train(args: Args) -> list[float]:
    """Train the policy and return the rewards of all children in the order of their evaluation."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # the networks are small
    envs = gym.make_vec(args.env_id, args.num_envs, autoreset_mode="SameStep")
    observation = torch.from_numpy(envs.reset(seed=args.seed)[0])
    num_inputs, num_actions = observation.shape[1], envs.action_space.sample().shape[1]
    output = nn.Linear(64, num_actions)
    nn.init.orthogonal_(output.weight, 0.01)
    actor = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), output)
    critic = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 1))
    log_std = nn.Parameter(torch.full((num_actions,), math.log(args.std / 3)))  # an action is an embedding divided by 3
    parameters = [*actor.parameters(), *critic.parameters(), log_std]
    optimizer = torch.optim.Adam(parameters, args.learning_rate)

    all_rewards: list[float] = []
    while len(all_rewards) < args.num_children:
        steps = []
        for _ in range(args.num_steps):
            with torch.no_grad():
                policy = Normal(actor(observation), log_std.exp())
                action = torch.normal(policy.mean, policy.stddev)
                log_prob = policy.log_prob(action).sum(1)  # type: ignore[no-untyped-call]
            next_observation, reward, *_ = envs.step(action.numpy())
            steps.append((observation, action, log_prob, torch.from_numpy(reward).float()))
            observation = torch.from_numpy(next_observation)
        observations, actions, old_log_probs, rewards = (torch.cat(values) for values in zip(*steps, strict=True))
        all_rewards += rewards.tolist()

        for _ in range(args.num_epochs):
            values = critic(observations)[:, 0]
            advantages = nn.functional.layer_norm(rewards - values.detach(), rewards.shape)
            policy = Normal(actor(observations), log_std.exp())
            ratios = (policy.log_prob(actions).sum(1) - old_log_probs).exp()  # type: ignore[no-untyped-call]
            clipped = ratios.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(ratios * advantages, clipped * advantages).mean()
            optimizer.zero_grad()
            (policy_loss + 0.5 * (values - rewards).square().mean()).backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
        print(f"{len(all_rewards)} children: mean reward {rewards.mean():.4f}, best {max(all_rewards):.4f}")
    envs.close()
    return all_rewards


if __name__ == "__main__":
    train(tyro.cli(Args))
