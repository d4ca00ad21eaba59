"""PPO of TorchRL: its environment wrapper, collector, advantage and loss.

    python examples/torchrl_collector.py --env-id nases_env:NASES-Digits-v0 --num-children 100

TorchRL cannot stack the strings of ``info``; ``info_text=False`` leaves them out. A reward depends on the action of its step
alone, so gamma is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tyro
from tensordict.nn import InteractionType, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, InitTracker, TransformedEnv
from torchrl.modules import NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


@dataclass
class Args:
    env_id: str = "nases_env:NASES-Synthetic-v0"
    num_children: int = 1024
    frames_per_batch: int = 64
    num_epochs: int = 8
    learning_rate: float = 3e-3
    seed: int = 0


def train(args: Args) -> list[float]:
    """Train the policy and return the rewards of all children in the order of their evaluation."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # the networks are small
    env = TransformedEnv(GymEnv(args.env_id, info_text=False), InitTracker())
    env.set_seed(args.seed)
    num_actions = env.action_spec.shape[-1]

    # An action is an embedding divided by 3: with a scale of 0.3, the first children are about as diverse as random ones.
    scale = NormalParamExtractor("biased_softplus_0.3")
    output = nn.Linear(64, 2 * num_actions)
    nn.init.orthogonal_(output.weight, 0.01)
    policy_network = nn.Sequential(nn.LazyLinear(64), nn.Tanh(), output, scale)
    policy = ProbabilisticActor(
        TensorDictModule(policy_network, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,  # its samples are in (-1, 1), the action space
        return_log_prob=True,
        default_interaction_type=InteractionType.RANDOM,
    )
    value = ValueOperator(nn.Sequential(nn.LazyLinear(64), nn.Tanh(), nn.Linear(64, 1)), in_keys=["observation"])
    policy(env.reset())  # initializes the lazy layers
    value(env.reset())

    advantage = GAE(gamma=0.0, lmbda=0.0, value_network=value, average_gae=True)
    loss_module = ClipPPOLoss(policy, value, entropy_bonus=False)
    optimizer = torch.optim.Adam(loss_module.parameters(), args.learning_rate)
    collector = Collector(env, policy, frames_per_batch=args.frames_per_batch, total_frames=args.num_children)

    rewards: list[float] = []
    for batch in collector:
        rewards += batch["next", "reward"].flatten().tolist()
        for _ in range(args.num_epochs):
            advantage(batch)
            losses = loss_module(batch.reshape(-1))
            optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"]).backward()
            nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
            optimizer.step()
        print(f"{len(rewards)} children: mean reward {batch['next', 'reward'].mean():.4f}, best {max(rewards):.4f}")
    collector.shutdown()
    return rewards


if __name__ == "__main__":
    train(tyro.cli(Args))
