"""A Gaussian policy in the embedding space that samples near good children.

It is the base of ``elite_reinforce`` and ``model_assisted``. The mean is the output of a controller, which starts as the
pretrained simulator and reads an elite (a good child) after random mutations of its decisions. The controller is trained by
policy gradient with PPO's clipped objective (Schulman et al., 2017).
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nases_env.envs import ACTION_SCALE, unwrap
from nases_env.evaluation import Evaluation
from nases_env.optimizers import Adam
from nases_env.search import SearchArgs
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least, require_default, require_fraction, require_positive
from nases_env.search_spaces import Architecture
from nases_env.seeding import derive_seed, numpy_generator, torch_generator

MAX_RESAMPLES = 20  # attempts to find an unseen child
PRIOR_BATCH_SIZE = 8  # samples of the prior per attempt
CLIP_RANGE = 0.2  # clipping range of the probability ratio, as in PPO; samples may come from older policies
MAX_LOG_RATIO = 5.0  # clamp on |log(new probability / old probability)|, prevents overflow
REFERENCE_COEF = 0.03  # of the distance to the initial controller in the loss, prevents collapse
MAX_GRAD_NORM = 1.0  # maximum norm of the gradient

AnyProposal = TypeVar("AnyProposal", bound=Proposal)


@dataclass
class PolicyArgs(SearchArgs):
    """Options of a Gaussian policy in the embedding space."""

    init: Literal["simulator", "random"] = "simulator"
    """Initial weights of the controller: the simulator's, as in the paper, or random ones, as an ablation."""
    elite_geometric_decay: float = 0.5
    """Geometric decay of the probability that a child is selected as elite: P(rank r) is proportional to decay^(r - 1),
    where r = 1 is the best child; the worst child has the remaining probability."""
    num_mutations: int = 1
    """Mutations of the elite before the controller reads it. Each one changes a single decision; noise in the embedding
    changes all of them a little."""
    residual: bool = True
    """If the simulator's output for an elite does not decode to that elite, as usual in enas_micro, add the difference
    between the elite's original embedding and that output to the policy mean, so that the search starts at the elite.
    Mutants that model_assisted selects were not decoded from an embedding, so nothing is added for them."""
    learning_starts: int | None = None
    """Children decoded from random embeddings (standard normal) before the controller is used; it is not trained on them.
    Default: 20, or half of the budget if that is less; with --time alone, 20. Pass fewer for a short search."""
    std: float = 0.1
    """Standard deviation of the Gaussian policy, in standard deviations of the embedding."""
    gradient_steps: int = 4
    """Gradient steps per update."""
    learning_rate: float = 3e-4
    """Learning rate of Adam."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "num_mutations", "learning_starts", "gradient_steps")
        require_positive(self, "std", "learning_rate")
        require_fraction(self, "elite_geometric_decay")
        if self.gradient_steps == 0:
            require_default(self, "with --gradient-steps 0", "learning_rate")

    @property
    def resolved_learning_starts(self) -> int:
        """``learning_starts``, or its default for the budget."""
        return min(20, self.budget // 2) if self.learning_starts is None else self.learning_starts


@dataclass(frozen=True, eq=False, kw_only=True)
class PolicySample(Proposal):
    """A child sampled from the policy or from the standard normal prior of the embedding.

    Attributes:
        embedding: the sampled embedding, shape (n,).
        state: the input of the controller, shape (m,), or (m + objectives,) in ``mo_reinforce``.
        offset: the residual added to the output of the controller, shape (n,).
        log_prob: the log density of the embedding when it was sampled, up to a constant; None for the prior.
    """

    embedding: Tensor
    state: Tensor
    offset: Tensor
    log_prob: float | None


@dataclass(frozen=True, eq=False)
class Transition:
    """An evaluated child.

    Attributes:
        sample: the proposal.
        reward: the reward of the child.
        residual: its embedding minus the simulator's output for it, shape (n,); 0 if that output decodes to the child
            or if the child is a mutant.
    """

    sample: PolicySample
    reward: float
    residual: Tensor


class EmbeddingPolicy(Agent):
    """Base class of agents with a Gaussian policy whose mean is the output of the controller.

    Args:
        env: an environment that was reset. The simulator of its embedding becomes the controller.
        args: the options, including the seed of all random generators.
    """

    def __init__(self, env: gym.Env[Any, Any], args: PolicyArgs) -> None:
        self.env = unwrap(env)
        self.policy_args = args
        self.learning_starts = args.resolved_learning_starts
        seed = derive_seed(args.seed, "policy", "controller")
        embedding = self.env.embedding
        self.controller: nn.Module = embedding.controller(args.init, seed)
        self.reference_controller: nn.Module = embedding.controller(args.init, seed).requires_grad_(False)
        self.log_std = torch.full((embedding.embedding_size,), math.log(args.std))
        self.optimizer = Adam(self.controller.parameters(), lr=args.learning_rate)
        self.generator = torch_generator(args.seed, "policy", "exploration")
        self.rng = numpy_generator(args.seed, "policy", "choices")
        self.proposed: set[str] = set()
        self.num_proposed = 0
        self.history: list[Transition] = []
        self.ranking: list[Transition] = []  # the history, best first
        self.comparable_rewards: dict[str, float] = {}  # of promoted children, by key

    @property
    def is_warming_up(self) -> bool:
        """Whether the next child is sampled from the prior."""
        return self.num_proposed < self.learning_starts

    def read(self, child: Architecture) -> Tensor:
        """Return the input of the controller for ``child``, shape (m,)."""
        return torch.from_numpy(self.env.search_space.encode(child))

    def simulate(self, child: Architecture) -> Tensor:
        """Return the output of the simulator for ``child``, shape (n,)."""
        output: Tensor = self.reference_controller(self.read(child)[None])[0]
        return output

    def sample_states(self, num_mutations: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Sample elites, mutate and encode them.

        Args:
            num_mutations: number of mutations, shape (B,).

        Returns:
            The inputs of the controller, shape (B, m), and the residuals to add to its outputs, shape (B, n).
        """
        if not self.ranking:
            state = self.read(self.env.architecture)
            return state.expand(len(num_mutations), -1), torch.zeros(len(num_mutations), len(self.log_std))
        states, offsets = [], []
        ranks = self.rng.geometric(1 - self.policy_args.elite_geometric_decay, size=len(num_mutations))
        for rank, mutations in zip(np.minimum(ranks, len(self.ranking)) - 1, num_mutations, strict=True):
            elite = self.ranking[rank]
            child = elite.sample.architecture
            for _ in range(mutations):
                child = self.env.search_space.mutate(child, self.rng)
            states.append(self.read(child))
            offsets.append(elite.residual)
        return torch.stack(states), torch.stack(offsets)

    @torch.no_grad()
    def sample(self, states: Tensor, offsets: Tensor, std_scale: float = 1.0) -> list[PolicySample]:
        """Sample the policy once per state.

        Args:
            states: inputs of the controller, shape (B, m).
            offsets: residuals to add to its outputs, shape (B, n).
            std_scale: factor of the standard deviation.

        Returns:
            B samples.
        """
        means = self.controller(states) + offsets
        log_std = self.log_std + math.log(std_scale)
        embeddings = means + log_std.exp() * torch.randn(means.shape, generator=self.generator)
        return self._decode(embeddings, states, offsets, log_density(embeddings, means, log_std).tolist())

    def sample_prior(self, num_samples: int) -> list[PolicySample]:
        """Sample the standard normal prior of the embedding."""
        embeddings = torch.randn(num_samples, len(self.log_std), generator=self.generator)
        states = torch.zeros(num_samples, self.env.search_space.num_decisions)
        return self._decode(embeddings, states, torch.zeros_like(embeddings), [None] * num_samples)

    def sample_unseen_prior(self) -> PolicySample:
        """Sample the prior until it yields an unseen child; after ``MAX_RESAMPLES`` attempts, return a feasible repeat."""
        for _ in range(MAX_RESAMPLES):
            samples = self.sample_prior(PRIOR_BATCH_SIZE)
            if unseen := self.filter_unseen(samples):
                return unseen[0]
        return self.filter_feasible(samples)[0]

    def _decode(self, embeddings: Tensor, states: Tensor, offsets: Tensor, log_probs: list[Any]) -> list[PolicySample]:
        actions: NDArray[np.float32] = (embeddings / ACTION_SCALE).clamp(-1, 1).numpy()
        return [
            PolicySample(child, action, embedding=embedding, state=state, offset=offset, log_prob=log_prob)
            for child, action, embedding, state, offset, log_prob in zip(
                self.env.decode_batch(actions), actions, embeddings, states, offsets, log_probs, strict=True
            )
        ]

    def filter_unseen(self, samples: list[AnyProposal]) -> list[AnyProposal]:
        """Return the ``samples`` that were not proposed before, without duplicates, in their order."""
        first = {sample.architecture.key: sample for sample in reversed(samples)}  # the first sample of each key
        return [sample for key, sample in reversed(first.items()) if key not in self.proposed]

    def filter_feasible(self, samples: list[AnyProposal]) -> list[AnyProposal]:
        """Return the feasible ``samples``, or all of them if none is feasible; for samples that are all repeats."""
        return [sample for sample in samples if self.env.is_feasible(sample.architecture)] or samples

    def mark_proposed(self, sample: PolicySample) -> PolicySample:
        """Record ``sample`` as proposed, and return it."""
        self.proposed.add(sample.architecture.key)
        self.num_proposed += 1
        return sample

    def tell_infeasible(self, proposal: Proposal) -> None:
        self.num_proposed -= 1  # it stays in ``proposed``, so that it is not proposed again

    @torch.no_grad()
    def record(self, sample: PolicySample, reward: float) -> None:
        """Add ``sample`` and its ``reward`` to the history; a repeat of a promoted child has its comparable reward."""
        reward = self.comparable_rewards.get(sample.architecture.key, reward)
        simulated = self.simulate(sample.architecture)
        is_reconstructed = self.env.decode((simulated / ACTION_SCALE).numpy()).key == sample.architecture.key
        use_residual = self.policy_args.residual and not is_reconstructed
        residual = sample.embedding - simulated if use_residual else torch.zeros_like(simulated)
        self.history.append(Transition(sample, reward, residual))
        bisect.insort(self.ranking, self.history[-1], key=lambda transition: -transition.reward)

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        """Replace the rewards of promoted children in the history by their comparable ``rewards``."""
        self.comparable_rewards = dict(rewards)
        self.history = [
            dataclasses.replace(transition, reward=rewards.get(transition.sample.architecture.key, transition.reward))
            for transition in self.history
        ]
        self.ranking = sorted(self.history, key=lambda transition: -transition.reward)
        return {}

    def gradient_step(
        self, samples: list[PolicySample], advantages: Tensor, reference_coef: float = REFERENCE_COEF
    ) -> dict[str, float]:
        """Take one policy-gradient step.

        Args:
            samples: samples of the policy.
            advantages: their advantages, shape (samples,).
            reference_coef: coefficient of the squared distance to the outputs of the initial controller; 0: it is not
                computed.

        Returns:
            Metrics by name.
        """
        states = torch.stack([sample.state for sample in samples])
        offsets = torch.stack([sample.offset for sample in samples])
        embeddings = torch.stack([sample.embedding for sample in samples])
        old_log_probs = torch.tensor([sample.log_prob for sample in samples])
        outputs = self.controller(states)
        log_ratio = log_density(embeddings, outputs + offsets, self.log_std) - old_log_probs
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        metrics = {"policy/loss": policy_loss.item()}
        loss = policy_loss
        if reference_coef:
            reference_loss = (outputs - self.reference_controller(states)).square().sum(1).mean()
            loss = policy_loss + reference_coef * reference_loss
            metrics["policy/reference_distance"] = reference_loss.sqrt().item()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        metrics["policy/gradient_norm"] = nn.utils.clip_grad_norm_(self.controller.parameters(), MAX_GRAD_NORM).item()
        self.optimizer.step()
        return metrics


def log_density(embeddings: Tensor, means: Tensor, log_std: Tensor) -> Tensor:
    """Compute log densities of diagonal Gaussians, up to a constant.

    Args:
        embeddings: shape (..., n).
        means: means of the Gaussians, shape (..., n).
        log_std: logarithms of their standard deviations, shape (n,).

    Returns:
        Shape (...).
    """
    log_prob: Tensor = -(0.5 * ((embeddings - means) / log_std.exp()).square() + log_std).sum(-1)
    return log_prob


def rank_normalize(rewards: Tensor) -> Tensor:
    """Return the normal quantiles of the ranks of ``rewards``, shape (N,), as float64; ties share their average rank."""
    scores: Tensor = torch.special.ndtri(rank_shares(rewards))
    return scores


def rank_shares(values: Tensor) -> Tensor:
    """Return the share of ``values`` (N,) below each one, as float64; equal ones, including itself, count half."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    shares: Tensor = ((counts.cumsum(0) - 0.5 * counts.double()) / len(values))[inverse]
    return shares
