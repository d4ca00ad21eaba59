"""Model-assisted REINFORCE: the controller is trained on predicted rewards; a model selects among its proposals.

    python agents/model_assisted.py --env-id NASES-CIFAR10-v0 --budget 100

Each reward requires training a network, so a budget yields too few rewards for a policy gradient. Therefore a Gaussian
process is fitted to all evaluated children (``agents/reward_model.py``). Whenever their number has grown by half, the
controller is reset to its initial weights and trained by policy gradient on rewards that the process predicts: model-based
reinforcement learning in the style of Dyna (Sutton, 1990). The next child is the one with the highest expected improvement
among samples of the policy, samples of the prior, and mutants of the best children. With several children at a time
(``--num-envs``), the pending ones reduce the predicted variance of similar candidates. With rungs, the process takes the
rung as an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import torch
from nases_agents.gaussian_process import Posterior, expected_improvement
from nases_agents.local_search import sample_mutants
from nases_agents.policy import EmbeddingPolicy, PolicyArgs, PolicySample
from nases_agents.reward_model import (
    MAX_RESAMPLES,
    MAX_SCREENED_BATCHES,
    NUM_SCREENED,
    RewardModel,
    best_feasible,
)
from nases_agents.transfer import TransferArgs, earlier_rewards

from nases_env.evaluation import Evaluation
from nases_env.optimizers import Adam
from nases_env.search import SearchRun, run_search
from nases_env.search.agent import Proposal
from nases_env.search.option_checks import require_at_least, require_default, require_fraction, require_non_negative
from nases_env.search_spaces import Architecture

NUM_ELITES = 10  # best children, which are mutated
IMAGINED_ADVANTAGE_CLIP = (-2.0, 3.0)  # in standard deviations


@dataclass
class Args(PolicyArgs, TransferArgs):
    """Options of model-assisted REINFORCE."""

    learning_starts: int = 3
    """Number of evaluated children from which the controller and the model choose the next ones."""
    screen: bool = True
    """Choose the first children (--learning-starts) among 300 samples of the prior. Every fourth one is random. The others
    are among the largest 5%; with --transfer-from, half of the children are instead among the best 5% by the earlier
    searches. Without known sizes or earlier searches, all are random. --no-screen: all are random."""
    learning_rate: float = 6e-3
    """Learning rate of Adam. Predicted rewards are free, so it can be higher than for real rewards."""
    gradient_steps: int = 20
    """Gradient steps of each training of the controller, from its initial weights."""
    training_growth: float = 1.5
    """The controller is trained again when the number of evaluated children is this factor larger than at its last training;
    1: before each call. Each training takes as long as the choice of several children."""
    imagined_batch_size: int = 64
    """Imagined children per gradient step: samples of the policy whose rewards are predicted by the model."""
    imagined_ucb_kappa: float = 0.5
    """The predicted reward is the mean of the model plus kappa standard deviations, which favors uncertain children."""
    num_policy_candidates: int = 100
    """Candidates sampled from the policy, per call."""
    num_prior_candidates: int = 100
    """Candidates sampled from the prior, per call (exploration)."""
    num_mutants: int = 200
    """Candidates that are mutants of the ten best children, per call."""
    extra_mutation_prob: float = 0.4
    """Probability of each further mutation of a mutant after the first one, and of an elite after --num-mutations."""
    acquisition: Literal["expected_improvement", "upper_confidence_bound"] = "expected_improvement"
    """Acquisition function, by which the next children are chosen among the candidates."""
    ucb_kappa: float = 1.0
    """Standard deviations added to the mean, with --acquisition upper_confidence_bound."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 2, "learning_starts")
        require_at_least(self, 1, "training_growth", "imagined_batch_size", "num_policy_candidates")
        require_at_least(self, 0, "num_prior_candidates", "num_mutants")
        require_non_negative(self, "training_growth", "imagined_ucb_kappa", "ucb_kappa")  # also: finite
        require_fraction(self, "extra_mutation_prob")
        if self.gradient_steps == 0:
            require_default(self, "with --gradient-steps 0", "training_growth", "imagined_batch_size", "imagined_ucb_kappa")
        if self.acquisition == "expected_improvement":
            require_default(self, "with --acquisition expected_improvement", "ucb_kappa")


