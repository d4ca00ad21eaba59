"""Bayesian optimization of accuracy and a cost: Gaussian processes and the expected hypervolume improvement.

    python agents/mo_model_assisted.py --env-id NASES-MO-Digits-v0 --budget 40

The environment has two objectives (``nases_env.envs.MOEnv``). The first children are random; if the search space knows the
sizes of architectures, they are at evenly spaced quantiles of the size. Then a Gaussian process
(``agents/gaussian_process.py``) is fitted to the ranks of the accuracies, and another one to the ranks of the costs.

The next child is the candidate with the highest expected hypervolume improvement (Emmerich et al., 2006): the expected
increase of the area that the Pareto front dominates. The candidates are mutants of the Pareto-optimal children and random
architectures. The area is computed alternately from values and from ranks. With values, the agent finds the cheapest
networks that are not much worse; with ranks, it finds the most accurate networks. The predictions of the two processes are
independent, so the expected area is a sum over the steps of the front.

If the environment builds networks, the costs of the best candidates are computed instead of predicted, except for the
latency, which must be measured. Pending children reduce the predicted variance of similar candidates. With rungs, the agent
learns from the first rung only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from nases_agents.gaussian_process import GaussianProcess, PathEncoder, Posterior, SizeScores, normal_excess
from nases_agents.local_search import sample_mutants
from nases_agents.policy import rank_normalize
from nases_agents.reward_model import NUM_SCREENED, best_feasible, sample_feasible
from numpy.typing import NDArray
from torch import Tensor

from nases_env.envs import MOEnv, NASESEnv, unwrap
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status, objective_value
from nases_env.pareto import pareto_front
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least, require_fraction
from nases_env.search_spaces import Architecture
from nases_env.seeding import numpy_generator

NUM_BUILT = 20  # best candidates whose exact costs are computed, for each child
SCORE_MARGIN = 0.1  # of the range of the scores, by which the reference point is worse than the worst child
VALUE_MARGIN = 0.01  # the same for values
EXACT_STD = 1e-6  # standard deviation of an exact cost
NUM_QUANTILES = 33  # of a prediction, to compute expected values
QUARTILE = 0.674  # of the standard normal distribution
Excess = Callable[[Tensor], Tensor]
"""The expected excess of an objective over levels of shape (L,), for each candidate: shape (C, L)."""


class Front(NamedTuple):
    """What the evaluated children dominate.

    Attributes:
        indices: the Pareto-optimal children in the order of the first objective, best first, shape (N,).
        points: their objectives, shape (N, 2).
        reference: the reference point, shape (2,).
    """

    indices: NDArray[np.int64]
    points: Tensor
    reference: Tensor

    @classmethod
    def of(cls, points: Tensor, margin: float) -> Front:
        """Return the front of points of shape (N, 2), with a reference point that is worse than all of them."""
        indices = pareto_front(points.numpy())
        low, high = points.min(0).values, points.max(0).values
        return cls(indices, points[torch.from_numpy(indices)], low - margin * (high - low).clamp_min(1e-6))


class Scale:
    """Converts between the values of an objective and their scores, by linear interpolation between the children.

    ``quantiles`` extrapolates beyond the children with the slope between the quartiles.

    Args:
        scores: the scores of the children, which are those of ``rank_normalize``, shape (N,).
        values: their values, shape (N,).
    """

    def __init__(self, scores: Tensor, values: Tensor) -> None:
        order = scores.argsort()
        self.scores, self.values = scores[order].numpy(), values[order].numpy()
        low, high = np.quantile(self.values, [0.25, 0.75])
        self.slope = (high - low) / (2 * QUARTILE)  # a few outliers do not change it

    def score(self, value: float) -> float | None:
        """Return the score of a value; None if it is not between those of the children."""
        if not self.values[0] <= value <= self.values[-1]:
            return None
        return float(np.interp(value, self.values, self.scores))

    def quantiles(self, posterior: Posterior) -> Tensor:
        """Return equally probable values for the predicted scores, shape (C, NUM_QUANTILES)."""
        levels = (torch.arange(NUM_QUANTILES, dtype=torch.float64) + 0.5) / NUM_QUANTILES
        scores = (posterior.mean[:, None] + posterior.std[:, None] * torch.special.ndtri(levels)).numpy()
        beyond = (scores - self.scores[-1]).clip(min=0) + (scores - self.scores[0]).clip(max=0)
        return torch.from_numpy(np.interp(scores, self.scores, self.values) + self.slope * beyond)


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

    def check_env(self, env: NASESEnv) -> None:
        require_objectives(env, "mo_model_assisted", 2)


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
        encoders = PathEncoder(self.search_space), SizeScores.of(self.search_space, self.search_space.size)
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
        """Sample the first children: at evenly spaced quantiles of the size among many samples, if sizes are known.

        With a limit of a latency that is measured, they are the first feasible samples, because each check measures one.
        """
        samples = [self.search_space.sample(self.rng) for _ in range(NUM_SCREENED)]
        distinct = {child.key: child for child in samples}.values()
        evaluator = self.env.evaluator
        num_feasible = self.args.num_init if evaluator.is_screening_slow else NUM_SCREENED
        feasible = list(islice((child for child in distinct if self.env.is_feasible(child)), num_feasible))
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
        costs = rank_normalize(values[known, 1])
        # The targets are the ranks of the cost, not of the objective, which is its negated logarithm: the trend of the
        # process assumes that the targets grow with the size of the network.
        self.processes[1].fit(inputs[known.numpy()], -costs)
        self.scales = Scale(accuracies, values[:, 0]), Scale(costs, values[known, 1])
        self.score_front = Front.of(torch.stack([accuracies[known], costs], dim=1), SCORE_MARGIN)
        self.value_front = Front.of(values[known], VALUE_MARGIN)
        children = [child for child, is_known in zip(self.children, self.has_cost, strict=True) if is_known]
        self.elites = [children[index] for index in self.score_front.indices]

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
        """Return the expected improvement of each candidate: of values for every second child, otherwise of scores."""
        posteriors = accuracy, cost
        if len(self.proposed) % 2 == 1:
            first, second = (partial(normal_excess, each) for each in posteriors)
            return expected_hypervolume_improvement(first, second, self.score_front)
        quantiles = (scale.quantiles(each) for scale, each in zip(self.scales, posteriors, strict=True))
        first, second = (partial(mean_excess, each) for each in quantiles)
        return expected_hypervolume_improvement(first, second, self.value_front)

    def _exact_score(self, child: Architecture) -> float | None:
        """Return the score of the exact cost of a child, between those of the evaluated ones; None if it is not known."""
        value = self._exact_cost(child)
        return None if value is None else self.scales[1].score(value)

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


def expected_hypervolume_improvement(first: Excess, second: Excess, front: Front) -> Tensor:
    """Compute the expected area that each candidate adds to what ``front`` dominates, shape (C,).

    The front divides the values of the first objective into intervals. In each of them, the front has the same value of the
    second one, above which the area is new. So the added area is a sum of products of the two objectives, whose predictions
    are independent.

    Args:
        first: the expected excess of the first objective.
        second: that of the second objective.
        front: what the children dominate.
    """
    reference = front.reference
    points = front.points[(front.points > reference).all(1)]
    bounds = torch.cat([points[:, 0].flip(0), points.new_tensor([math.inf])])
    lower = torch.cat([reference[:1], points[:, 0].flip(0)])
    heights = torch.cat([points[:, 1].flip(0), reference[1:]])
    improvement: Tensor = ((first(lower) - first(bounds)) * second(heights)).sum(1)
    return improvement


def mean_excess(quantiles: Tensor, levels: Tensor) -> Tensor:
    """Compute E[max(0, X - level)] for each candidate and level from equally probable values (C, Q), shape (C, L)."""
    return (quantiles[:, :, None] - levels).clamp_min(0).mean(1)


def main(args: Args) -> None:
    """Search for the Pareto front of accuracy and a cost by Bayesian optimization."""
    with SearchRun(args, agent="mo_model_assisted") as run:
        run.search(MOModelAssisted(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
