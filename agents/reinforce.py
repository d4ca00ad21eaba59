"""REINFORCE in the embedding space (C. T. Liu, "Neural Architecture Search in Embedding Space", Algorithm 1, lines 3 to 11).

    python agents/reinforce.py --env-id NASES-CIFAR10-v0 --budget 100

The controller is the pretrained simulator, fine-tuned by policy gradient (Williams, 1992). It reads the architecture vector
of the child that was evaluated last: m numbers in [0, 1], one per decision. Its output is the mean of a Gaussian policy in
the standardized embedding space of n dimensions (m = 40 and n = 20 in ``enas_micro``). The next child is decoded from a
sample of this policy.

The paper does not specify the exploration, the baseline or the learning rate. With a small standard deviation, the next
child is often equal or similar to the child that the controller reads, so the search stays near its first child. Therefore
the default standard deviation is large, and repeats are sampled again; the log probability ignores this rejection.
``--std 0.1 --no-unseen`` turns both off. ``examples/reinforce_single_file.py`` is the same algorithm as one loop, but does
not sample repeats again.

With several children in flight, a child may be older than the last update. Its log probability is computed with the current
weights; no importance correction is applied. With rungs, the agent learns from the first rung only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import Tensor
from torch.distributions import Normal

from nases_env.envs import ACTION_SCALE, unwrap
from nases_env.evaluation import Evaluation
from nases_env.optimizers import Adam
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import require_fraction, require_positive
from nases_env.seeding import derive_seed, numpy_generator, torch_generator

MAX_RESAMPLES = 20  # attempts to find an unseen child
STD_GROWTH = 1.1  # the standard deviation is multiplied by this on each attempt


@dataclass
class Args(SearchArgs):
    """Options of REINFORCE."""

    init: Literal["simulator", "random"] = "simulator"
    """Initial weights of the controller: the simulator's, as in the paper, or random ones, as an ablation."""
    std: float = 0.9
    """Standard deviation of the Gaussian policy, in standard deviations of the embedding."""
    unseen: bool = True
    """Avoid repeats: sample again, with a larger standard deviation per attempt, if a child was proposed before."""
    learning_rate: float = 6e-3
    """Learning rate of Adam, whose steps do not depend on the scale of the rewards."""
    baseline_decay: float = 0.9
    """Decay of the moving average of the rewards per child, which is the baseline."""

    def __post_init__(self) -> None:
        require_positive(self, "std", "learning_rate")
        require_fraction(self, "baseline_decay")


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Proposal):
    """A child decoded from a sampled embedding.

    Attributes:
        embedding: the sample in the standardized embedding space, before clipping, shape (n,).
        state: the architecture vector that the controller read, in [0, 1], shape (m,).
        std: the standard deviation of the policy when it was sampled.
    """

    embedding: Tensor
    state: Tensor
    std: float


class Reinforce(Agent):
    """Samples children from the policy and takes one policy-gradient step per child.

    Args:
        env: an environment that was reset. The controller reads its current architecture first.
        args: the options, including the seed of all random generators.
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.env = unwrap(env)
        self.args = args
        self.controller = self.env.embedding.controller(args.init, derive_seed(args.seed, "policy", "controller"))
        self.optimizer = Adam(self.controller.parameters(), lr=args.learning_rate)
        self.generator = torch_generator(args.seed, "policy", "exploration")
        self.rng = numpy_generator(args.seed, "policy", "choices")
        self.last = self.env.architecture
        self.baseline: float | None = None
        self.proposed: set[str] = set()

    def ask(self, num_children: int = 1) -> list[Proposal]:
        return [self._next_child() for _ in range(num_children)]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        assert isinstance(proposal, Sample), "the proposal must come from ask"
        self.last = proposal.architecture
        # Algorithm 1, line 8: one policy-gradient step. The first reward is its own baseline, so the first advantage is 0.
        baseline = evaluation.reward if self.baseline is None else self.baseline
        advantage = evaluation.reward - baseline
        self.baseline = baseline + (1 - self.args.baseline_decay) * advantage
        policy = Normal(self.controller(proposal.state[None])[0], proposal.std)
        loss = -advantage * policy.log_prob(proposal.embedding).sum()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"policy/baseline": self.baseline, "policy/loss": loss.item()}

    def tell_infeasible(self, proposal: Proposal) -> None:
        # All children near the last one may be infeasible. Read a random architecture, as in the beginning.
        self.last = self.env.search_space.sample(self.rng)

    @torch.no_grad()
    def _next_child(self) -> Sample:
        """Sample the next child from the policy (Algorithm 1, lines 9 and 10); avoid repeats if ``args.unseen``."""
        state = torch.from_numpy(self.env.search_space.encode(self.last))
        mean, std = self.controller(state[None])[0], self.args.std
        child = self._sample(state, mean, std)
        for _ in range(MAX_RESAMPLES if self.args.unseen else 0):
            if child.architecture.key not in self.proposed:
                break
            std *= STD_GROWTH
            child = self._sample(state, mean, std)
        self.proposed.add(child.architecture.key)
        return child

    def _sample(self, state: Tensor, mean: Tensor, std: float) -> Sample:
        """Sample an embedding and decode it. The action is clipped to [-1, 1]; the log probability ignores the clipping.

        Args:
            state: the architecture vector that the controller read, shape (m,).
            mean: the output of the controller, shape (n,).
            std: the standard deviation of the policy.
        """
        embedding = mean + std * torch.randn(mean.shape, generator=self.generator)
        action = (embedding / ACTION_SCALE).clamp(-1, 1).numpy()
        return Sample(self.env.decode(action), action, embedding=embedding, state=state, std=std)


def main(args: Args) -> None:
    """Search with REINFORCE in the embedding space."""
    with SearchRun(args, agent="reinforce") as run:
        run.search(Reinforce(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
