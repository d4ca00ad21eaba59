"""REINFORCE for several objectives: one policy in the embedding space for all preferences between the objectives.

    python agents/mo_reinforce.py --env-id NASES-MO-Digits-v0 --budget 100

This is ``agents/elite_reinforce.py`` with a policy that is conditioned on a preference: one weight per objective, with a sum
of 1. The weights of each child are the next point of a scrambled Sobol sequence, so they cover the simplex evenly. A linear
layer maps the weights to a shift of the controller's output. It is initialized to zero, so the search starts as the
pretrained simulator does.

For given weights, the value of a child is the augmented Chebyshev scalarization of the ranks of its objectives. Ranks depend
neither on the units nor on the outliers of the objectives; children without a result have the lowest ranks. Unlike a
weighted sum, the Chebyshev scalarization can prefer any Pareto-optimal child, even where the front is not convex.

The controller reads a mutant of one of the best children for the weights of the next child. In an update, the advantage of
a replayed child is the normal quantile of the rank of its value among those of all children for its weights, so the baseline
is their median. Each update computes the values of all children for these weights, because their objectives are known. With
rungs, the agent learns from the first rung only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from nases_agents import elite_reinforce
from nases_agents.elite_reinforce import EliteReinforce
from nases_agents.mo_model_assisted import require_objectives
from nases_agents.policy import PolicySample, rank_shares
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from nases_env.envs import MOEnv, NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.optimizers import Adam
from nases_env.search import SearchRun, run_search
from nases_env.search.agent import Proposal
from nases_env.search_spaces import Architecture
from nases_env.seeding import derive_seed

AUGMENTATION = 0.01  # weight of the sum in the scalarization, so that a child is better than those that it dominates
SHIFT_LEARNING_RATE_FACTOR = 10.0  # the layer of the weights starts at zero, so it needs larger steps than the controller


@dataclass
class Args(elite_reinforce.Args):
    """Options of REINFORCE for several objectives."""

    elite_geometric_decay: float = 0.2
    """Geometric decay of the probability that a child is selected as elite: P(rank r) is proportional to decay^(r - 1),
    where r = 1 is the best child for the weights. Different weights already select different children."""
    learning_starts: int | None = None
    """Children decoded from random embeddings (standard normal) before the controller is used; it is not trained on them.
    Default: 10, or half of the budget if that is less; with --time alone, 10. Pass fewer for a short search."""

    def check_env(self, env: NASESEnv) -> None:
        require_objectives(env, "mo_reinforce")

    @property
    def resolved_learning_starts(self) -> int:
        return min(10, self.budget // 2) if self.learning_starts is None else self.learning_starts


class ConditionedController(nn.Module):
    """A controller whose output is shifted by a linear function of the weights of the objectives, zero at first.

    Its input is an architecture vector followed by the weights, shape (B, m + objectives).

    Args:
        simulator: the controller without weights.
        embedding_size: size of its output.
        num_objectives: number of objectives.
    """

    def __init__(self, simulator: nn.Module, embedding_size: int, num_objectives: int) -> None:
        super().__init__()
        self.simulator = simulator
        self.shift = nn.Linear(num_objectives, embedding_size, bias=False)
        nn.init.zeros_(self.shift.weight)

    def forward(self, states: Tensor) -> Tensor:
        vectors, weights = states.tensor_split([-self.shift.in_features], dim=1)
        # Equal weights are not shifted: what all weights have in common is learned by the controller.
        output: Tensor = self.simulator(vectors) + self.shift(weights - weights.mean(dim=1, keepdim=True))
        return output


class MOReinforce(EliteReinforce):
    """Samples unseen children from the conditioned policy, each for other weights, and updates it.

    Args:
        env: an environment with several objectives that was reset.
        args: the options, including the seed of all random generators.

    Raises:
        InputError: if the environment has one objective.
    """

    env: MOEnv

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        num_objectives = require_objectives(env, "mo_reinforce").reward_dim
        super().__init__(env, args)
        sizes = self.env.embedding.embedding_size, num_objectives
        controller = ConditionedController(self.controller, *sizes)
        self.controller = controller
        self.reference_controller = ConditionedController(self.reference_controller, *sizes).requires_grad_(False)
        shift_learning_rate = SHIFT_LEARNING_RATE_FACTOR * args.learning_rate
        self.optimizer = Adam(controller.simulator.parameters(), lr=args.learning_rate)
        self.optimizer.add_param_group({"params": controller.shift.parameters(), "lr": shift_learning_rate})
        seed = derive_seed(args.seed, "policy", "weights")
        self.sequence = SobolEngine(num_objectives - 1, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        self.weights = torch.full((num_objectives,), 1 / num_objectives)  # those of the next child
        self.values: list[NDArray[np.float32]] = []  # of the objectives, as in the history

    def read(self, child: Architecture) -> Tensor:
        return torch.cat([super().read(child), self.weights])

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.values.append(self.env.reward_of(evaluation))
        return super().tell(proposal, evaluation)

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        return {}  # only the first rung counts

    def _next_sample(self) -> PolicySample:
        """Draw the weights of the next child, rank the children for them, and sample it."""
        if not self.is_warming_up:
            self.weights = simplex_point(self.sequence.draw()[0])
            if self.history:
                order = scalarize(self._ranks(), self.weights).argsort(descending=True, stable=True)
                self.ranking = [self.history[index] for index in order.tolist()]
        return super()._next_sample()

    def _advantages(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the advantages of the children at ``indices`` of the history, each for its own weights."""
        ranks = self._ranks()
        samples = [self.history[index].sample for index in indices]
        values = [scalarize(ranks, sample.state[-len(self.weights) :]) for sample in samples]
        shares = torch.stack([rank_shares(each)[index] for each, index in zip(values, indices, strict=True)]).float()
        advantages: Tensor = torch.special.ndtri(shares)
        return advantages

    def _ranks(self) -> Tensor:
        return relative_ranks(np.stack(self.values))


def simplex_point(cuts: Tensor) -> Tensor:
    """Return the lengths of the intervals between ``cuts`` of [0, 1]: uniform on the simplex if the cuts are uniform."""
    return torch.cat([cuts.new_zeros(1), cuts.sort().values, cuts.new_ones(1)]).diff()


def relative_ranks(values: NDArray[np.floating]) -> Tensor:
    """Return the ranks of ``values`` in each column, divided by their number, minus that of the best: shape (N, objectives).

    Ties share their average rank.
    """
    shares = torch.stack([rank_shares(column) for column in torch.from_numpy(values).T], dim=1)
    return shares - shares.max(dim=0).values


def scalarize(ranks: Tensor, weights: Tensor) -> Tensor:
    """Return the augmented Chebyshev scalarization of ``ranks`` (N, objectives), shape (N,); at most 0."""
    weighted = ranks * weights
    value: Tensor = weighted.min(dim=1).values + AUGMENTATION * weighted.sum(dim=1)
    return value


def main(args: Args) -> None:
    """Search for the Pareto front with REINFORCE, with a policy conditioned on the preference between the objectives."""
    # Recorded, so that a search that is resumed with a larger budget keeps its schedule.
    args = dataclasses.replace(args, **args.schedule)
    with SearchRun(args, agent="mo_reinforce") as run:
        run.search(MOReinforce(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
