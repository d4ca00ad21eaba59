"""Random search: uniform sampling of architectures, without an embedding; the baseline.

python agents/random_search.py --env-id NASES-Digits-v0 --budget 40
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym

from nases_env.envs import unwrap
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.seeding import numpy_generator


@dataclass
class Args(SearchArgs):
    """Options of random search."""

    uses_embedding: ClassVar[bool] = False


class RandomSearch(Agent):
    """Sample architectures uniformly and independently; repeated ones count toward the budget."""

    def __init__(self, env: gym.Env[Any, Any], args: SearchArgs) -> None:
        self.search_space = unwrap(env).search_space
        self.rng = numpy_generator(args.seed, "random search")

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self.search_space.sample(self.rng)) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        return {}


def main(args: SearchArgs) -> None:
    """Search by uniform sampling."""
    with SearchRun(args, agent="random_search") as run:
        run.search(RandomSearch(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
