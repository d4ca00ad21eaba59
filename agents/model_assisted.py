"""Model-assisted REINFORCE: the controller learns from imagined rewards, and a model chooses among what it proposes.

    python agents/model_assisted.py --env-id NASES-CIFAR10-v0 --budget 100

Where each reward costs the training of a network, a policy gradient from rewards alone has seen too few of them before the
budget is spent. So a Gaussian process is fitted to all that was evaluated (`agents/gaussian_process.py`), and between real
children the controller takes policy-gradient steps from rewards that the process imagines: model-based reinforcement
learning in the manner of Dyna (Sutton, 1990). The next children are, among candidates drawn from the policy and from the
prior, those of the highest expected improvement. Several are asked for at once (``--ask-batch-size``), each knowing of the
others, and may be told in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from nases_agents.gaussian_process import GaussianProcess, Posterior, expected_improvement
from nases_agents.reinforce import EmbeddingPolicy, PolicyArgs, Sample, rank_normalize
from numpy.typing import NDArray

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation
from nases_env.search import SearchRun, run_search
from nases_env.search.agent import Proposal

MIN_RESULTS = 4  # before a model is fitted
IMAGINED_RANGE = (-2.0, 3.0)  # of imagined advantages, in deviations


@dataclass
class Args(PolicyArgs):
    """The agent's options. Lengths are in standard deviations of the embedding."""

    ask_batch_size: int = 5
    """Children asked for at once; the model is fitted anew before each round."""
    learning_rate: float = 1e-3
    """Adam's. Imagined rewards are as many as one likes, so that the controller may learn faster than from real ones."""
    num_gradient_steps: int = 5
    """Gradient steps before each round."""
    num_imagined: int = 64
    """Children that a gradient step imagines."""
    imagined_bonus: float = 0.5
    """Deviations of the model that are added to its mean as the imagined reward: what is uncertain is worth a try."""
    num_policy_candidates: int = 300
    """Candidates from the policy, a round. Most have one decision redrawn, some more."""
    num_prior_candidates: int = 100
    """Candidates from standard-normal embeddings, a round: what the policy has never thought of."""
    more_mutations: float = 0.4
    """Chance of a candidate that one more decision is redrawn, and again one more."""
    acquisition: Literal["expected_improvement", "upper_confidence_bound"] = "expected_improvement"
    """How a candidate is valued. On NAS-Bench-201 expected improvement found more within 300 children, the bound as much
    within 100."""
    confidence: float = 1.0
    """upper_confidence_bound: deviations above the mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "num_imagined", "num_policy_candidates")
        self.require_at_least(0, "num_prior_candidates", "imagined_bonus", "confidence")
        self.require_share("more_mutations")


class ModelAssisted(EmbeddingPolicy):
    """The agent.

    Args:
        env: was reset.
        args: the options; their seed is the seed of everything random here.
    """

    def __init__(self, env: NASESEnv, args: Args) -> None:
        super().__init__(env, args)
        self.args = args
        self.model = GaussianProcess(env.search_space.decision_sizes)
        self.pending: list[Sample] = []
        self.scalars: dict[str, float] = {}

    def ask(self, num_children: int = 1) -> list[Proposal]:
        asked: list[Proposal] = []
        fitted = False
        while len(asked) < num_children:
            if self.warming_up or len(self.history) < MIN_RESULTS:
                sample = self.draw_new_warmup()
            else:
                if not fitted:
                    self._fit()
                    self._imagine()
                    candidates = self._candidates()
                    fitted = True
                sample = self._choose(candidates)
            self.pending.append(self.count(sample))
            asked.append(sample)
        return asked

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, Sample), "tell what ask gave"
        self.pending.remove(proposal)
        self.remember(proposal, evaluation.reward)
        scalars, self.scalars = self.scalars, {}
        return scalars

    def _fit(self) -> None:
        rewards = torch.tensor([result.reward for result in self.history], dtype=torch.float64)
        self.model.fit(decisions_of([result.sample for result in self.history]), rank_normalize(rewards))

    def _posterior(self, samples: list[Sample]) -> Posterior:
        pending = (
            decisions_of(self.pending) if self.pending else np.empty((0, self.env.search_space.num_decisions), np.int64)
        )
        return self.model.posterior(decisions_of(samples), pending)

    def _imagine(self) -> None:
        """Steps of the policy gradient from what the model says of samples of the policy."""
        for _ in range(self.args.num_gradient_steps):
            samples = self._draw_policy(self.args.num_imagined)
            posterior = self._posterior(samples)
            rewards = posterior.mean + self.args.imagined_bonus * posterior.deviation
            advantages = (rewards - rewards.mean()) / rewards.std(correction=0).clamp_min(1e-8)
            self.scalars = self.learn(samples, advantages.clamp(*IMAGINED_RANGE).float())
        for name, value in self.model.kernel._asdict().items():
            self.scalars[f"model/{name}"] = value

    def _draw_policy(self, num_samples: int) -> list[Sample]:
        more = self.rng.geometric(1 - self.args.more_mutations, size=num_samples) - 1
        return self.draw(*self.states(self.args.num_mutations + more))

    def _candidates(self) -> list[Sample]:
        candidates = self._draw_policy(self.args.num_policy_candidates) + self.draw_warmup(self.args.num_prior_candidates)
        return self.new(candidates) or candidates

    def _choose(self, candidates: list[Sample]) -> Sample:
        """The most promising of ``candidates`` that was not asked for yet."""
        candidates = self.new(candidates) or candidates
        posterior = self._posterior(candidates)
        if self.args.acquisition == "expected_improvement":
            values = expected_improvement(posterior)
        else:
            values = posterior.mean + self.args.confidence * posterior.deviation
        return candidates[int(values.argmax())]


def decisions_of(samples: list[Sample]) -> NDArray[np.int64]:
    """The decisions of ``samples``, shape (samples, m)."""
    return np.array([sample.architecture.decisions for sample in samples], dtype=np.int64)


def main(args: Args) -> None:
    """Search with model-assisted REINFORCE in the embedding space."""
    with SearchRun(args, agent="model_assisted") as search:
        search.run(ModelAssisted(search.nases, args), args.ask_batch_size)


if __name__ == "__main__":
    run_search(Args, main)
