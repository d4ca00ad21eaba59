"""The base of agents that ask a study of Optuna for the decisions of a child."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nases_env.evaluation import Evaluation
from nases_env.extras import import_extra
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import SearchSpace

MAX_RESAMPLES = 100  # samples to find an unseen architecture; after that the space is almost exhausted


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialProposal(Proposal):
    """A child with the number of its trial in Optuna's study."""

    trial: int


class OptunaAgent(Agent):
    """Agent that asks a study of Optuna in memory, with one categorical parameter per decision.

    A repeat is not evaluated again: the study learns its known values and is asked again.

    Args:
        optuna: the module optuna.
        sampler: a sampler of Optuna.
        search_space: the search space.
        num_objectives: number of values of a child, all of which are maximized.
    """

    infeasible_state: ClassVar[str]
    """Name of the state of Optuna's trials of infeasible children."""

    def __init__(self, optuna: Any, sampler: Any, search_space: SearchSpace, num_objectives: int = 1) -> None:
        self.search_space = search_space
        self.states = optuna.trial.TrialState
        self.study = optuna.create_study(directions=["maximize"] * num_objectives, sampler=sampler)
        self.distributions = {
            str(index): optuna.distributions.CategoricalDistribution(tuple(range(size)))
            for index, size in enumerate(search_space.decision_sizes)
        }
        self.proposed: set[str] = set()
        self._is_exhausted = False
        self.values: dict[str, float | Sequence[float]] = {}  # at the first rung, by key

    @abstractmethod
    def values_of(self, evaluation: Evaluation) -> float | Sequence[float]:
        """Return what the study maximizes."""

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self._next_child() for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, TrialProposal), "the proposal must come from ask"
        values = self.values_of(evaluation)
        self.values[proposal.architecture.key] = values
        self.study.tell(proposal.trial, values)
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        assert isinstance(proposal, TrialProposal), "the proposal must come from ask"
        self.study.tell(proposal.trial, state=self.states[self.infeasible_state])

    def _next_child(self) -> TrialProposal:
        """Sample until an architecture is unseen; after ``MAX_RESAMPLES`` repeats in a row, return repeats from then on.

        Each repeat is a trial of the study, and the time of a sample grows with their number.
        """
        proposal = self._sample()
        num_left = 0 if self._is_exhausted else MAX_RESAMPLES
        while num_left and proposal.architecture.key in self.proposed:
            self._tell_repeat(proposal)
            proposal = self._sample()
            num_left -= 1
        self._is_exhausted = num_left == 0
        self.proposed.add(proposal.architecture.key)
        return proposal

    def _tell_repeat(self, proposal: TrialProposal) -> None:
        """Report the known values of a repeat; without them, the study ignores the trial."""
        values = self.values.get(proposal.architecture.key)
        state = self.states.FAIL if values is None else self.states.COMPLETE
        self.study.tell(proposal.trial, values, state=state)

    def _sample(self) -> TrialProposal:
        trial = self.study.ask(self.distributions)
        params = trial.params  # a deep copy
        architecture = self.search_space.architecture([params[name] for name in self.distributions])
        return TrialProposal(architecture, trial=trial.number)


def import_optuna(purpose: str) -> Any:
    """Return the module optuna, which prints warnings only.

    Args:
        purpose: what needs it, for the message.

    Raises:
        InputError: if it is not installed.
    """
    optuna = import_extra("optuna", "baselines", purpose)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
