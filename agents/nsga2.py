"""NSGA-II (Deb et al., 2002, "A Fast and Elitist Multiobjective Genetic Algorithm") of Optuna, for several objectives.

    pip install 'nases-env[baselines]'
    python agents/nsga2.py --env-id NASES-MO-Digits-v0 --budget 40

Each decision is a categorical parameter. A new child is a crossover of two parents with mutations; parents are selected by
non-dominated sorting and crowding distance. A repeat is not evaluated again: the study learns its known values and is asked
again. No embedding is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
from nases_agents.mo_model_assisted import require_objectives
from nases_agents.tpe import MAX_RESAMPLES, TrialProposal

from nases_env.evaluation import Evaluation
from nases_env.extras import import_extra
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least
from nases_env.seeding import derive_seed


@dataclass
class Args(SearchArgs):
    """Options of NSGA-II. All others are Optuna's defaults."""

    uses_embedding: ClassVar[bool] = False

    population_size: int = 20
    """Children of a generation; 50 in Optuna, whose first generation is random."""

    def __post_init__(self) -> None:
        require_at_least(self, 2, "population_size")


class NSGA2(Agent):
    """Agent that asks a study of Optuna in memory. It learns from the lowest rung only.

    Args:
        env: an environment with several objectives that was reset.
        args: the options, including the seed.

    Raises:
        InputError: if Optuna is not installed, or the environment has one objective.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.optuna = import_optuna()
        self.env = require_objectives(env, "nsga2")
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        sampler = self.optuna.samplers.NSGAIISampler(
            population_size=args.population_size, seed=derive_seed(args.seed, "nsga2") % 2**32
        )
        self.study = self.optuna.create_study(directions=["maximize"] * self.env.reward_dim, sampler=sampler)
        self.distributions = {
            str(index): self.optuna.distributions.CategoricalDistribution(tuple(range(size)))
            for index, size in enumerate(self.env.search_space.decision_sizes)
        }
        self.proposed: set[str] = set()
        self.values: dict[str, list[float]] = {}  # by key

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self._next_child() for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, TrialProposal), "the proposal must come from ask"
        values = self.env.reward_of(evaluation).tolist()
        self.values[proposal.architecture.key] = values
        self.study.tell(proposal.trial, values)
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        """Report the trial as failed, which takes no part in the selection."""
        assert isinstance(proposal, TrialProposal), "the proposal must come from ask"
        self.study.tell(proposal.trial, state=self.optuna.trial.TrialState.FAIL)

    def _next_child(self) -> TrialProposal:
        """Sample until an architecture is unseen; after ``MAX_RESAMPLES`` repeats, return a repeat."""
        proposal = self._sample()
        for _ in range(MAX_RESAMPLES):
            if proposal.architecture.key not in self.proposed:
                break
            self._tell_repeat(proposal)
            proposal = self._sample()
        self.proposed.add(proposal.architecture.key)
        return proposal

    def _tell_repeat(self, proposal: TrialProposal) -> None:
        """Report the known values of a repeat; without them, the trial takes no part in the selection."""
        values = self.values.get(proposal.architecture.key)
        state = self.optuna.trial.TrialState
        self.study.tell(proposal.trial, values, state=state.FAIL if values is None else state.COMPLETE)

    def _sample(self) -> TrialProposal:
        trial = self.study.ask(self.distributions)
        architecture = self.env.search_space.architecture([trial.params[name] for name in self.distributions])
        return TrialProposal(architecture, trial=trial.number)


def import_optuna() -> Any:
    """Return the module optuna.

    Raises:
        InputError: if it is not installed.
    """
    return import_extra("optuna", "baselines", "NSGA-II")


def main(args: Args) -> None:
    """Search the Pareto front with Optuna's NSGA-II on the decisions, without an embedding."""
    import_optuna()  # before anything is written
    with SearchRun(args, agent="nsga2") as run:
        run.search(NSGA2(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
