"""Write your own agent, hill climbing, and compare it with random search on random landscapes.

python examples/own_agent.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import gymnasium
from nases_agents.random_search import RandomSearch

from nases_env.envs import NASESEnv, unwrap
from nases_env.evaluation import Evaluation
from nases_env.search import Agent, Proposal, SearchArgs, SearchLoop
from nases_env.seeding import numpy_generator


class HillClimbing(Agent):
    """Change one decision of the best architecture so far."""

    def __init__(self, env: NASESEnv, args: SearchArgs) -> None:
        self.search_space = env.search_space
        self.rng = numpy_generator(args.seed, "hill climbing")
        self.best = self.search_space.sample(self.rng)
        self.best_reward = 0.0

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [Proposal(self.search_space.mutate(self.best, self.rng)) for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        if evaluation.reward >= self.best_reward:
            self.best, self.best_reward = proposal.architecture, evaluation.reward
        return {}


def best_reward(make_agent: Callable[[NASESEnv, SearchArgs], Agent], seed: int, budget: int) -> float:
    """Return the best reward of a search on the random landscape ``seed``."""
    env = unwrap(gymnasium.make("nases_env:NASES-Synthetic-v0", landscape_seed=seed))
    env.reset(seed=seed)
    with SearchLoop(env, budget) as loop:
        loop.run(make_agent(env, SearchArgs(seed=seed)))
    assert loop.best is not None
    return loop.best.evaluation.reward


def main(num_seeds: int = 10, budget: int = 200) -> None:
    """Print the mean of the best rewards of both agents over ``num_seeds`` landscapes."""
    print(f"mean of the best reward of {budget} children, {num_seeds} landscapes")
    for agent in (RandomSearch, HillClimbing):
        rewards = [best_reward(agent, seed, budget) for seed in range(num_seeds)]
        print(f"{agent.__name__}: {statistics.mean(rewards):.3f}")


if __name__ == "__main__":
    main()
