"""Bayesian optimization of accuracy and a cost: Gaussian processes and the expected hypervolume improvement.

    python agents/mo_model_assisted.py --env-id NASES-MO-Digits-v0 --budget 40

The environment has two objectives (``nases_env.envs.MOEnv``). The first children are random, of evenly spaced sizes if the
search space knows them. Then a Gaussian process is fitted to the ranks of the accuracies (``agents/reward_model.py``) and
another one to the ranks of the costs. The next child is the one with the highest expected hypervolume improvement
(Emmerich et al., 2006) among mutants of the Pareto-optimal children and random architectures: the expected area that it adds
to what the front dominates. The area is exact, as the sum over the steps of the front, because the predictions of both
processes are independent. If the environment builds networks, the costs of the best candidates are computed instead of
predicted. Pending children reduce the predicted variance of similar candidates. With rungs, the agent learns from the lowest
rung only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from nases_agents.gaussian_process import GaussianProcess, PathEncoder, Posterior, SizeScores
from nases_agents.local_search import sample_mutants
from nases_agents.policy import rank_normalize
from nases_agents.reward_model import NUM_SCREENED, best_feasible, sample_feasible
from torch import Tensor

from nases_env.envs import MOEnv, unwrap
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status, objective_value
from nases_env.pareto import pareto_front
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least, require_fraction
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator

NUM_BUILT = 20  # best candidates whose exact costs are computed, for each child
REFERENCE_MARGIN = 0.1  # of the range of an objective, by which the reference point is worse than the worst child
EXACT_STD = 1e-6  # standard deviation of an exact cost


@dataclass
class Args(SearchArgs):
    """Options of the agent."""

    uses_embedding: ClassVar[bool] = False

    num_init: int = 10
    """Children before the models are fitted."""
    num_mutants: int = 300
    """Candidates that are mutants of the Pareto-optimal children, per batch."""
    extra_mutation_prob: float = 0.4
    """Probability of each further mutation of a mutant."""
    num_random_candidates: int = 600
    """Candidates that are random architectures, per batch (exploration)."""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "num_init")
        require_at_least(self, 1, "num_mutants")
        require_at_least(self, 0, "num_random_candidates")
        require_fraction(self, "extra_mutation_prob")


class MOModelAssisted(Agent):
    """Agent that selects children by expected hypervolume improvement.

    Args:
        env: an environment with two objectives that was reset.
        args: the options, including the seed of all random generators.

    Raises:
        InputError: if the environment does not have two objectives.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.env = require_objectives(env, "mo_model_assisted", 2)
        self.search_space = self.env.search_space
        self.args = args
        self.rng = numpy_generator(args.seed, "multi-objective model-assisted")
        encoders = PathEncoder(self.search_space), SizeScores(self.search_space)
        self.processes = [GaussianProcess(self.search_space.decision_sizes, *encoders) for _ in range(2)]
        self.children: list[Architecture] = []
        self.values: list[tuple[float, float]] = []  # of both objectives
        self.has_cost: list[bool] = []  # whether the second value is that of a known cost
        self.first: list[Architecture] = []
        self.pending: list[Architecture] = []
        self.proposed: set[str] = set()
        self.exact_costs: dict[str, float | None] = {}  # the value of the cost by key

    def ask(self, num_children: int = 1) -> list[Proposal]:
        asked: list[Architecture] = []
        candidates: list[Architecture] = []
        if not self.proposed:
            self.first = self._sample_first()
        if len(self.children) >= self.args.num_init and sum(self.has_cost) >= 2:
            self._fit()
            candidates = self._sample_candidates()
        for _ in range(num_children):
            if self.first:
                child = self.first.pop(0)
            else:
                child = self._select(candidates) or sample_feasible(self.env, self.rng, self.proposed)
            self.proposed.add(child.key)
            self.pending.append(child)
            asked.append(child)
        return [Proposal(child) for child in asked]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.pending.remove(proposal.architecture)
        accuracy, cost = self.env.reward_of(evaluation).tolist()
        self.children.append(proposal.architecture)
        self.values.append((accuracy, cost))
        self.has_cost.append(evaluation.status is Status.OK)
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        self.pending.remove(proposal.architecture)

    def _sample_first(self) -> list[Architecture]:
        """Sample the first children: of evenly spaced sizes among many samples, if sizes are known."""
        samples = [self.search_space.sample(self.rng) for _ in range(NUM_SCREENED)]
        feasible = list({child.key: child for child in samples if self.env.screen(child) is None}.values())
        sizes = [self.search_space.size(child) for child in feasible]
        known = [size for size in sizes if size is not None]
        if len(known) == len(feasible):
            feasible = [feasible[index] for index in np.argsort(known, kind="stable")]
        num_first = min(self.args.num_init, len(feasible))
        chosen = np.linspace(0, len(feasible) - 1, num_first).round().astype(int)
        return [feasible[index] for index in self.rng.permutation(chosen)]

    def _fit(self) -> None:
        """Fit the processes to the ranks of the accuracies and of the values of the costs, which have few outliers."""
        values = torch.tensor(self.values, dtype=torch.float64)
        known = torch.tensor(self.has_cost)
        inputs = self.processes[0].inputs(self.children)
        self.processes[0].fit(inputs, accuracies := rank_normalize(values[:, 0]))
        self.costs = values[known, 1]
        self.cost_scores = rank_normalize(self.costs)
        # A cost grows with the size of the network, as the trend of the process does: fitted to the cost, not to its value.
        self.processes[1].fit(inputs[known.numpy()], -self.cost_scores)
        points = torch.stack([accuracies[known], self.cost_scores], dim=1)
        front = pareto_front(points.numpy())
        self.front = points[torch.from_numpy(front)]
        low, high = points.min(0).values, points.max(0).values
        self.reference = low - REFERENCE_MARGIN * (high - low).clamp_min(1e-6)
        children = [child for child, is_known in zip(self.children, self.has_cost, strict=True) if is_known]
        self.elites = [children[index] for index in front]

    def _sample_candidates(self) -> list[Architecture]:
        """Sample new architectures: mutants of the Pareto-optimal children, and random ones."""
        candidates = [self.search_space.sample(self.rng) for _ in range(self.args.num_random_candidates)]
        candidates += sample_mutants(
            self.search_space, self.elites, self.args.num_mutants, self.args.extra_mutation_prob, self.rng
        )
        return list({child.key: child for child in candidates if child.key not in self.proposed}.values())

    def _select(self, candidates: list[Architecture]) -> Architecture | None:
        """Return the feasible candidate with the highest expected improvement and remove it; None if there is none."""
        if not candidates:
            return None
        accuracy, cost = self._posteriors(candidates)
        values = self._improvement(accuracy, cost)
        for index in values.argsort(descending=True)[:NUM_BUILT].tolist():
            score = self._exact_score(candidates[index])
            if score is not None:
                cost.mean[index], cost.std[index] = score, EXACT_STD
        values = self._improvement(accuracy, cost)
        chosen = best_feasible(self.env, candidates, values)
        return None if chosen is None else candidates.pop(chosen)

    def _posteriors(self, candidates: Sequence[Architecture]) -> tuple[Posterior, Posterior]:
        """Return the posteriors of the scores of the accuracies and of the costs."""
        inputs, pending = (self.processes[0].inputs(each) for each in (candidates, self.pending))
        accuracy, cost = (process.posterior(inputs, pending) for process in self.processes)
        return accuracy, cost._replace(mean=-cost.mean)

    def _improvement(self, accuracy: Posterior, cost: Posterior) -> Tensor:
        return expected_hypervolume_improvement(accuracy, cost, self.front, self.reference)

    def _exact_score(self, child: Architecture) -> float | None:
        """Return the score of the exact cost of a child, between those of the evaluated ones; None if it is not known."""
        value = self._exact_cost(child)
        if value is None or not float(self.costs.min()) <= value <= float(self.costs.max()):
            return None
        order = self.costs.argsort()
        return float(np.interp(value, self.costs[order].numpy(), self.cost_scores[order].numpy()))

    def _exact_cost(self, child: Architecture) -> float | None:
        """Return the value of the cost of a child, computed from its network; None if it must be evaluated."""
        kind = self.env.kinds[1]
        if kind == "latency":  # it is measured
            return None
        if child.key not in self.exact_costs:
            costs = self.env.costs(child)
            self.exact_costs[child.key] = None if costs is None else objective_value(kind, costs)
        return self.exact_costs[child.key]


