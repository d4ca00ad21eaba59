"""REINFORCE in the embedding space (C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1, lines 3 to 11).

    python agents/reinforce.py --env-id NASES-CIFAR10-v0 --budget 100

The controller g_k is the pretrained simulator, fine-tuned by policy gradient (Williams, 1992). It reads a child's
architecture vector and gives the mean of a Gaussian in the standardised embedding space; the next child is decoded from a
sample of it. The paper leaves open how the controller explores, what its baseline is and which child it reads. What this
file does about each is an option that says why; Algorithm 1 as it stands is

    --reads last --no-unseen --num-warmup 0 --advantage baseline --num-samples 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nases_env.commands import run_command
from nases_env.env import ACTION_SCALE, NASESEnv
from nases_env.errors import InputError
from nases_env.search import Search, SearchArgs
from nases_env.search_spaces import Architecture
from nases_env.seeding import derive_seed, numpy_generator, torch_generator

NUM_TRIES = 20  # samples that are drawn to find a child that is new
WIDENING = 1.05  # of the exploration width, a try
MAX_LOG_RATIO = 5.0  # of new and old probability; beyond, a ratio says nothing but that the policies are far apart


@dataclass
class Args(SearchArgs):
    """REINFORCE's options. Lengths are in standard deviations of the embedding."""

    init: Literal["simulator", "random"] = "simulator"
    """The controller's first weights: the simulator's, as in the paper, or random ones, for its comparison."""
    reads: Literal["elite", "last"] = "elite"
    """The child that the controller reads. last: the one just evaluated, as in Algorithm 1. elite: a good one, since the
    simulator's weights give back a child's own embedding, so that the search begins near what it reads."""
    elite_decay: float = 0.5
    """elite: each child in the ranking is so much less likely to be read than the next better one."""
    num_mutations: int = 1
    """elite: decisions of the child that are redrawn before the controller reads it. It explores single decisions, which
    noise in the embedding cannot do: there every decision moves a little."""
    unseen: bool = True
    """Draw again, ever wider, while the child is one that was evaluated before: a child that is known teaches nothing."""
    residual: bool = True
    """elite: add what the simulator misses of the embedding that the child was decoded from. The pretrained simulator gives
    back an embedding that decodes to a neighbour of the child; with its error made good, the search begins at the child."""
    num_warmup: int = 10
    """Children from standard-normal embeddings before the controller acts."""
    sigma: float = 0.1
    """Exploration width: the standard deviation of the Gaussian policy."""
    learn_sigma: bool = False
    """Learn one width a dimension along with the mean."""
    batch_size: int = 10
    """Children between two updates."""
    num_samples: int = 16
    """Children that a gradient step learns from, drawn among all so far: replay, as in the paper's released code. 0: those
    of the batch."""
    num_gradient_steps: int = 4
    """Gradient steps of an update."""
    clip_ratio: float = 0.2
    """How far a step may move the probability of a child, as in PPO: what is replayed was drawn by an older policy."""
    learning_rate: float = 3e-4
    """Adam's."""
    reward: Literal["valid", "gap"] = "valid"
    """valid: the validation accuracy. gap: (valid - (train - valid))^3, as the paper's released code has it."""
    advantage: Literal["rank", "history", "baseline"] = "rank"
    """rank: the normal score of the reward's rank among all so far, so that no outlier rules. history: the reward minus the
    mean of all so far, over their deviation, as the released code. baseline: the reward minus a moving average."""
    baseline_decay: float = 0.9
    """baseline: of the moving average, a child."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy in the objective; it matters where the width is learned."""
    anchor_coefficient: float = 0.03
    """Weight of the squared distance of the controller's outputs from what its first weights say, lest it collapses."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""

    def __post_init__(self) -> None:
        at_least = {"num_mutations": 0, "num_warmup": 0, "batch_size": 1, "num_samples": 0, "num_gradient_steps": 1}
        for option, least in at_least.items():
            if getattr(self, option) < least:
                raise InputError(f"--{option.replace('_', '-')} must be at least {least}, not {getattr(self, option)}")
        for option in ("sigma", "learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, option) < math.inf:
                raise InputError(f"--{option.replace('_', '-')} must be a positive number, not {getattr(self, option)}")
        for option in ("elite_decay", "baseline_decay"):
            if not 0 <= getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must lie in [0, 1), not {getattr(self, option)}")


class Transition(NamedTuple):
    """One child as the agent remembers it."""

    state: Tensor  # (m,), what the controller read
    offset: Tensor  # (n,), what was added to what the controller said
    embedding: Tensor  # (n,), what was sampled
    log_prob: float  # of that, when it was sampled
    child: Architecture
    reward: float


class Reinforce:
    """The agent: ``ask`` for an action, ``tell`` what came of it.

    Args:
        env: gives the embedding, whose simulator becomes the controller, and decodes.
        args: the options; its seed is the seed of everything random here.
    """

    def __init__(self, env: NASESEnv, args: Args) -> None:
        self.env = env
        self.args = args
        seed = derive_seed(args.seed, "reinforce", "controller")
        self.controller = env.embedding.controller(args.init, seed)
        self.origin = env.embedding.controller(args.init, seed).requires_grad_(False)
        self.log_sigma = nn.Parameter(torch.full((env.embedding.embedding_size,), math.log(args.sigma)), args.learn_sigma)
        self.parameters = [*self.controller.parameters(), self.log_sigma]
        self.optimizer = torch.optim.Adam(self.parameters, lr=args.learning_rate)
        self.noise = torch_generator(args.seed, "reinforce", "exploration")
        self.rng = numpy_generator(args.seed, "reinforce", "choices")
        self.history: list[Transition] = []
        self.seen: set[str] = set()
        self.baseline: float | None = None
        self._asked: tuple[Tensor, Tensor, Tensor, float] | None = None

    @torch.no_grad()
    def ask(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next action, shape (n,), after ``observation``, shape (m,), the child just evaluated."""
        state, offset = self._choose_state(observation)
        warming_up = len(self.history) < self.args.num_warmup
        mean, width = self.controller(state[None])[0] + offset, self.log_sigma.exp()
        for attempt in range(NUM_TRIES):
            noise = torch.randn(mean.shape, generator=self.noise)
            embedding = noise if warming_up else mean + WIDENING**attempt * width * noise
            embedding = embedding.clamp(-ACTION_SCALE, ACTION_SCALE)
            action: NDArray[np.float32] = (embedding / ACTION_SCALE).numpy()
            if not self.args.unseen or self.env.decode(action).key not in self.seen:
                break
        self._asked = (state, offset, embedding, self._log_prob(mean, embedding).item())
        return action

    def tell(self, observation: NDArray[np.float32], info: dict[str, Any]) -> dict[str, float]:
        """Remembers the child that the last action gave, and learns once a batch is full.

        Args:
            observation: the child, shape (m,).
            info: the environment's, with the child's key and accuracies.

        Returns:
            What to log of the update; empty between updates.
        """
        assert self._asked is not None, "ask before tell"
        valid, train = info["valid_accuracy"], info["train_accuracy"]
        reward = valid if self.args.reward == "valid" else (valid - (train - valid)) ** 3
        self.history.append(Transition(*self._asked, self.env.search_space.decode(observation), reward))
        self.seen.add(info["key"])
        self._asked = None
        return {} if len(self.history) % self.args.batch_size else self._update()

    def _choose_state(self, last: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """The architecture vector (m,) that the controller reads next, and the offset (n,) to add to what it says."""
        if self.args.reads == "last" or not self.history:
            return torch.from_numpy(last), torch.zeros_like(self.log_sigma)
        ranking = sorted(self.history, key=lambda transition: -transition.reward)
        rank = min(int(self.rng.geometric(1 - self.args.elite_decay)), len(ranking)) - 1
        child = ranking[rank].child
        offset = torch.zeros_like(self.log_sigma)
        if self.args.residual:
            vector = torch.from_numpy(self.env.search_space.encode(child))
            offset = ranking[rank].embedding - self.origin(vector[None])[0]
        for _ in range(self.args.num_mutations):
            child = self.env.search_space.mutate(child, self.rng)
        return torch.from_numpy(self.env.search_space.encode(child)), offset

    def _log_prob(self, means: Tensor, embeddings: Tensor) -> Tensor:
        """The log-density of embeddings (…, n) under the Gaussian policy with these means, up to a constant; shape (…)."""
        squares = ((embeddings - means) / self.log_sigma.exp()).square()
        log_prob: Tensor = -(0.5 * squares + self.log_sigma).sum(-1)
        return log_prob

    def _advantages(self) -> Tensor:
        """Of all children so far, by the rewards so far, shape (children,)."""
        rewards = torch.tensor([transition.reward for transition in self.history], dtype=torch.float64)
        if self.args.advantage == "rank":
            below = (rewards[:, None] > rewards).sum(1) + 0.5 * (rewards[:, None] == rewards).sum(1)
            scores: Tensor = torch.special.ndtri(below / len(rewards))
            return scores.float()
        if self.args.advantage == "history":
            return ((rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)).float()
        new = rewards[-self.args.batch_size :]
        baseline = float(new.mean()) if self.baseline is None else self.baseline
        self.baseline = baseline
        for reward in new.tolist():
            self.baseline += (1 - self.args.baseline_decay) * (reward - self.baseline)
        return (rewards - baseline).float()

    def _update(self) -> dict[str, float]:
        args, advantages = self.args, self._advantages()
        all_states = torch.stack([transition.state for transition in self.history])
        all_offsets = torch.stack([transition.offset for transition in self.history])
        all_embeddings = torch.stack([transition.embedding for transition in self.history])
        all_log_probs = torch.tensor([transition.log_prob for transition in self.history])
        for _ in range(args.num_gradient_steps):
            if args.num_samples:
                chosen = torch.from_numpy(self.rng.integers(len(self.history), size=args.num_samples))
            else:
                chosen = torch.arange(len(self.history) - args.batch_size, len(self.history))
            states, advantage = all_states[chosen], advantages[chosen]
            means = self.controller(states) + all_offsets[chosen]
            log_ratio = self._log_prob(means, all_embeddings[chosen]) - all_log_probs[chosen]
            ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
            clipped = ratio.clamp(1 - args.clip_ratio, 1 + args.clip_ratio)
            policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            entropy = (self.log_sigma + 0.5 * math.log(2 * math.pi * math.e)).sum()
            anchor = (means - all_offsets[chosen] - self.origin(states)).square().sum(1).mean()
            loss = policy_loss - args.entropy_coefficient * entropy + args.anchor_coefficient * anchor
            self.optimizer.zero_grad()
            loss.backward()
            gradient_norm = nn.utils.clip_grad_norm_(self.parameters, args.max_grad_norm)
            self.optimizer.step()
        return {
            "policy/loss": policy_loss.item(),
            "policy/entropy": entropy.item(),
            "policy/sigma": self.log_sigma.exp().mean().item(),
            "policy/distance_from_start": anchor.sqrt().item(),
            "policy/gradient_norm": gradient_norm.item(),
        }


def main(args: Args) -> None:
    """Search with REINFORCE in the embedding space."""
    with Search(args, agent="reinforce") as search:
        agent = Reinforce(search.nases, args)
        observation = search.first_observation
        while not search.done:
            observation, _, _, _, info = search.step(agent.ask(observation))
            search.log(agent.tell(observation, info))


if __name__ == "__main__":
    run_command(Args, main)
