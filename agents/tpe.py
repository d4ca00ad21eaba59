"""The tree-structured Parzen estimator (Bergstra et al., 2011, "Algorithms for Hyper-Parameter Optimization") of Optuna.

    pip install 'nases-env[baselines]'
    python agents/tpe.py --env-id NASES-Digits-v0 --budget 40

Each decision is a categorical parameter. One density is fitted to the good children and one to the others; the next child is
the sample of the first density with the largest ratio of both. Children in flight count as bad, so that others are not close
to them. A repeat is not evaluated again: the study learns its known reward and is asked again. No embedding is used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym

from nases_env.envs import unwrap
from nases_env.evaluation import Evaluation
from nases_env.extras import import_extra
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_at_least
from nases_env.seeding import derive_seed

MAX_RESAMPLES = 100  # samples to find an unseen architecture; after that the space is almost exhausted


@dataclass
class Args(SearchArgs):
    """Options of TPE. All others are Optuna's defaults."""

    uses_embedding: ClassVar[bool] = False

    num_init: int = 10
    """Random architectures before the densities are fitted; 10 in Optuna."""
    num_candidates: int = 24
    """Samples of the density of good children, the best of which is the next child; 24 in Optuna."""
    multivariate: bool = True
    """Fit joint densities of all decisions, the default since Optuna 5. Independent ones take several times longer and often
    propose repeats."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "num_init", "num_candidates")


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialProposal(Proposal):
    """A child with the number of its trial in Optuna's study."""

    trial: int


class TPE(Agent):
    """Agent that asks a study of Optuna in memory. It learns from the lowest rung only.

    Args:
        env: an environment that was reset.
        args: the options, including the seed.

    Raises:
        InputError: if Optuna is not installed.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.optuna = import_optuna()
        self.search_space = unwrap(env).search_space
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        with warnings.catch_warnings():
            # Optuna 4 marks both options as experimental.
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            sampler = self.optuna.samplers.TPESampler(
                n_startup_trials=args.num_init,
                n_ei_candidates=args.num_candidates,
                multivariate=args.multivariate,
                constant_liar=True,
                seed=derive_seed(args.seed, "tpe") % 2**32,
            )
        self.study = self.optuna.create_study(direction="maximize", sampler=sampler)
        self.distributions = {
            str(index): self.optuna.distributions.CategoricalDistribution(tuple(range(size)))
            for index, size in enumerate(self.search_space.decision_sizes)
        }
        self.proposed: set[str] = set()
        self.rewards: dict[str, float] = {}  # at the lowest rung, by key

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self._next_child() for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, TrialProposal), "the proposal must come from ask"
        self.rewards[proposal.architecture.key] = evaluation.reward
        self.study.tell(proposal.trial, evaluation.reward)
        return {}

    def tell_infeasible(self, proposal: Proposal) -> None:
        """Report the trial as pruned, which TPE ranks below all evaluated ones."""
        assert isinstance(proposal, TrialProposal), "the proposal must come from ask"
        self.study.tell(proposal.trial, state=self.optuna.trial.TrialState.PRUNED)

    def _next_child(self) -> TrialProposal:
        """Sample until an architecture is unseen; after ``MAX_RESAMPLES`` repeats, return a repeat."""
        proposal = self._sample()
        for _ in range(MAX_RESAMPLES):
            key = proposal.architecture.key
            if key not in self.proposed:
                break
            self._tell_repeat(proposal)
            proposal = self._sample()
        self.proposed.add(proposal.architecture.key)
        return proposal

    def _tell_repeat(self, proposal: TrialProposal) -> None:
        """Report the known reward of a repeat; without one, TPE ignores the trial."""
        reward = self.rewards.get(proposal.architecture.key)
        state = self.optuna.trial.TrialState
        self.study.tell(proposal.trial, reward, state=state.FAIL if reward is None else state.COMPLETE)

    def _sample(self) -> TrialProposal:
        trial = self.study.ask(self.distributions)
        architecture = self.search_space.architecture([trial.params[name] for name in self.distributions])
        return TrialProposal(architecture, trial=trial.number)


def import_optuna() -> Any:
    """Return the module optuna.

    Raises:
        InputError: if it is not installed.
    """
    return import_extra("optuna", "baselines", "TPE")


def main(args: Args) -> None:
    """Search with Optuna's TPE on the decisions, without an embedding."""
    import_optuna()  # before anything is written
    with SearchRun(args, agent="tpe") as run:
        run.search(TPE(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
