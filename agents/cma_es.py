"""CMA-ES in the embedding space (Hansen, 2016, "The CMA Evolution Strategy: A Tutorial"), with the library cmaes.

    pip install 'nases-env[baselines]'
    python agents/cma_es.py --env-id NASES-Digits-v0 --budget 40

The search distribution is a Gaussian over actions, initially that of random embeddings. It is updated with the rewards of
each generation of samples. A sample that decodes to a known architecture has the known reward and is not evaluated again, so
a generation may need fewer children than samples. The distribution restarts from its initial state if ``MAX_RESAMPLES``
samples in a row yield no new architecture, or if a stopping criterion of cmaes is met.

With several children in flight, a generation consists of the next samples whose rewards arrive, although some of them were
sampled before the last update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from nases_env.envs import ACTION_SCALE, Action, unwrap
from nases_env.evaluation import Evaluation
from nases_env.extras import import_extra
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least, require_positive
from nases_env.search_spaces import Architecture
from nases_env.seeding import derive_seed

MAX_RESAMPLES = 100  # samples to find a new architecture; after that the distribution restarts


@dataclass
class Args(SearchArgs):
    """Options of CMA-ES."""

    population_size: int | None = None
    """Samples per generation, at least 4. Default: 4 + floor(3 ln n) for n dimensions of the embedding, as in Hansen
    (2016)."""
    std: float = 1.0
    """Initial standard deviation of the distribution, in standard deviations of the embedding; with 1 the first children are
    as diverse as those of random embeddings."""

    def __post_init__(self) -> None:
        require_at_least(self, 4, "population_size")
        require_positive(self, "std")


class CMAES(Agent):
    """Agent that samples actions from a Gaussian and adapts its mean and covariance. It learns from the first rung only.

    Args:
        env: an environment that was reset.
        args: the options, including the seed.

    Attributes:
        rewards: reward of each known architecture by key; 0 for infeasible ones, as in ``NASESEnv.step``.
        waiting: samples of each architecture that was proposed and has no reward yet, by key.
        generation: samples with a reward since the last update, with their rewards.
        num_restarts: number of restarts of the distribution.

    Raises:
        InputError: if cmaes is not installed.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.cmaes = import_cmaes()
        self.env = unwrap(env)
        self.args = args
        self.rewards: dict[str, float] = {}
        self.waiting: dict[str, list[Action]] = {}
        self.generation: list[tuple[Action, float]] = []
        self.num_restarts = 0
        self.optimizer = self._make_optimizer()
        self.metrics: dict[str, float] = {}

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self._next_child() for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self._learn(proposal.architecture.key, evaluation.reward)
        metrics, self.metrics = self.metrics, {}
        return metrics

    def tell_infeasible(self, proposal: Proposal) -> None:
        self._learn(proposal.architecture.key, 0.0)

    def _make_optimizer(self) -> Any:
        num_dimensions = self.env.embedding.embedding_size
        return self.cmaes.CMA(
            mean=np.zeros(num_dimensions),
            sigma=self.args.std / ACTION_SCALE,
            bounds=np.tile((-1.0, 1.0), (num_dimensions, 1)),
            seed=derive_seed(self.args.seed, "cma-es", str(self.num_restarts)) % 2**32,
            population_size=self.args.population_size,
        )

    def _restart(self) -> None:
        """Restart from the initial distribution; samples of the old one do not update the new one."""
        self.num_restarts += 1
        self.optimizer = self._make_optimizer()
        self.generation = []
        self.waiting = {key: [] for key in self.waiting}

    def _next_child(self) -> Proposal:
        """Sample until an architecture is new; after a restart, return the first one, even if it is a repeat."""
        if self.optimizer.should_stop():
            self._restart()
        for _ in range(MAX_RESAMPLES):
            architecture, action = self._sample()
            if architecture.key in self.rewards:
                self._add(action, self.rewards[architecture.key])
            elif architecture.key in self.waiting:
                self.waiting[architecture.key].append(action)
            else:
                self.waiting[architecture.key] = [action]
                return Proposal(architecture, action)
        self._restart()
        architecture, action = self._sample()
        self.waiting.setdefault(architecture.key, []).append(action)
        return Proposal(architecture, action)

    def _sample(self) -> tuple[Architecture, Action]:
        action: Action = self.optimizer.ask().astype(np.float32)
        return self.env.decode(action), action

    def _learn(self, key: str, reward: float) -> None:
        self.rewards.setdefault(key, reward)
        for action in self.waiting.pop(key, []):
            self._add(action, reward)

    def _add(self, action: Action, reward: float) -> None:
        """Add a sample to the generation; update the distribution if the generation is complete."""
        self.generation.append((action, reward))
        if len(self.generation) == self.optimizer.population_size:
            self.optimizer.tell([(action.astype(np.float64), -reward) for action, reward in self.generation])
            mean = sum(reward for _, reward in self.generation) / len(self.generation)
            self.metrics = {"cma_es/generation_reward_mean": mean}
            self.generation = []


def import_cmaes() -> Any:
    """Return the module cmaes.

    Raises:
        InputError: if it is not installed.
    """
    return import_extra("cmaes", "baselines", "CMA-ES")


def main(args: Args) -> None:
    """Search with CMA-ES in the embedding space."""
    import_cmaes()  # before anything is written
    with SearchRun(args, agent="cma_es") as run:
        run.search(CMAES(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
