"""Regularised evolution (Real et al., 2019, "Regularized Evolution for Image Classifier Architecture Search", Algorithm 1).

    python agents/regularized_evolution.py --env-id NASES-Digits-v0 --budget 40

The population holds the youngest children. A few of them are drawn, the best of these becomes the parent, and the next child
is the parent with one decision changed. Every child leaves the population when it is old, however good it is. It needs no
embedding.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator


@dataclass
class Args(SearchArgs):
    """Regularised evolution's options."""

    population_size: int = 10
    """P: the youngest children, among which parents are sought; as many are drawn at random to begin with. Real et al. have
    100 for a budget of 20,000; 10 is what NAS-Bench-201's authors (Dong and Yang, 2020) take for hundreds."""
    sample_size: int = 3
    """S: children drawn from the population, with replacement, the best of which is the parent; 3 as Dong and Yang, Real et
    al. have 25. The more there are, the greedier the search; with 1 it is a random walk."""

    def __post_init__(self) -> None:
        for option in ("population_size", "sample_size"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(self, option)}")
        if self.sample_size > self.population_size:
            raise InputError(
                f"--sample-size must be at most --population-size, {self.population_size}, not {self.sample_size}"
            )


class RegularizedEvolution(Agent):
    """Children join the population in the order in which they are told, and age in that order."""

    def __init__(self, env: NASESEnv, args: Args) -> None:
        self.search_space = env.search_space
        self.args = args
        self.rng = numpy_generator(args.seed, "regularised evolution")
        self.population: deque[tuple[float, Architecture]] = deque(maxlen=args.population_size)
        self.num_asked = 0

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self._next_child()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.population.append((evaluation.reward, proposal.architecture))  # the oldest leaves
        return {"evolution/mean_of_population": sum(reward for reward, _ in self.population) / len(self.population)}

    def _next_child(self) -> Architecture:
        self.num_asked += 1
        if self.num_asked <= self.args.population_size or not self.population:
            return self.search_space.sample(self.rng)
        drawn = self.rng.integers(len(self.population), size=self.args.sample_size)
        _, parent = max((self.population[index] for index in drawn), key=lambda member: member[0])
        return self.search_space.mutate(parent, self.rng)


def main(args: Args) -> None:
    """Search by regularised evolution: change the best of a few young children."""
    with SearchRun(args, agent="regularised_evolution") as search:
        search.run(RegularizedEvolution(search.nases, args), args.ask_batch_size)


if __name__ == "__main__":
    run_search(Args, main)
