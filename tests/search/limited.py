"""An environment with a limit: most architectures are infeasible."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium.envs.registration import register

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, OperatorShareEvaluator, Status
from nases_env.search_spaces import Architecture


@dataclass(frozen=True)
class LimitedEvaluator(OperatorShareEvaluator):
    """A synthetic reward for children whose size, the sum of their decisions, does not exceed a limit."""

    limit: int = 63  # of random architectures, 22% are feasible

    def screen(self, architecture: Architecture, seed: int) -> Evaluation | None:
        size = sum(architecture.decisions)
        if size <= self.limit:
            return None
        reason = f"the size {size}, more than {self.limit}; increase it"
        return Evaluation(architecture.key, seed, Status.TOO_LARGE, num_params=size, reason=reason)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        assert self.screen(architecture, seed) is None, "an infeasible child was evaluated"
        return super().evaluate(architecture, seed)


class LimitedEnv(NASESEnv):
    def __init__(self, *, limit: int = 63, embedding: str | None = None) -> None:
        super().__init__(LimitedEvaluator("enas_micro", "sep_conv_3x3", limit), embedding=embedding)


register("Limited-v0", f"{__name__}:LimitedEnv")


def limited_env(limit: int = 63, seed: int = 0) -> NASESEnv:
    """Return the environment after a reset."""
    env = LimitedEnv(limit=limit)
    env.reset(seed=seed)
    return env
