"""REINFORCE in the embedding space (C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1, lines 3 to 11).

    python agents/reinforce.py --env-id NASES-CIFAR10-v0 --budget 100

The controller g_k is the pretrained simulator, fine-tuned by policy gradient (Williams, 1992). It reads a child's
architecture vector and gives the mean of a Gaussian in the standardised embedding space; the next child is decoded from a
sample of it. The paper leaves open how the controller explores, what its baseline is and which child it reads. What this
file does about each is an option that says why; ``--preset paper`` is Algorithm 1 as it stands: `PAPER`.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nases_env.envs import ACTION_SCALE, NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.seeding import derive_seed, numpy_generator, torch_generator

NUM_TRIES = 20  # times that samples are drawn to find a child that is new
NUM_WARMUP_SAMPLES = 8  # a time
WIDENING = 1.1  # of the exploration width, a time
MAX_LOG_RATIO = 5.0  # of new and old probability; beyond, a ratio says nothing but that the policies are far apart


@dataclass
class PolicyArgs(SearchArgs):
    """The options of a policy in the embedding space. Lengths are in standard deviations of the embedding."""

    init: Literal["simulator", "random"] = "simulator"
    """The controller's first weights: the simulator's, as in the paper, or random ones, for its comparison."""
    elite_decay: float = 0.5
    """The controller reads good children: each in the ranking is so much less likely to be read than the next better one."""
    num_mutations: int = 1
    """Decisions of that child that are redrawn before the controller reads it. It explores single decisions, which noise in
    the embedding cannot do: there every decision moves a little."""
    residual: bool = True
    """Where the simulator does not give back the child that is read, add what it misses of the embedding that the child was
    decoded from, so that the search begins at the child and not at a neighbour."""
    num_warmup: int = 20
    """Children from standard-normal embeddings before the controller acts; it does not learn from them."""
    sigma: float = 0.1
    """Exploration width: the standard deviation of the Gaussian policy."""
    learn_sigma: bool = False
    """Learn one width a dimension along with the mean."""
    num_gradient_steps: int = 4
    """Gradient steps of an update."""
    clip_ratio: float = 0.2
    """How far a step may move the probability of a child, as in PPO: what is replayed was drawn by an older policy."""
    learning_rate: float = 3e-4
    """Adam's."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy in the objective; it matters where the width is learned."""
    anchor_coefficient: float = 0.03
    """Weight of the squared distance of the controller's outputs from what its first weights say, lest it collapses."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm; inf leaves it as it is."""

    def __post_init__(self) -> None:
        self.require_at_least(0, "num_mutations", "num_warmup", "num_gradient_steps")
        self.require_positive("sigma", "learning_rate", "clip_ratio", "max_grad_norm")
        self.require_share("elite_decay")

    def require_at_least(self, least: int, *options: str) -> None:
        """Raises `InputError` if one of ``options`` is less than ``least``."""
        for option in options:
            if getattr(self, option) < least:
                raise InputError(f"--{option.replace('_', '-')} must be at least {least}, not {getattr(self, option)}")

    def require_positive(self, *options: str) -> None:
        """Raises `InputError` if one of ``options`` is not a positive number."""
        for option in options:
            if not getattr(self, option) > 0:
                raise InputError(f"--{option.replace('_', '-')} must be a positive number, not {getattr(self, option)}")

    def require_share(self, *options: str) -> None:
        """Raises `InputError` if one of ``options`` does not lie in [0, 1)."""
        for option in options:
            if not 0 <= getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must lie in [0, 1), not {getattr(self, option)}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Proposal):
    """A child drawn from the policy, or, as a warm-up, from the standard normal distribution.

    Attributes:
        embedding: what was drawn, shape (n,).
        state: what the controller read, shape (m,).
        offset: what was added to what it said, shape (n,).
        log_prob: the log-density of the embedding when it was drawn, up to a constant; None for a warm-up.
    """

    embedding: Tensor
    state: Tensor
    offset: Tensor
    log_prob: float | None


@dataclass(frozen=True, eq=False)
class Result:
    """A child that was told.

    Attributes:
        sample: what was asked.
        reward: what came of it.
        miss: what the simulator misses of the child's embedding, shape (n,); 0 where it gives back the child.
    """

    sample: Sample
    reward: float
    miss: Tensor


