"""REINFORCE in the embedding space (C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1, lines 3 to 11).

    python agents/reinforce.py --env-id NASES-CIFAR10-v0 --budget 100

The controller is the pretrained simulator, fine-tuned by policy gradient (Williams, 1992). It maps the architecture vector
of a child to the mean of a Gaussian policy in the standardized embedding space. The next child is decoded from a sample of
this policy.

To search better within few children, the defaults add to the paper's algorithm: the first children are random, the
controller reads a mutated good child instead of the last one, repeats are rejected, and updates replay earlier children.
``--preset paper`` (``PAPER``) runs Algorithm 1 without these additions. The paper leaves the exploration, the baseline and
the learning rate open; each is an option. ``examples/reinforce_single_file.py`` is Algorithm 1 as one loop. With rungs, the
history has the comparable rewards of promoted children.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nases_env.envs import ACTION_SCALE, unwrap
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least, require_default, require_fraction, require_positive
from nases_env.seeding import derive_seed, numpy_generator, torch_generator

MAX_RESAMPLES = 20  # attempts to find an unseen child
PRIOR_BATCH_SIZE = 8  # samples of the prior per attempt
STD_GROWTH = 1.1  # the standard deviation is multiplied by this on each attempt
MAX_LOG_RATIO = 5.0  # clamp on |log(new probability / old probability)|, prevents overflow


@dataclass
class PolicyArgs(SearchArgs):
    """Options of a Gaussian policy in the embedding space."""

    init: Literal["simulator", "random"] = "simulator"
    """Initial weights of the controller: the simulator's, as in the paper, or random ones, as an ablation."""
    elite_geometric_decay: float = 0.5
    """Geometric decay of the probability that a child is selected as elite: P(rank r) is proportional to decay^(r - 1),
    where r = 1 is the best child; the worst child has the remaining probability."""
    num_mutations: int = 1
    """Decisions of the elite that are resampled before the controller reads it. Mutations change single decisions; noise in
    the embedding changes all of them a little."""
    residual: bool = True
    """If the simulator's output for an elite does not decode to that elite, as usual in enas_micro, add the difference
    between the elite's original embedding and that output to the policy mean, so that the search starts at the elite."""
    learning_starts: int | None = None
    """Children decoded from random embeddings (standard normal) before the controller is used; it is not trained on them.
    Default: 20, or half of the budget if that is less."""
    std: float = 0.1
    """Standard deviation of the Gaussian policy, in standard deviations of the embedding."""
    learn_std: bool = False
    """Learn one standard deviation per dimension."""
    gradient_steps: int = 4
    """Gradient steps per update."""
    clip_range: float = 0.2
    """Clipping range of the probability ratio, as in PPO; replayed children were sampled by older policies."""
    learning_rate: float = 3e-4
    """Learning rate of Adam."""
    ent_coef: float = 0.01
    """Entropy coefficient of the loss; it has an effect only with --learn-std."""
    reference_coef: float = 0.03
    """Coefficient of the squared distance between the outputs of the controller and of the initial controller; prevents
    collapse."""
    max_grad_norm: float = 1.0
    """Maximum norm of the gradient; inf disables clipping."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "num_mutations", "learning_starts", "gradient_steps")
        require_positive(self, "std", "learning_rate")
        require_positive(self, "clip_range", "max_grad_norm", allow_inf=True)
        require_fraction(self, "elite_geometric_decay")
        if not self.learn_std and self.ent_coef:
            require_default(self, "without --learn-std", "ent_coef")

    @property
    def resolved_learning_starts(self) -> int:
        """``learning_starts``, or its default for the budget."""
        return min(20, self.budget // 2) if self.learning_starts is None else self.learning_starts


@dataclass(frozen=True, eq=False, kw_only=True)
class PolicySample(Proposal):
    """A child sampled from the policy or from the standard normal prior of the embedding.

    Attributes:
        embedding: the sampled embedding, shape (n,).
        state: the input of the controller, shape (m,).
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
        residual: its embedding minus the simulator's output for it, shape (n,); 0 if that output decodes to the child.
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
        self.controller = embedding.controller(args.init, seed)
        self.reference_controller = embedding.controller(args.init, seed).requires_grad_(False)
        self.log_std = nn.Parameter(torch.full((embedding.embedding_size,), math.log(args.std)), args.learn_std)
        self.parameters = [*self.controller.parameters(), self.log_std]
        self.optimizer = torch.optim.Adam(self.parameters, lr=args.learning_rate)
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

    def sample_states(self, num_mutations: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Sample elites, mutate and encode them.

        Args:
            num_mutations: number of decisions to resample, shape (B,).

        Returns:
            The inputs of the controller, shape (B, m), and the residuals to add to its outputs, shape (B, n).
        """
        if not self.ranking:
            state = torch.from_numpy(self.env.search_space.encode(self.env.architecture))
            return state.expand(len(num_mutations), -1), torch.zeros(len(num_mutations), len(self.log_std))
        states, offsets = [], []
        ranks = self.rng.geometric(1 - self.policy_args.elite_geometric_decay, size=len(num_mutations))
        for rank, mutations in zip(np.minimum(ranks, len(self.ranking)) - 1, num_mutations, strict=True):
            elite = self.ranking[rank]
            child = elite.sample.architecture
            for _ in range(mutations):
                child = self.env.search_space.mutate(child, self.rng)
            states.append(self.env.search_space.encode(child))
            offsets.append(elite.residual)
        return torch.from_numpy(np.stack(states)), torch.stack(offsets)

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

    def filter_unseen(self, samples: list[PolicySample]) -> list[PolicySample]:
        """Return the ``samples`` that were not proposed before, without duplicates, in their order."""
        first = {sample.architecture.key: sample for sample in reversed(samples)}  # the first sample of each key
        return [sample for key, sample in reversed(first.items()) if key not in self.proposed]

    def filter_feasible(self, samples: list[PolicySample]) -> list[PolicySample]:
        """Return the feasible ones of ``samples`` that were proposed before; all of them if none is feasible."""
        return [sample for sample in samples if self.env.screen(sample.architecture) is None] or samples

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
        vector = torch.from_numpy(self.env.search_space.encode(sample.architecture))
        simulated = self.reference_controller(vector[None])[0]
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

    def gradient_step(self, samples: list[PolicySample], advantages: Tensor) -> dict[str, float]:
        """Take one policy-gradient step.

        Args:
            samples: samples of the policy.
            advantages: their advantages, shape (samples,).

        Returns:
            Metrics by name.
        """
        args = self.policy_args
        states = torch.stack([sample.state for sample in samples])
        offsets = torch.stack([sample.offset for sample in samples])
        embeddings = torch.stack([sample.embedding for sample in samples])
        old_log_probs = torch.tensor([sample.log_prob for sample in samples])
        outputs = self.controller(states)
        log_ratio = log_density(embeddings, outputs + offsets, self.log_std) - old_log_probs
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        clipped = ratio.clamp(1 - args.clip_range, 1 + args.clip_range)
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        reference_loss = (outputs - self.reference_controller(states)).square().sum(1).mean()
        loss = policy_loss - args.ent_coef * entropy + args.reference_coef * reference_loss
        self.optimizer.zero_grad()
        loss.backward()
        gradient_norm = nn.utils.clip_grad_norm_(self.parameters, args.max_grad_norm)
        self.optimizer.step()
        metrics = {
            "policy/loss": policy_loss.item(),
            "policy/reference_distance": reference_loss.sqrt().item(),
            "policy/gradient_norm": gradient_norm.item(),
        }
        if args.learn_std:  # otherwise they are constant
            metrics |= {"policy/entropy": entropy.item(), "policy/std": self.log_std.exp().mean().item()}
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
    below = (rewards[:, None] > rewards).sum(1) + 0.5 * (rewards[:, None] == rewards).sum(1)
    scores: Tensor = torch.special.ndtri(below.double() / len(rewards))
    return scores


@dataclass
class Args(PolicyArgs):
    """Options of REINFORCE. --preset paper also sets options of the agent: Algorithm 1 without additions."""

    agent_presets: ClassVar[tuple[str, ...]] = ("paper",)

    reads: Literal["elite", "last"] = "elite"
    """Child that the controller reads. last: the one evaluated last, as in Algorithm 1. elite: a good one, mutated; with the
    simulator's weights the policy mean is the embedding of this child, so the search starts near it."""
    unseen: bool = True
    """Avoid repeats: sample again if a child was proposed before, with a larger standard deviation and one more mutation per
    attempt."""
    num_proposals: int = 32
    """Samples of the policy per child; the one with the smallest Hamming distance to the child that the controller read is
    evaluated. Because n < m, a small step in the embedding changes several decisions; this rejection counteracts it."""
    train_freq: int | None = None
    """Children between two updates. Default: 10, or fewer if there would be less than three updates before the last ten
    children."""
    replay_batch_size: int = 16
    """Children per gradient step, sampled from all previous ones, as in the paper's released code. 0: the children since the
    last update."""
    reward_shaping: Literal["none", "generalization-gap"] = "none"
    """none: the reward is the validation accuracy. generalization-gap: (valid - (train - valid))^3 of the validation and the
    training accuracy, as in the paper's released code."""
    advantage: Literal["rank", "zscore", "moving-average"] = "rank"
    """rank: normal quantile of the rank among all rewards, robust to outliers. zscore: reward minus the mean of all rewards,
    divided by their standard deviation, as in the released code. moving-average: reward minus a moving average."""
    baseline_decay: float = 0.9
    """Decay of the moving average per child, with --advantage moving-average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "num_proposals", "train_freq")
        require_at_least(self, 0, "replay_batch_size")
        require_fraction(self, "baseline_decay")
        if self.advantage != "moving-average":
            require_default(self, f"with --advantage {self.advantage}", "baseline_decay")
        if self.rungs and self.reward_shaping != "none":
            raise InputError("--reward-shaping applies to one rung only; omit it, or omit --rungs")
        if self.reads == "last":
            require_default(self, "with --reads last", "elite_geometric_decay", "num_mutations", "residual")

    @property
    def resolved_train_freq(self) -> int:
        """``train_freq``, or its default for the budget."""
        num_children = self.budget - 10 - self.resolved_learning_starts
        return max(1, min(10, num_children // 3)) if self.train_freq is None else self.train_freq


PAPER: dict[str, Any] = {
    "reads": "last",
    "unseen": False,
    "learning_starts": 0,
    "num_proposals": 1,
    "train_freq": 1,
    "replay_batch_size": 0,
    "gradient_steps": 1,
    "advantage": "moving-average",
    "clip_range": math.inf,
    "ent_coef": 0.0,
    "reference_coef": 0.0,
    "max_grad_norm": math.inf,
}
"""Algorithm 1 without additions: the controller reads the last child and takes one plain gradient step per child."""


class Reinforce(EmbeddingPolicy):
    """Samples children from the policy and updates it with their rewards.

    Args:
        env: an environment that was reset. The controller reads its current architecture first.
        args: the options, including the seed of all random generators.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        self.args = args
        self.train_freq = args.resolved_train_freq
        self.last = self.env.architecture
        self.baseline: float | None = None

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self.mark_proposed(self._next_sample()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, PolicySample), "the proposal must come from ask"
        valid, train = evaluation.valid_accuracy, evaluation.train_accuracy
        use_gap = self.args.reward_shaping == "generalization-gap"
        self.record(proposal, (valid - (train - valid)) ** 3 if use_gap else evaluation.reward)
        self.last = proposal.architecture
        return self._update() if len(self.history) % self.train_freq == 0 else {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        super().tell_infeasible(proposal)
        if self.args.reads == "last":
            # All children near the last one may be infeasible. Read a random architecture, as in the beginning.
            self.last = self.env.search_space.sample(self.rng)

    def _next_sample(self) -> PolicySample:
        """Sample the next child from the prior or the policy; avoid repeats if ``args.unseen``."""
        if self.is_warming_up:
            return self.sample_unseen_prior() if self.args.unseen else self.sample_prior(1)[0]
        for attempt in range(MAX_RESAMPLES):
            samples = self._sample_proposals(attempt)
            allowed = self.filter_unseen(samples) if self.args.unseen else samples
            if allowed:
                return min(allowed, key=self._hamming_distance)
        return min(self.filter_feasible(samples), key=self._hamming_distance)  # a repeat

    def _sample_proposals(self, attempt: int) -> list[PolicySample]:
        num = self.args.num_proposals
        if self.args.reads == "last":
            states = torch.from_numpy(self.env.search_space.encode(self.last)).expand(num, -1)
            offsets = torch.zeros(num, len(self.log_std))
        else:
            states, offsets = self.sample_states(np.full(num, self.args.num_mutations + attempt))
        return self.sample(states, offsets, STD_GROWTH**attempt)

    def _hamming_distance(self, sample: PolicySample) -> int:
        """Count the decisions in which the child differs from the one that the controller read."""
        read = self.env.search_space.decode(sample.state.numpy())
        return sum(a != b for a, b in zip(sample.architecture.decisions, read.decisions, strict=True))

    def _advantages(self) -> Tensor:
        """Compute the advantages of all children of the history, shape (children,), and update the moving average.

        The moving average starts at the mean of the first rewards, so the first policy gradient is 0 with ``train_freq`` 1.
        """
        rewards = torch.tensor([transition.reward for transition in self.history], dtype=torch.float64)
        if self.args.advantage == "rank":
            return rank_normalize(rewards).float()
        if self.args.advantage == "zscore":
            return ((rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)).float()
        new = rewards[-self.train_freq :]
        baseline = float(new.mean()) if self.baseline is None else self.baseline
        self.baseline = baseline
        for reward in new.tolist():
            self.baseline += (1 - self.args.baseline_decay) * (reward - self.baseline)
        return (rewards - baseline).float()

    def _update(self) -> dict[str, float]:
        advantages = self._advantages()
        trainable = [index for index, transition in enumerate(self.history) if transition.sample.log_prob is not None]
        recent = [index for index in trainable if index >= len(self.history) - self.train_freq]
        batch_size = self.args.replay_batch_size
        if not trainable or not (recent or batch_size):
            return {}
        metrics: dict[str, float] = {}
        for _ in range(self.args.gradient_steps):
            batch = self.rng.choice(trainable, batch_size) if batch_size else np.array(recent)
            samples = [self.history[index].sample for index in batch]
            metrics = self.gradient_step(samples, advantages[torch.from_numpy(batch)])
        return metrics


def paper(args: Args) -> Args | None:
    """Return the options of ``--preset paper``."""
    return Args(**PAPER) if args.preset == "paper" else None


def main(args: Args) -> None:
    """Search with REINFORCE in the embedding space."""
    # Recorded, so that a search that is resumed with a larger budget keeps its schedule.
    args = dataclasses.replace(args, learning_starts=args.resolved_learning_starts, train_freq=args.resolved_train_freq)
    with SearchRun(args, agent="reinforce") as run:
        run.search(Reinforce(run.env, args))


if __name__ == "__main__":
    run_search(Args, main, preset=paper)
