"""Bayesian optimization: a Gaussian process and expected improvement, without a policy and without an embedding.

    python agents/bayesian_optimization.py --env-id NASES-Digits-v0 --budget 40

Most of the first children are large if the sizes of architectures are known; the others are random. Then, before each
further child, a Gaussian process is fitted to all evaluated children (``agents/reward_model.py``). The next child is the one
with the highest expected improvement among mutants of the best children and random architectures. Comparing it with
``agents/model_assisted.py`` shows what the policy adds. With several children at a time (``--num-envs``), the pending ones
reduce the predicted variance of similar candidates. With rungs, the process takes the rung as an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
from nases_agents.gaussian_process import expected_improvement
from nases_agents.local_search import sample_mutants
from nases_agents.reward_model import (
    MAX_SCREENED_BATCHES,
    NUM_SCREENED,
    RewardModel,
    best_feasible,
    sample_feasible,
)
from nases_agents.transfer import TransferArgs, earlier_rewards

from nases_env.envs import unwrap
from nases_env.evaluation import Evaluation
from nases_env.search import SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least, require_fraction
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator


@dataclass
class Args(TransferArgs):
    """Options of Bayesian optimization."""

    uses_embedding: ClassVar[bool] = False

    num_init: int = 3
    """Number of evaluated children from which the model chooses the next ones."""
    screen: bool = True
    """Choose the first children (--num-init) among 300 random architectures. Every fourth one is random. The others are
    among the largest 5%; with --transfer-from, half of the children are instead among the best 5% by the earlier searches.
    Without known sizes or earlier searches, all are random. --no-screen: all are random."""
    num_elites: int = 10
    """Best children, which are mutated."""
    num_mutants: int = 300
    """Candidates that are mutants of the best children, per call."""
    extra_mutation_prob: float = 0.4
    """Probability of each further mutation of a mutant."""
    num_random_candidates: int = 100
    """Candidates that are random architectures, per call (exploration)."""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "num_init")
        require_at_least(self, 1, "num_elites", "num_mutants")
        require_at_least(self, 0, "num_random_candidates")
        require_fraction(self, "extra_mutation_prob")


class BayesianOptimization(Agent):
    """Agent that selects children by expected improvement.

    Args:
        env: an environment that was reset.
        args: the options, including the seed of all random generators.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.env = unwrap(env)
        self.search_space = self.env.search_space
        self.args = args
        self.rng = numpy_generator(args.seed, "bayesian optimization")
        earlier = earlier_rewards(self.search_space, args.transfer_from)
        self.model = RewardModel(self.search_space, self.env.rungs, earlier, self.env.size)
        self.first: list[Architecture] = []
        self.pending: list[Architecture] = []
        self.proposed: set[str] = set()

    def ask(self, num_children: int = 1) -> list[Proposal]:
        asked: list[Architecture] = []
        candidates: list[Architecture] = []
        if not self.proposed and self.args.screen:
            self.first = self._sample_first()
        is_fitted = len(self.model.children) >= self.args.num_init
        if is_fitted:
            self.model.fit()
            candidates = self._sample_candidates()
        for _ in range(num_children):
            if self.first and not is_fitted:
                child = self.first.pop(0)
            else:
                child = self._select(candidates) or sample_feasible(self.env, self.rng, self.proposed)
            self.proposed.add(child.key)
            self.pending.append(child)
            asked.append(child)
        return [Proposal(child) for child in asked]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.pending.remove(proposal.architecture)
        self.model.add(proposal.architecture, evaluation.reward)
        return {}

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        self.model.add_promotion(proposal.architecture, evaluation, rewards)
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        self.pending.remove(proposal.architecture)

    def _sample_first(self) -> list[Architecture]:
        """Sample the children that are requested before ``num_init`` are evaluated."""
        num_first = self.args.num_init + self.args.max_pending - 1
        distinct: dict[str, Architecture] = {}
        for _ in range(MAX_SCREENED_BATCHES):
            distinct |= {child.key: child for child in (self.search_space.sample(self.rng) for _ in range(NUM_SCREENED))}
            samples = list(distinct.values())
            chosen = self.model.choose_first(samples, num_first, self.rng, self.env.is_feasible)
            if len(chosen) >= num_first:
                break
        return [samples[index] for index in chosen]

    def _sample_candidates(self) -> list[Architecture]:
        """Sample new architectures: mutants of the best children, and random ones."""
        elites = self.model.ranking()[: self.args.num_elites]
        candidates = [self.search_space.sample(self.rng) for _ in range(self.args.num_random_candidates)]
        candidates += sample_mutants(
            self.search_space, elites, self.args.num_mutants, self.args.extra_mutation_prob, self.rng
        )
        return list({child.key: child for child in candidates if child.key not in self.proposed}.values())

    def _select(self, candidates: list[Architecture]) -> Architecture | None:
        """Return the feasible candidate with the highest expected improvement and remove it; None if there is none."""
        if not candidates:
            return None
        posterior = self.model.posterior(candidates, self.pending)
        best = best_feasible(self.env, candidates, expected_improvement(posterior))
        return None if best is None else candidates.pop(best)


def main(args: Args) -> None:
    """Search by Bayesian optimization."""
    with SearchRun(args, agent="bayesian_optimization") as run:
        run.search(BayesianOptimization(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
