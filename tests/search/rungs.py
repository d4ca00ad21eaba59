"""A toy evaluator with rungs: the reward is known, and the first rung is misleading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium.envs.registration import register

from nases_env.envs import NASESEnv
from nases_env.evaluation import Evaluation, Evaluator, Status
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import Architecture

RUNGS = (1, 3, 9)


def uniform(*values: object) -> float:
    """Return a number in [0, 1) that depends on ``values``."""
    return int(sha256_hex(repr(values))[:12], 16) / 16**12


@dataclass(frozen=True)
class ToyRungs(Evaluator):
    """Quality of the architecture plus noise of the seed that shrinks with the number of epochs."""

    search_space: str = "enas_micro"
    rungs: tuple[int, ...] = RUNGS
    fidelity: int | None = None
    noise: float = 0.3
    scale: float = 1.0  # of all rewards, which must not exceed 1

    is_expensive = False

    def quality(self, architecture: Architecture) -> float:
        """Return the part of the reward that depends on the architecture alone, before scaling; in [0, 0.5)."""
        return 0.5 * uniform(architecture.key)

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        epochs = self.fidelity or (self.rungs[-1] if self.rungs else 1)
        reward = self.quality(architecture) + 0.01 * epochs + self.noise * uniform(architecture.key, seed) / epochs
        reward *= self.scale
        return Evaluation(architecture.key, seed, Status.OK, reward, reward, num_epochs=epochs)

    def describe(self) -> dict[str, Any]:
        description = super().describe()
        if self.fidelity is None:
            del description["fidelity"]
        return description


class ToyRungsEnv(NASESEnv):
    def __init__(self, *, rungs: Sequence[int] | None = None, embedding: str | None = None) -> None:
        super().__init__(ToyRungs(rungs=tuple(rungs or ())), embedding=embedding)


register("ToyRungs-v0", f"{__name__}:ToyRungsEnv")


def toy_env(**options: Any) -> NASESEnv:
    """Return an environment with a toy evaluator, after a reset."""
    env = NASESEnv(ToyRungs(**options))
    env.reset(seed=0)
    return env
