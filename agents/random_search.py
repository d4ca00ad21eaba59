"""Random search: uniform architectures, no embedding and no learning. The line that every other agent must beat.

python agents/random_search.py --env-id NASES-Digits-v0 --budget 40
"""

from __future__ import annotations

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.seeding import numpy_generator


class RandomSearch(Agent):
    """Draws every child anew. One that comes twice counts twice."""

    def __init__(self, env: NASESEnv, args: SearchArgs) -> None:
        self.search_space = env.search_space
        self.rng = numpy_generator(args.seed, "random search")

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self.search_space.sample(self.rng)) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        return {}


def main(args: SearchArgs) -> None:
    """Evaluate uniformly drawn architectures and keep the best."""
    with SearchRun(args, agent="random_search") as search:
        search.run(RandomSearch(search.nases, args), args.ask_batch_size)


if __name__ == "__main__":
    run_search(SearchArgs, main)