class ModelAssisted(EmbeddingPolicy):
    """Agent that trains the policy on the predictions of a model and selects children by an acquisition function.

    Args:
        env: an environment that was reset.
        args: the options, including the seed of all random generators.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        super().__init__(env, args)
        self.args = args
        earlier = earlier_rewards(self.env.search_space, args.transfer_from)
        self.model = RewardModel(self.env.search_space, self.env.rungs, earlier, self.env.size)
        self.first: list[PolicySample] = []
        self.pending: list[PolicySample] = []
        self.num_trained = 0  # evaluated children at the last training of the controller
        self.metrics: dict[str, float] = {}

    def ask(self, num_children: int = 1) -> list[Proposal]:
        asked: list[Proposal] = []
        fitted = False
        while len(asked) < num_children:
            if len(self.history) < self.learning_starts:
                sample = self._next_first()
            else:
                if not fitted:
                    self.model.fit()
                    if len(self.history) >= self.args.training_growth * self.num_trained:
                        self._train_on_predictions()
                    candidates = self._sample_candidates()
                    fitted = True
                sample = self._select(candidates)
            self.pending.append(self.mark_proposed(sample))
            asked.append(sample)
        return asked

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, PolicySample), "the proposal must come from ask"
        self.pending.remove(proposal)
        self.record(proposal, evaluation.reward)
        self.model.add(proposal.architecture, evaluation.reward)
        metrics, self.metrics = self.metrics, {}
        return metrics

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        self.model.add_promotion(proposal.architecture, evaluation, rewards)
        return super().tell_promoted(proposal, evaluation, rewards)

    def tell_infeasible(self, proposal: Proposal) -> None:
        assert isinstance(proposal, PolicySample), "the proposal must come from ask"
        super().tell_infeasible(proposal)
        self.pending.remove(proposal)

    def _next_first(self) -> PolicySample:
        """Return the next of the first children: a chosen one, or else a sample of the prior, feasible with ``--screen``."""
        if not self.proposed and self.args.screen:
            self.first = self._sample_first()
        if self.first:
            return self.first.pop(0)
        return self._sample_feasible() if self.args.screen else self.sample_unseen_prior()

    def _sample_first(self) -> list[PolicySample]:
        """Sample the children that are requested before ``learning_starts`` are evaluated."""
        num_first = self.learning_starts + self.args.max_pending - 1
        samples: list[PolicySample] = []
        for _ in range(MAX_SCREENED_BATCHES):
            samples = self.filter_unseen([*samples, *self.sample_prior(NUM_SCREENED)])
            chosen = self.model.choose_first(architectures_of(samples), num_first, self.rng, self.env.is_feasible)
            if len(chosen) >= num_first:
                break
        return [samples[index] for index in chosen]

    def _posterior(self, samples: Sequence[Proposal]) -> Posterior:
        return self.model.posterior(architectures_of(samples), architectures_of(self.pending))

    def _train_on_predictions(self) -> None:
        """Train the controller, from its initial weights, with predicted rewards of samples of the policy.

        If it continued from the last batch, it would still be fitted to earlier predictions, and find worse children.
        """
        self.controller.load_state_dict(self.reference_controller.state_dict())
        self.optimizer = Adam(self.controller.parameters(), lr=self.args.learning_rate)
        self.num_trained = len(self.history)
        for _ in range(self.args.gradient_steps):
            samples = self._sample_policy(self.args.imagined_batch_size)
            posterior = self._posterior(samples)
            rewards = posterior.mean + self.args.imagined_ucb_kappa * posterior.std
            advantages = (rewards - rewards.mean()) / rewards.std(correction=0).clamp_min(1e-8)
            advantages = advantages.clamp(*IMAGINED_ADVANTAGE_CLIP).float()
            self.metrics = self.gradient_step(samples, advantages, reference_coef=0.0)
        self.metrics |= self.model.metrics()

    def _sample_policy(self, num_samples: int) -> list[PolicySample]:
        num_extra = self.rng.geometric(1 - self.args.extra_mutation_prob, size=num_samples) - 1
        return self.sample(*self.sample_states(self.args.num_mutations + num_extra))

    def _sample_candidates(self) -> list[Proposal]:
        """Sample the policy, the prior and mutants of the best children. Mutants have no embedding yet."""
        samples = self._sample_policy(self.args.num_policy_candidates) + self.sample_prior(self.args.num_prior_candidates)
        elites = self.model.ranking()[:NUM_ELITES]
        extra_mutation_prob = self.args.extra_mutation_prob
        mutants = sample_mutants(self.env.search_space, elites, self.args.num_mutants, extra_mutation_prob, self.rng)
        return [*samples, *map(Proposal, mutants)]

    def _select(self, candidates: list[Proposal]) -> PolicySample:
        """Return the feasible unseen candidate, or else the repeat, with the highest value of the acquisition function."""
        candidates = self.filter_unseen(candidates) or self.filter_feasible(candidates)
        posterior = self._posterior(candidates)
        if self.args.acquisition == "expected_improvement":
            values = expected_improvement(posterior)
        else:
            values = posterior.mean + self.args.ucb_kappa * posterior.std
        best = best_feasible(self.env, architectures_of(candidates), values)
        return self._sample_feasible() if best is None else self._embed(candidates[best])

    @torch.no_grad()
    def _embed(self, candidate: Proposal) -> PolicySample:
        """Return ``candidate`` as a sample; the embedding of a mutant is the output of the simulator for it."""
        if isinstance(candidate, PolicySample):
            return candidate
        child = candidate.architecture
        embedding = self.simulate(child)
        offset = torch.zeros_like(embedding)
        return PolicySample(child, embedding=embedding, state=self.read(child), offset=offset, log_prob=None)

    def _sample_feasible(self) -> PolicySample:
        """Return an unseen feasible sample of the prior; without one, the last sample, which the search replaces."""
        for _ in range(MAX_RESAMPLES):
            sample = self.sample_unseen_prior()
            if self.env.is_feasible(sample.architecture):
                break
            self.proposed.add(sample.architecture.key)
        return sample


def architectures_of(samples: Sequence[Proposal]) -> list[Architecture]:
    """Return the architectures of ``samples``."""
    return [sample.architecture for sample in samples]


def main(args: Args) -> None:
    """Search with model-assisted REINFORCE in the embedding space."""
    with SearchRun(args, agent="model_assisted") as run:
        run.search(ModelAssisted(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