def require_objectives(env: gym.Env[Any, Any], agent: str, number: int | None = None) -> MOEnv:
    """Return the environment with several objectives in ``env``.

    Args:
        env: the environment.
        agent: the name of the agent, for the message.
        number: the number of objectives; None: any.

    Raises:
        InputError: if it has another number of objectives.
    """
    found = unwrap(env)
    if not isinstance(found, MOEnv):
        raise InputError(f"{agent} needs an environment with several objectives; pass one such as NASES-MO-Digits-v0")
    if number is not None and found.reward_dim != number:
        raise InputError(f"{agent} needs {number} objectives, not {', '.join(found.objectives)}; omit the others")
    return found


def expected_hypervolume_improvement(first: Posterior, second: Posterior, front: Tensor, reference: Tensor) -> Tensor:
    """Compute the expected area that each candidate adds to what ``front`` dominates, shape (C,); exact.

    The front divides the values of the first objective into intervals. In each of them, the front has the same value of the
    second one, above which the area is new. So the added area is a sum of products of the two objectives, whose predictions
    are independent.

    Args:
        first: the posterior of the first objective.
        second: the posterior of the second objective.
        front: Pareto-optimal points in the order of the first objective, best first, shape (N, 2).
        reference: the reference point, shape (2,).
    """
    front = front[(front > reference).all(1)]
    bounds = torch.cat([front[:, 0].flip(0), front.new_tensor([math.inf])])
    lower = torch.cat([reference[:1], front[:, 0].flip(0)])
    heights = torch.cat([front[:, 1].flip(0), reference[1:]])
    widths = _expected_excess(first, lower) - _expected_excess(first, bounds)
    improvement: Tensor = (widths * _expected_excess(second, heights)).sum(1)
    return improvement


def _expected_excess(posterior: Posterior, levels: Tensor) -> Tensor:
    """Compute E[max(0, X - level)] for each candidate and level, shape (C, L)."""
    gain = (posterior.mean[:, None] - levels) / posterior.std[:, None]
    density = torch.exp(-0.5 * gain.square()) / math.sqrt(2 * math.pi)
    excess = posterior.std[:, None] * (gain * torch.special.ndtr(gain) + density)
    return torch.where(levels.isinf(), 0.0, excess)


def main(args: Args) -> None:
    """Search the Pareto front of accuracy and a cost by Bayesian optimization."""
    with SearchRun(args, agent="mo_model_assisted") as run:
        run.search(MOModelAssisted(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
