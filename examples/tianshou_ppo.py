"""PPO of Tianshou: its vector environment, collector, policy and algorithm.

    python examples/tianshou_ppo.py --env-id nases_env:NASES-Digits-v0 --num-children 100

A reward depends on the action of its step alone, so gamma is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
import tyro
from tianshou.algorithm.modelfree.ppo import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch.distributions import Distribution, Independent, Normal


@dataclass
class Args:
    env_id: str = "nases_env:NASES-Synthetic-v0"
    num_children: int = 1024
    num_envs: int = 8
    children_per_update: int = 64
    num_epochs: int = 8
    learning_rate: float = 3e-3
    seed: int = 0


def normal(parameters: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
    """Return the distribution of actions with this mean and standard deviation."""
    return Independent(Normal(*parameters), 1)


def train(args: Args) -> list[float]:
    """Train the policy and return the rewards of all children."""
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002 - Tianshou draws its minibatches from this generator
    envs = DummyVectorEnv([lambda: gymnasium.make(args.env_id)] * args.num_envs)
    envs.seed(args.seed)
    observations, actions = envs.observation_space[0], envs.action_space[0]

    def network() -> Net:
        return Net(state_shape=observations.shape, hidden_sizes=(64,), activation=torch.nn.Tanh)

    actor = ContinuousActorProbabilistic(preprocess_net=network(), action_shape=actions.shape, unbounded=True)
    torch.nn.init.orthogonal_(actor.mu.get_parameter("model.0.weight"), 0.01)
    # An action is an embedding divided by 3: with this deviation, the first children are about as diverse as random ones.
    torch.nn.init.constant_(actor.sigma_param, math.log(0.3))
    policy = ProbabilisticActorPolicy(actor=actor, dist_fn=normal, action_space=actions, action_scaling=False)
    critic = ContinuousCritic(preprocess_net=network())
    adam = AdamOptimizerFactory(lr=args.learning_rate)
    algorithm = PPO(policy=policy, critic=critic, optim=adam, gamma=0.0, gae_lambda=0.0)
    buffer = VectorReplayBuffer(args.children_per_update, args.num_envs)
    collector: Collector[CollectStats] = Collector(algorithm, envs, buffer)
    collector.reset()
    rewards: list[float] = []
    with policy_within_training_step(policy):
        while len(rewards) < args.num_children:
            collector.reset_buffer()
            collector.collect(n_step=args.children_per_update)
            rewards += buffer.rew.tolist()
            algorithm.update(buffer=buffer, batch_size=args.children_per_update, repeat=args.num_epochs)
            mean = np.mean(rewards[-args.children_per_update :])
            print(f"{len(rewards)} children: mean reward {mean:.4f}, best {max(rewards):.4f}")
    return rewards


if __name__ == "__main__":
    train(tyro.cli(Args))
