"""Local search (White et al., 2021, "Exploring the Loss Landscape in Neural Architecture Search", Algorithm 1).

    python agents/local_search.py --env-id NASES-Digits-v0 --budget 200

Starting from the best of a few random architectures, the agent evaluates neighbors, which differ in one decision, in random
order and moves to a better one. At a local optimum it restarts. It avoids repeats until the space is almost exhausted and
uses no embedding. With rungs, it compares promoted children by their comparable rewards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np

from nases_env.envs import unwrap
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.seeding import numpy_generator

MAX_RESAMPLES = 1000  # random draws to find an unseen architecture; after that the space is almost exhausted


@dataclass
class Args(SearchArgs):
    """Options of local search."""

    uses_embedding: ClassVar[bool] = False

    num_init: int = 10
    """Random architectures per restart; the climb starts from the best one. 10 in the authors' code, 1 in their
    Algorithm 1."""
    improvement: Literal["first", "best"] = "first"
    """first: move to the first better neighbor, the default of the authors' code; cheaper in large neighborhoods. best:
    evaluate all neighbors and move to the best one, as in their Algorithm 1."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "num_init")


class LocalSearch(Agent):
    """Hill climbing with restarts. While the next move waits for children in flight, it proposes restart candidates.

    Attributes:
        proposed: keys of the proposed children.
        rewards: reward of each evaluated child, by key.
        restart_candidates: random architectures for the next restart, by key, evaluated or not.
        incumbent: the current architecture of the climb; None until it is selected.
        infeasible: keys of the infeasible children.
        neighbors: neighbors of the incumbent by key, in the order in which they are asked for, without infeasible ones.
        num_local_optima: number of local optima found.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.search_space = unwrap(env).search_space
        self.args = args
        self.rng = numpy_generator(args.seed, "local search")
        self.proposed: set[str] = set()
        self.rewards: dict[str, float] = {}
        self.restart_candidates: dict[str, Architecture] = {}
        self.infeasible: set[str] = set()
        self.incumbent: Architecture | None = None
        self.neighbors: dict[str, Architecture] = {}
        self.num_local_optima = 0

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self._next_child()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.rewards.setdefault(proposal.architecture.key, evaluation.reward)  # a repeat may have been promoted
        before = self.num_local_optima
        self._move_on()
        return {"local_search/local_optima": self.num_local_optima} if self.num_local_optima > before else {}

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        self.rewards.update(rewards)
        self._move_on()
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        self.infeasible.add(proposal.architecture.key)
        for children in (self.restart_candidates, self.neighbors):
            children.pop(proposal.architecture.key, None)
        self._move_on()

    def _move_on(self) -> None:
        while self._move():
            pass

    def _next_child(self) -> Architecture:
        child = next((child for key, child in self.neighbors.items() if key not in self.proposed), None)
        if child is None:
            child = sample_unseen(self.search_space, self.rng, self.proposed)
            self.restart_candidates[child.key] = child
        self.proposed.add(child.key)
        return child

    def _move(self) -> bool:
        """Make the next move of the climb if enough children are evaluated; return whether it was made."""
        if self.incumbent is None:
            evaluated = [child for key, child in self.restart_candidates.items() if key in self.rewards]
            if len(evaluated) < self.args.num_init:
                return False
            self.restart_candidates = {
                key: child for key, child in self.restart_candidates.items() if key not in self.rewards
            }
            self._climb_from(self._best(evaluated))
            return True
        evaluated = [child for key, child in self.neighbors.items() if key in self.rewards]
        if self.args.improvement == "first" or len(evaluated) == len(self.neighbors):
            best = self._best([self.incumbent, *evaluated])
            if best is not self.incumbent:
                self._climb_from(best)
                return True
        if len(evaluated) == len(self.neighbors):
            self.num_local_optima += 1
            self.incumbent, self.neighbors = None, {}
            return True
        return False

    def _best(self, children: list[Architecture]) -> Architecture:
        """Return the first child with the highest reward."""
        return max(children, key=lambda child: self.rewards[child.key])

    def _climb_from(self, incumbent: Architecture) -> None:
        self.incumbent = incumbent
        neighbors = [child for child in neighbors_of(self.search_space, incumbent) if child.key not in self.infeasible]
        self.neighbors = {neighbors[i].key: neighbors[i] for i in self.rng.permutation(len(neighbors))}


def sample_unseen(search_space: SearchSpace, rng: np.random.Generator, seen: Collection[str]) -> Architecture:
    """Sample an architecture whose key is not in ``seen``; a repeat if ``MAX_RESAMPLES`` samples are repeats."""
    for _ in range(MAX_RESAMPLES):
        architecture = search_space.sample(rng)
        if architecture.key not in seen:
            break
    return architecture


def sample_mutants(
    search_space: SearchSpace,
    parents: Sequence[Architecture],
    num_mutants: int,
    extra_mutation_prob: float,
    rng: np.random.Generator,
) -> list[Architecture]:
    """Sample mutants of ``parents``.

    Args:
        search_space: the search space.
        parents: the architectures to mutate, each with the same probability.
        num_mutants: number of mutants.
        extra_mutation_prob: probability of each further mutation after the first one.
        rng: chooses the parents and the mutations.
    """
    num_extra = rng.geometric(1 - extra_mutation_prob, size=num_mutants) - 1
    mutants = []
    for parent, extra in zip(rng.integers(len(parents), size=num_mutants), num_extra, strict=True):
        mutant = parents[parent]
        for _ in range(1 + extra):
            mutant = search_space.mutate(mutant, rng)
        mutants.append(mutant)
    return mutants


def neighbors_of(search_space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """Yield the distinct architectures that differ from ``architecture`` in one decision."""
    keys = {architecture.key}
    for index, size in enumerate(search_space.decision_sizes):
        for choice in range(size):
            decisions = (*architecture.decisions[:index], choice, *architecture.decisions[index + 1 :])
            neighbor = search_space.architecture(decisions)
            if neighbor.key not in keys:
                keys.add(neighbor.key)
                yield neighbor


def main(args: Args) -> None:
    """Search by hill climbing with restarts."""
    with SearchRun(args, agent="local_search") as run:
        run.search(LocalSearch(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
