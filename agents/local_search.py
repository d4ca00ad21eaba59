"""Local search (White et al., 2021, "Exploring the Loss Landscape in Neural Architecture Search", Algorithm 1).

    python agents/local_search.py --env-id NASES-Digits-v0 --budget 200

From the best of a few random architectures it evaluates neighbours, the networks one decision away, in random order, and
moves to one that is better. Where none is, it is at a local optimum and starts again. Nothing is evaluated twice, and no
embedding is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.seeding import numpy_generator

NUM_TRIES = 1000  # random draws to find a network that is new; beyond, the space is all but exhausted


@dataclass
class Args(SearchArgs):
    """Local search's options."""

    num_random: int = 10
    """Random architectures, the best of which every climb starts from: 10 in the authors' code, 1 in their Algorithm 1."""
    improvement: Literal["first", "best"] = "first"
    """first: move as soon as a neighbour is better, as the authors' code does unless told otherwise: large neighbourhoods
    need not be paid for at every move. best: evaluate all neighbours and move to the best, as their Algorithm 1."""

    def __post_init__(self) -> None:
        if self.num_random < 1:
            raise InputError(f"--num-random must be at least 1, not {self.num_random}")


class LocalSearch(Agent):
    """Climbs on what it was told; where the next move waits for children in flight, it asks for starts of the next climb."""

    def __init__(self, env: NASESEnv, args: Args) -> None:
        self.search_space = env.search_space
        self.args = args
        self.rng = numpy_generator(args.seed, "local search")
        self.asked: set[str] = set()
        self.rewards: dict[str, float] = {}
        """Of the children told, by key."""
        self.starts: dict[str, Architecture] = {}
        """Random architectures for the next climb, by key, told or not."""
        self.position: Architecture | None = None
        """Where the climb stands; None before its start is chosen."""
        self.neighbours: dict[str, Architecture] = {}
        """Of the position, by key, in the order in which to ask for them."""
        self.num_local_optima = 0

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self._next_child()) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.rewards[proposal.architecture.key] = evaluation.reward
        before = self.num_local_optima
        while self._move():
            pass
        return {"local_search/local_optima": self.num_local_optima} if self.num_local_optima > before else {}

    def _next_child(self) -> Architecture:
        child = next((child for key, child in self.neighbours.items() if key not in self.asked), None)
        if child is None:
            child = self._draw_new()
            self.starts[child.key] = child
        self.asked.add(child.key)
        return child

    def _draw_new(self) -> Architecture:
        for _ in range(NUM_TRIES):
            child = self.search_space.sample(self.rng)
            if child.key not in self.asked:
                break
        return child

    def _move(self) -> bool:
        """Makes the next move of the climb, if what is known decides it; returns whether it did."""
        if self.position is None:
            told = [start for key, start in self.starts.items() if key in self.rewards]
            if len(told) < self.args.num_random:
                return False
            self.starts = {key: start for key, start in self.starts.items() if key not in self.rewards}
            self._climb_from(self._best(told))
            return True
        told = [child for key, child in self.neighbours.items() if key in self.rewards]
        if self.args.improvement == "first" or len(told) == len(self.neighbours):
            best = self._best([self.position, *told])
            if best is not self.position:
                self._climb_from(best)
                return True
        if len(told) == len(self.neighbours):
            self.num_local_optima += 1
            self.position, self.neighbours = None, {}
            return True
        return False

    def _best(self, children: list[Architecture]) -> Architecture:
        """The first of the best."""
        return max(children, key=lambda child: self.rewards[child.key])

    def _climb_from(self, position: Architecture) -> None:
        self.position = position
        neighbours = list(neighbors_of(self.search_space, position))
        self.neighbours = {neighbours[i].key: neighbours[i] for i in self.rng.permutation(len(neighbours))}


def neighbors_of(search_space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """The networks one decision away from ``architecture``, each once and without itself."""
    keys = {architecture.key}
    for index, size in enumerate(search_space.decision_sizes):
        for choice in range(size):
            decisions = (*architecture.decisions[:index], choice, *architecture.decisions[index + 1 :])
            neighbour = search_space.architecture(decisions)
            if neighbour.key not in keys:
                keys.add(neighbour.key)
                yield neighbour


def main(args: Args) -> None:
    """Search by climbing from neighbour to neighbour."""
    with SearchRun(args, agent="local_search") as search:
        search.run(LocalSearch(search.nases, args), args.ask_batch_size)


if __name__ == "__main__":
    run_search(Args, main)
