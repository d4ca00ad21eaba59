"""REINFORCE in the embedding space (C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1, lines 3 to 11).

    python agents/reinforce.py --env-id NASES-CIFAR10-v0 --budget 100

The controller g_k is the pretrained simulator, fine-tuned by policy gradient (Williams, 1992). It reads a child's architecture
vector and gives the mean of a Gaussian in the standardised embedding space; the next child is decoded from a sample of it. The
paper leaves open how the controller explores, what its baseline is and which child it reads; what this file does about each is
an option, and says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from nases_env.commands import run_command
from nases_env.embedding import Embedding
from nases_env.env import ACTION_SCALE
from nases_env.errors import InputError
from nases_env.search import Search, SearchArgs
from nases_env.seeding import derive_seed, numpy_generator, torch_generator


@dataclass
class Args(SearchArgs):
    """REINFORCE's options; the lengths are in standard deviations of the embedding."""

    init: Literal["simulator", "random"] = "simulator"
    """The controller's first weights: the simulator's, as in the paper, or random ones, for its comparison."""
    reads: Literal["tournament", "last"] = "tournament"
    """The child that the controller reads. last: the one just evaluated, as in Algorithm 1. tournament: the best of a few
    drawn among recent ones, so that the simulator's weights, which give a child's own embedding back, search near good children."""
    tournament_size: int = 4
    """Children drawn for a tournament."""
    tournament_window: int = 20
    """Recent children that they are drawn among."""
    sigma: float = 0.7
    """Exploration width at the start: the standard deviation of the Gaussian policy."""
    learn_sigma: bool = True
    """Learn one width a dimension along with the mean."""
    min_sigma: float = 0.3
    """The width never learns its way below this, lest the search ends on one child."""
    batch_size: int = 5
    """Children between two updates."""
    num_replayed: int = 10
    """Earlier children that an update learns from once more, drawn at random, as the paper's released code does; 0 is off."""
    num_gradient_steps: int = 4
    """Gradient steps of an update."""
    clip_ratio: float = 0.2
    """How far a step may move the probability of a child, as in PPO; what is replayed was drawn by an older policy."""
    learning_rate: float = 1e-3
    """Adam's."""
    reward: Literal["valid", "gap"] = "valid"
    """valid: the validation accuracy. gap: (valid - (train - valid))^3, as the paper's released code has it."""
    advantage: Literal["rank", "history", "baseline"] = "rank"
    """rank: the reward's rank among all so far, scaled to deviation 1, so that no outlier rules. history: the reward minus the
    mean of all so far, over their deviation, as the released code. baseline: the reward minus a moving average."""
    baseline_decay: float = 0.9
    """Of the moving average, a child."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy in the loss."""
    anchor_coefficient: float = 0.01
    """Weight of the squared distance of the controller's output from where it began, a dimension."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""


class Transition(NamedTuple):
    """One child as the agent remembers it."""

    state: Tensor  # (m,), what the controller read
    embedding: Tensor  # (n,), what was sampled
    log_prob: float  # of that, when it was sampled
    observation: Tensor  # (m,), the child itself
    reward: float


class Reinforce:
    """The agent: ``ask`` for an action, ``tell`` what came of it.

    Args:
        embedding: its simulator becomes the controller.
        args: the options.
    """

    def __init__(self, embedding: Embedding, args: Args) -> None:
        for option in ("batch_size", "num_gradient_steps", "tournament_size", "tournament_window"):
            if getattr(args, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(args, option)}")
        for option in ("sigma", "min_sigma", "learning_rate"):
            if not 0 < getattr(args, option) < math.inf:
                raise InputError(f"--{option.replace('_', '-')} must be a positive number, not {getattr(args, option)}")
        self.args = args
        self.controller = embedding.controller(args.init, seed=derive_seed(args.seed, "controller"))
        self.origin = embedding.controller(args.init, seed=derive_seed(args.seed, "controller")).requires_grad_(False)
        self.log_sigma = nn.Parameter(torch.full((embedding.embedding_size,), math.log(args.sigma)), args.learn_sigma)
        self.optimizer = torch.optim.Adam([*self.controller.parameters(), self.log_sigma], lr=args.learning_rate)
        self.noise = torch_generator(args.seed, "reinforce", "exploration")
        self.rng = numpy_generator(args.seed, "reinforce", "choices")
        self.history: list[Transition] = []
        self.baseline = 0.0
        self._asked: tuple[Tensor, Tensor, float] | None = None

    def policy(self, states: Tensor) -> Independent:
        """The Gaussian over embeddings (B, n) for the children (B, m) that the controller reads."""
        return Independent(Normal(self.controller(states), self.log_sigma.exp()), 1)

    def ask(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next action, shape (n,), after ``observation``, shape (m,), the child just evaluated."""
        state = self._choose_state(torch.from_numpy(observation))
        with torch.no_grad():
            policy = self.policy(state[None])
            noise = torch.randn(policy.mean.shape, generator=self.noise)
            embedding = policy.mean + policy.stddev * noise
            self._asked = (state, embedding[0], float(policy.log_prob(embedding)))
        action: NDArray[np.float32] = (embedding[0] / ACTION_SCALE).clamp(-1.0, 1.0).numpy()
        return action

    def tell(self, observation: NDArray[np.float32], info: dict[str, Any]) -> dict[str, float]:
        """Remembers the child that the last action gave, and learns once a batch is full.

        Args:
            observation: the child, shape (m,).
            info: the environment's, with its accuracies.

        Returns:
            What to log of the update; empty between updates.
        """
        assert self._asked is not None, "ask before tell"
        valid, train = info["valid_accuracy"], info["train_accuracy"]
        reward = valid if self.args.reward == "valid" else (valid - (train - valid)) ** 3
        self.history.append(Transition(*self._asked, torch.from_numpy(observation), reward))
        self._asked = None
        if len(self.history) % self.args.batch_size:
            return {}
        return self._update()

    def _choose_state(self, last: Tensor) -> Tensor:
        if self.args.reads == "last" or not self.history:
            return last
        recent = self.history[-self.args.tournament_window :]
        entrants = self.rng.integers(len(recent), size=self.args.tournament_size)
        return max((recent[index] for index in entrants), key=lambda transition: transition.reward).observation

    def _advantages(self) -> Tensor:
        """Of all children so far, by the rewards so far, shape (children,)."""
        rewards = torch.tensor([transition.reward for transition in self.history], dtype=torch.float64)
        if self.args.advantage == "rank":
            ranks = (rewards[:, None] > rewards).sum(1) + 0.5 * ((rewards[:, None] == rewards).sum(1) - 1)
            advantages = (ranks / max(1, len(rewards) - 1) - 0.5) * math.sqrt(12)
        elif self.args.advantage == "history":
            advantages = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)
        else:
            new = rewards[-self.args.batch_size :]
            if len(rewards) == len(new):
                self.baseline = float(new.mean())
            advantages = rewards - self.baseline
            for reward in new.tolist():
                self.baseline += (1 - self.args.baseline_decay) * (reward - self.baseline)
        return advantages.float()

    def _update(self) -> dict[str, float]:
        args, advantages = self.args, self._advantages()
        new = np.arange(len(self.history) - args.batch_size, len(self.history))
        logged: dict[str, float] = {}
        for _ in range(args.num_gradient_steps):
            chosen = np.concatenate([new, self.rng.integers(len(self.history), size=args.num_replayed)])
            batch = [self.history[index] for index in chosen]
            states = torch.stack([transition.state for transition in batch])
            embeddings = torch.stack([transition.embedding for transition in batch])
            old_log_probs = torch.tensor([transition.log_prob for transition in batch])
            advantage = advantages[torch.from_numpy(chosen)]

            policy = self.policy(states)
            ratio = (policy.log_prob(embeddings) - old_log_probs).exp()
            clipped = ratio.clamp(1 - args.clip_ratio, 1 + args.clip_ratio)
            policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            entropy = policy.entropy().mean()
            anchor = (policy.mean - self.origin(states)).square().mean()
            loss = policy_loss - args.entropy_coefficient * entropy + args.anchor_coefficient * anchor
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_([*self.controller.parameters(), self.log_sigma], args.max_grad_norm)
            self.optimizer.step()
            with torch.no_grad():
                self.log_sigma.clamp_(min=math.log(args.min_sigma))
            logged = {
                "policy/loss": policy_loss.item(),
                "policy/entropy": entropy.item(),
                "policy/sigma": self.log_sigma.exp().mean().item(),
                "policy/distance_from_simulator": math.sqrt(anchor.item()),
                "policy/gradient_norm": norm.item(),
            }
        return logged


def main(args: Args) -> None:
    """Search with REINFORCE in the embedding space."""
    with Search(args, agent="reinforce") as search:
        agent = Reinforce(search.nases.embedding, args)
        observation = search.first_observation
        while not search.done:
            observation, _, _, _, info = search.step(agent.ask(observation))
            search.log(agent.tell(observation, info))


if __name__ == "__main__":
    run_command(Args, main)
