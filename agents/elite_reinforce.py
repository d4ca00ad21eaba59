"""REINFORCE with elites: the controller reads a mutated good child instead of the last one.

    python agents/elite_reinforce.py --env-id NASES-CIFAR10-v0 --budget 100

``agents/reinforce.py`` is REINFORCE as in the paper. To find better children with a small budget, this agent differs in
three ways. The controller reads a mutated good child (an elite), so that the search starts near it. Of several samples of
the policy, the one nearest to that child is evaluated. Updates replay earlier children, with advantages that depend on the
ranks of the rewards.

The log probability is that of a single sample of the policy. It includes neither the choice of the nearest sample nor the
rejection of repeats, so the gradient is biased. The agent is therefore an evolutionary algorithm in the embedding space that
also trains its policy. With rungs, the reward of a promoted child is its comparable reward
(``SuccessiveHalving.comparable_rewards``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from nases_agents.policy import MAX_RESAMPLES, EmbeddingPolicy, PolicyArgs, PolicySample, rank_normalize
from numpy.typing import NDArray
from torch import Tensor

from nases_env.evaluation import Evaluation
from nases_env.search import SearchRun, run_search
from nases_env.search.agent import Proposal
from nases_env.search.option_checks import require_at_least, require_default

STD_GROWTH = 1.1  # the standard deviation is multiplied by this on each attempt to find an unseen child
REPLAY_BATCH_SIZE = 16  # earlier samples of the policy per gradient step, as in the paper's released code


@dataclass
class Args(PolicyArgs):
    """Options of REINFORCE with elites."""

    num_proposals: int = 32
    """Samples of the policy per child; the one with the smallest Hamming distance to the child that the controller read is
    evaluated. If the embedding has fewer dimensions than the architecture has decisions, a small step in the embedding
    changes several decisions; this selection counteracts that."""
    train_freq: int | None = None
    """Children between two updates. Default: 10, or fewer if there would be fewer than three updates before the last
    ten children."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "num_proposals", "train_freq")

    def check(self) -> None:
        super().check()
        if self.gradient_steps == 0 and self.resume is None:  # earlier versions recorded the default of train_freq
            require_default(self, "with --gradient-steps 0", "train_freq")

    @property
    def resolved_train_freq(self) -> int:
        """``train_freq``, or its default for the budget."""
        num_children = self.budget - 10 - self.resolved_learning_starts
        return max(1, min(10, num_children // 3)) if self.train_freq is None else self.train_freq

    @property
    def schedule(self) -> dict[str, Any]:
        """The options that determine the schedule, with their defaults for the budget; without those that have no effect."""
        schedule = {"learning_starts": self.resolved_learning_starts}
        return {**schedule, "train_freq": self.resolved_train_freq} if self.gradient_steps else schedule


class EliteReinforce(EmbeddingPolicy):
    """Samples unseen children from the policy and updates it with their rewards.

    Args:
        env: an environment that was reset.
        args: the options, including the seed of all random generators.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        self.args = args
        self.train_freq = args.resolved_train_freq
        self._num_attempts = MAX_RESAMPLES

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self.mark_proposed(self._next_sample()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, PolicySample), "the proposal must come from ask"
        self.record(proposal, evaluation.reward)
        return self._update() if len(self.history) % self.train_freq == 0 else {}

    def _next_sample(self) -> PolicySample:
        """Sample the next child; each attempt to find an unseen one has a larger deviation and one more mutation.

        If they find none, the space is almost exhausted, and the next child has half as many.
        """
        if self.is_warming_up:
            return self.sample_unseen_prior()
        for attempt in range(self._num_attempts):
            num_mutations = np.full(self.args.num_proposals, self.args.num_mutations + attempt)
            samples = self.sample(*self.sample_states(num_mutations), STD_GROWTH**attempt)
            if unseen := self.filter_unseen(samples):
                self._num_attempts = MAX_RESAMPLES
                return min(unseen, key=self._hamming_distance)
        self._num_attempts = max(1, self._num_attempts // 2)
        return min(self.filter_feasible(samples), key=self._hamming_distance)  # a repeat

    def _hamming_distance(self, sample: PolicySample) -> int:
        """Count the decisions in which the child differs from the one that the controller read."""
        read = self.env.search_space.decode(sample.state[: self.env.search_space.num_decisions].numpy())
        return sum(a != b for a, b in zip(sample.architecture.decisions, read.decisions, strict=True))

    def _update(self) -> dict[str, float]:
        """Take ``gradient_steps`` policy-gradient steps on children that were sampled from the policy."""
        trainable = [index for index, transition in enumerate(self.history) if transition.sample.log_prob is not None]
        if not trainable:
            return {}
        batches = [self.rng.choice(trainable, REPLAY_BATCH_SIZE) for _ in range(self.args.gradient_steps)]
        if not batches:
            return {}
        advantages = self._advantages(np.concatenate(batches)).view(len(batches), REPLAY_BATCH_SIZE)
        metrics: dict[str, float] = {}
        for batch, of_batch in zip(batches, advantages, strict=True):
            metrics = self.gradient_step([self.history[index].sample for index in batch], of_batch)
        return metrics

    def _advantages(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the advantages of the children at ``indices`` of the history, float32."""
        rewards = torch.tensor([transition.reward for transition in self.history], dtype=torch.float64)
        return rank_normalize(rewards)[torch.from_numpy(indices)].float()


def main(args: Args) -> None:
    """Search with REINFORCE with elites in the embedding space."""
    # Recorded, so that a search that is resumed with a larger budget keeps its schedule.
    args = dataclasses.replace(args, **args.schedule)
    with SearchRun(args, agent="elite_reinforce") as run:
        run.search(EliteReinforce(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