class EmbeddingPolicy(Agent):
    """The Gaussian policy around the controller's output: what it reads, how it is drawn from and how it learns.

    Args:
        env: was reset. Its embedding's simulator becomes the controller.
        args: the options; their seed is the seed of everything random here.
    """

    def __init__(self, env: NASESEnv, args: PolicyArgs) -> None:
        self.env = env
        self.policy_args = args
        seed = derive_seed(args.seed, "policy", "controller")
        self.controller = env.embedding.controller(args.init, seed)
        self.origin = env.embedding.controller(args.init, seed).requires_grad_(False)
        self.log_sigma = nn.Parameter(torch.full((env.embedding.embedding_size,), math.log(args.sigma)), args.learn_sigma)
        self.parameters = [*self.controller.parameters(), self.log_sigma]
        self.optimizer = torch.optim.Adam(self.parameters, lr=args.learning_rate)
        self.noise = torch_generator(args.seed, "policy", "exploration")
        self.rng = numpy_generator(args.seed, "policy", "choices")
        self.asked: set[str] = set()
        self.num_asked = 0
        self.history: list[Result] = []
        self.ranking: list[Result] = []  # the history, best first

    @property
    def warming_up(self) -> bool:
        """Whether the next child is drawn from the standard normal distribution."""
        return self.num_asked < self.policy_args.num_warmup

    def states(self, num_mutations: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What the controller reads, shape (B, m), and what to add to what it says, shape (B, n), for each of B draws.

        ``num_mutations``, shape (B,), are the decisions of the elite that are redrawn.
        """
        if not self.ranking:
            state = torch.from_numpy(self.env.search_space.encode(self.env.architecture))
            return state.expand(len(num_mutations), -1), torch.zeros(len(num_mutations), len(self.log_sigma))
        states, offsets = [], []
        ranks = self.rng.geometric(1 - self.policy_args.elite_decay, size=len(num_mutations))
        for rank, mutations in zip(np.minimum(ranks, len(self.ranking)) - 1, num_mutations, strict=True):
            elite = self.ranking[rank]
            child = elite.sample.architecture
            for _ in range(mutations):
                child = self.env.search_space.mutate(child, self.rng)
            states.append(self.env.search_space.encode(child))
            offsets.append(elite.miss)
        return torch.from_numpy(np.stack(states)), torch.stack(offsets)

    @torch.no_grad()
    def draw(self, states: Tensor, offsets: Tensor, widening: float = 1.0) -> list[Sample]:
        """One sample for each of ``states`` (B, m) and ``offsets`` (B, n), the exploration width times ``widening``."""
        means = self.controller(states) + offsets
        log_sigma = self.log_sigma + math.log(widening)
        embeddings = means + log_sigma.exp() * torch.randn(means.shape, generator=self.noise)
        return self._samples(embeddings, states, offsets, log_density(embeddings, means, log_sigma).tolist())

    def draw_new_warmup(self) -> Sample:
        """A sample of the standard normal distribution whose child was not asked for, if there is one in many."""
        for _ in range(NUM_TRIES):
            samples = self.draw_warmup(NUM_WARMUP_SAMPLES)
            if new := self.new(samples):
                return new[0]
        return samples[0]

    def draw_warmup(self, num_samples: int) -> list[Sample]:
        """Samples of the standard normal distribution."""
        embeddings = torch.randn(num_samples, len(self.log_sigma), generator=self.noise)
        nothing = torch.zeros(num_samples, self.env.search_space.num_decisions), torch.zeros_like(embeddings)
        return self._samples(embeddings, *nothing, [None] * num_samples)

    def _samples(self, embeddings: Tensor, states: Tensor, offsets: Tensor, log_probs: list[Any]) -> list[Sample]:
        actions: NDArray[np.float32] = (embeddings / ACTION_SCALE).clamp(-1, 1).numpy()
        return [
            Sample(child, action, embedding=embedding, state=state, offset=offset, log_prob=log_prob)
            for child, action, embedding, state, offset, log_prob in zip(
                self.env.decode_batch(actions), actions, embeddings, states, offsets, log_probs, strict=True
            )
        ]

    def new(self, samples: list[Sample]) -> list[Sample]:
        """Those of ``samples`` that were not asked for yet, each child once."""
        first = {sample.architecture.key: sample for sample in reversed(samples)}
        return [sample for key, sample in reversed(first.items()) if key not in self.asked]

    def count(self, sample: Sample) -> Sample:
        """Takes note that ``sample`` was asked for."""
        self.asked.add(sample.architecture.key)
        self.num_asked += 1
        return sample

    @torch.no_grad()
    def remember(self, sample: Sample, reward: float) -> None:
        """Takes note of what came of ``sample``."""
        code = self.origin(torch.from_numpy(self.env.search_space.encode(sample.architecture))[None])[0]
        given_back = self.env.decode((code / ACTION_SCALE).numpy()).key == sample.architecture.key
        miss = torch.zeros_like(code) if given_back or not self.policy_args.residual else sample.embedding - code
        self.history.append(Result(sample, reward, miss))
        bisect.insort(self.ranking, self.history[-1], key=lambda result: -result.reward)

    def learn(self, samples: list[Sample], advantages: Tensor) -> dict[str, float]:
        """One step of the policy gradient from ``samples`` of the policy, with ``advantages`` of shape (samples,)."""
        args = self.policy_args
        states = torch.stack([sample.state for sample in samples])
        offsets = torch.stack([sample.offset for sample in samples])
        embeddings = torch.stack([sample.embedding for sample in samples])
        before = torch.tensor([sample.log_prob for sample in samples])
        outputs = self.controller(states)
        log_ratio = log_density(embeddings, outputs + offsets, self.log_sigma) - before
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(1 - args.clip_ratio, 1 + args.clip_ratio)
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        entropy = (self.log_sigma + 0.5 * math.log(2 * math.pi * math.e)).sum()
        anchor = (outputs - self.origin(states)).square().sum(1).mean()
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


def log_density(embeddings: Tensor, means: Tensor, log_sigma: Tensor) -> Tensor:
    """Of embeddings (…, n) under Gaussians with these means and widths, up to a constant; shape (…)."""
    log_prob: Tensor = -(0.5 * ((embeddings - means) / log_sigma.exp()).square() + log_sigma).sum(-1)
    return log_prob


def rank_normalize(rewards: Tensor) -> Tensor:
    """The normal quantiles of the ranks of ``rewards`` (N,), those of equal ones averaged; float64, shape (N,)."""
    below = (rewards[:, None] > rewards).sum(1) + 0.5 * (rewards[:, None] == rewards).sum(1)
    scores: Tensor = torch.special.ndtri(below.double() / len(rewards))
    return scores


@dataclass
class Args(PolicyArgs):
    """REINFORCE's options. Lengths are in standard deviations of the embedding."""

    agent_presets: ClassVar[tuple[str, ...]] = ("paper",)

    reads: Literal["elite", "last"] = "elite"
    """The child that the controller reads. last: the one just evaluated, as in Algorithm 1. elite: a good one, mutated,
    since the simulator's weights give back a child's own embedding, so that the search begins near what it reads."""
    unseen: bool = True
    """Draw again while the child is one that was asked for before, each time a little wider and with one more decision
    redrawn: a child that is known teaches nothing."""
    num_proposals: int = 32
    """Samples of the policy for each child; the one whose child differs least from what the controller read is evaluated. An
    embedding has fewer numbers than there are decisions, so that a step changes more of them than were meant."""
    batch_size: int = 10
    """Children between two updates."""
    num_samples: int = 16
    """Children that a gradient step learns from, drawn among all so far: replay, as in the paper's released code. 0: those
    of the batch."""
    reward: Literal["valid", "gap"] = "valid"
    """valid: the validation accuracy. gap: (valid - (train - valid))^3, as the paper's released code has it."""
    advantage: Literal["rank", "history", "baseline"] = "rank"
    """rank: the normal score of the reward's rank among all so far, so that no outlier rules. history: the reward minus the
    mean of all so far, over their deviation, as the released code. baseline: the reward minus a moving average."""
    baseline_decay: float = 0.9
    """baseline: of the moving average, a child."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "num_proposals", "batch_size")
        self.require_at_least(0, "num_samples")
        self.require_share("baseline_decay")


PAPER: dict[str, Any] = {
    "reads": "last",
    "unseen": False,
    "num_warmup": 0,
    "num_proposals": 1,
    "batch_size": 1,
    "num_samples": 0,
    "num_gradient_steps": 1,
    "advantage": "baseline",
    "clip_ratio": math.inf,
    "entropy_coefficient": 0.0,
    "anchor_coefficient": 0.0,
    "max_grad_norm": math.inf,
}
"""Algorithm 1 as it stands: it reads each child as it comes and takes one plain gradient step from it."""


class Reinforce(EmbeddingPolicy):
    """The paper's agent: draws children from the policy and learns from them alone.

    Args:
        env: was reset. Its embedding's simulator becomes the controller; its current child is read first.
        args: the options; their seed is the seed of everything random here.
    """

    def __init__(self, env: NASESEnv, args: Args) -> None:
        super().__init__(env, args)
        self.args = args
        self.last = env.architecture
        self.baseline: float | None = None

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self.count(self._draw_new()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, Sample), "tell what ask gave"
        valid, train = evaluation.valid_accuracy, evaluation.train_accuracy
        self.remember(proposal, evaluation.reward if self.args.reward == "valid" else (valid - (train - valid)) ** 3)
        self.last = proposal.architecture
        return {} if len(self.history) % self.args.batch_size else self._update()

    def _draw_new(self) -> Sample:
        if self.warming_up:
            return self.draw_new_warmup() if self.args.unseen else self.draw_warmup(1)[0]
        for attempt in range(NUM_TRIES):
            samples = self._draw(attempt)
            allowed = self.new(samples) if self.args.unseen else samples
            if allowed:
                break
        return min(allowed or samples, key=self._distance)

    def _draw(self, attempt: int) -> list[Sample]:
        num = self.args.num_proposals
        if self.args.reads == "last":
            states = torch.from_numpy(self.env.search_space.encode(self.last)).expand(num, -1)
            offsets = torch.zeros(num, len(self.log_sigma))
        else:
            states, offsets = self.states(np.full(num, self.args.num_mutations + attempt))
        return self.draw(states, offsets, WIDENING**attempt)

    def _distance(self, sample: Sample) -> int:
        """The number of decisions in which a child differs from the one that the controller read."""
        read = self.env.search_space.decode(sample.state.numpy())
        return sum(a != b for a, b in zip(sample.architecture.decisions, read.decisions, strict=True))

    def _advantages(self) -> Tensor:
        """Of all children so far, by the rewards so far, shape (children,)."""
        rewards = torch.tensor([result.reward for result in self.history], dtype=torch.float64)
        if self.args.advantage == "rank":
            return rank_normalize(rewards).float()
        if self.args.advantage == "history":
            return ((rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)).float()
        new = rewards[-self.args.batch_size :]
        baseline = float(new.mean()) if self.baseline is None else self.baseline
        self.baseline = baseline
        for reward in new.tolist():
            self.baseline += (1 - self.args.baseline_decay) * (reward - self.baseline)
        return (rewards - baseline).float()

    def _update(self) -> dict[str, float]:
        advantages = self._advantages()
        drawn = [index for index, result in enumerate(self.history) if result.sample.log_prob is not None]
        batch = [index for index in drawn if index >= len(self.history) - self.args.batch_size]
        scalars: dict[str, float] = {}
        for _ in range(self.args.num_gradient_steps if drawn and (batch or self.args.num_samples) else 0):
            chosen = self.rng.choice(drawn, self.args.num_samples) if self.args.num_samples else np.array(batch)
            scalars = self.learn([self.history[index].sample for index in chosen], advantages[torch.from_numpy(chosen)])
        return scalars


def paper(args: Args) -> Args | None:
    """The options that ``--preset paper`` stands for."""
    return Args(**PAPER) if args.preset == "paper" else None


def main(args: Args) -> None:
    """Search with REINFORCE in the embedding space."""
    with SearchRun(args, agent="reinforce") as search:
        search.run(Reinforce(search.nases, args), args.ask_batch_size)


if __name__ == "__main__":
    run_search(Args, main, preset=paper)
