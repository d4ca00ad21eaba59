"""What a reproduction is told, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from nases_env.errors import InputError
from nases_env.execution import ExecutionSettings
from nases_env.search import ChildOptions


@dataclass(frozen=True)
class ReproductionPreset:
    """How much is done.

    Attributes:
        env_id: the environment.
        budget: children of each search.
        seeds: how often all of it is done.
        pretrain_steps: steps of the pretraining; None: what ``nases pretrain`` takes.
    """

    env_id: str
    budget: int
    seeds: int
    pretrain_steps: int | None = None


REPRODUCTIONS: dict[str, ReproductionPreset] = {
    # The paper does not say how many children it evaluates; its authors' code does 120 iterations.
    "paper": ReproductionPreset("NASES-CIFAR10-v0", budget=120, seeds=5),
    "gpu": ReproductionPreset("NASES-CIFAR10-v0", budget=100, seeds=5),
    "cpu": ReproductionPreset("NASES-CIFAR10-v0", budget=30, seeds=3),
    "smoke": ReproductionPreset("NASES-Digits-v0", budget=3, seeds=2, pretrain_steps=30),
}


@dataclass
class ReproduceArgs:
    """Do what the paper does: pretrain an embedding, search with it, and train the best architecture to the end, for several
    seeds, with random search beside it; and report. The same command goes on where it was killed or interrupted."""

    preset: Literal["auto", "paper", "gpu", "cpu", "smoke"] = "auto"
    """Size and training of the children and of the final networks, and how much is done: --env-id, --budget, --seeds. auto:
    gpu where there is one, else cpu. With paper, REINFORCE is Algorithm 1 as it stands."""
    output: Path | None = None
    """The folder for all of it; unset: runs/reproduction-PRESET."""
    dry_run: bool = False
    """Say what would be done, and how long that would take here, by timing a few batches; write nothing."""
    env_id: str | None = None
    """The environment; unset: the preset's."""
    budget: int | None = None
    """Children of each search; unset: the preset's."""
    seeds: int | None = None
    """How often all of it is done; unset: the preset's, which are five for the paper."""
    agents: tuple[str, ...] = ("reinforce", "random_search")
    """What searches, by the names of the agents' files; every agent has the same budget and embedding."""
    embedding: Literal["default", "paper"] = "default"
    """The preset of `nases pretrain`: the paper's own settings hardly leave where they begin (docs/embeddings.md)."""
    data_dir: str | None = None
    """The folder with the data; unset: the environment variable NASES_DATA_DIR, else a folder of the user's cache."""
    device: str = "auto"
    """A torch device such as cpu or cuda:1; auto: the GPU where there is one."""
    num_threads: int = 1
    """CPU threads of a training."""
    num_envs: int = 1
    """Children in flight at once."""
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(default_factory=ExecutionSettings)
    """Where and how children are evaluated; none of it changes a result:"""
    child: ChildOptions = field(default_factory=ChildOptions)
    """Of the searches' children, in place of what the preset says:"""
    final: ChildOptions = field(default_factory=ChildOptions)
    """Of the final trainings, in place of what the preset says:"""

    def __post_init__(self) -> None:
        for name in ("budget", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, not {value}")
        if not self.agents or len(set(self.agents)) < len(self.agents):
            raise InputError("--agents names each agent once, and at least one")
