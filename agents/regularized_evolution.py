"""Regularized evolution (Real et al., 2019, "Regularized Evolution for Image Classifier Architecture Search", Algorithm 1).

    python agents/regularized_evolution.py --env-id NASES-Digits-v0 --budget 40

The population is a queue of the most recent children. The parent is the best of a random sample of the population; the next
child is the parent with one decision changed. The oldest child leaves the population regardless of its reward. No embedding
is used. With rungs, a member that was promoted has its comparable reward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym

from nases_env.envs import unwrap
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator


@dataclass
class Args(SearchArgs):
    """Options of regularized evolution."""

    uses_embedding: ClassVar[bool] = False

    population_size: int = 10
    """P: size of the population; the first P children are random. 100 in Real et al. with a budget of 20,000 children; 10 in
    Dong and Yang (2020, NAS-Bench-201) with hundreds of children."""
    sample_size: int = 3
    """S: members sampled from the population with replacement, the best of which is the parent. 25 in Real et al., 3 in Dong
    and Yang. Larger values are greedier; 1 is a random walk."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "population_size", "sample_size")
        if self.sample_size > self.population_size:
            raise InputError(
                f"--sample-size must be at most --population-size, {self.population_size}, not {self.sample_size}"
            )


class RegularizedEvolution(Agent):
    """Regularized evolution. Children join the population in the order of calls to ``tell``."""

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.search_space = unwrap(env).search_space
        self.args = args
        self.rng = numpy_generator(args.seed, "regularised evolution")
        self.population: deque[tuple[float, Architecture]] = deque(maxlen=args.population_size)
        self.comparable_rewards: dict[str, float] = {}  # of promoted children, by key
        self.num_proposed = 0

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self._next_child()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        reward = self.comparable_rewards.get(proposal.architecture.key, evaluation.reward)  # it may be a repeat
        self.population.append((reward, proposal.architecture))  # drops the oldest
        return {"evolution/population_reward_mean": sum(reward for reward, _ in self.population) / len(self.population)}

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        self.comparable_rewards = dict(rewards)
        members = [(rewards.get(architecture.key, reward), architecture) for reward, architecture in self.population]
        self.population = deque(members, maxlen=self.args.population_size)
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        self.num_proposed -= 1

    def _next_child(self) -> Architecture:
        self.num_proposed += 1
        if self.num_proposed <= self.args.population_size or not self.population:
            return self.search_space.sample(self.rng)
        sampled = self.rng.integers(len(self.population), size=self.args.sample_size)
        _, parent = max((self.population[index] for index in sampled), key=lambda member: member[0])
        return self.search_space.mutate(parent, self.rng)


def main(args: Args) -> None:
    """Search by regularized evolution."""
    with SearchRun(args, agent="regularized_evolution") as run:
        run.search(RegularizedEvolution(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
