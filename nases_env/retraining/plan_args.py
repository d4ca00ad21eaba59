"""Options and presets of a reproduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from nases_env.errors import InputError
from nases_env.evaluation import Limits
from nases_env.execution import ExecutionSettings
from nases_env.search.option_checks import require_at_least, require_num_threads
from nases_env.search.options import ChildOptions


@dataclass(frozen=True)
class ProtocolPreset:
    """Size of a reproduction.

    Attributes:
        env_id: id of the environment.
        budget: number of children per search.
        seeds: number of repetitions of all steps.
        pretrain_steps: optimization steps of pretraining; None: the default of ``nases pretrain``.
        agents: names of the agents.
        agent_options: options of the searches, by the name of the agent.
    """

    env_id: str
    budget: int
    seeds: int
    pretrain_steps: int | None = None
    agents: tuple[str, ...] = ("elite_reinforce", "random_search")
    agent_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ALGORITHM_1 = ("--std", "0.1", "--no-unseen")  # options of reinforce

PROTOCOL_PRESETS: dict[str, ProtocolPreset] = {
    # The paper does not state the number of children; its released code runs 120 iterations.
    "paper": ProtocolPreset(
        "NASES-CIFAR10-v0",
        budget=120,
        seeds=5,
        agents=("reinforce", "random_search"),
        agent_options={"reinforce": ALGORITHM_1},
    ),
    "gpu": ProtocolPreset("NASES-CIFAR10-v0", budget=100, seeds=5),
    "cpu": ProtocolPreset("NASES-CIFAR10-v0", budget=30, seeds=3),
    "small": ProtocolPreset("NASES-ImageFolder-v0", budget=30, seeds=3),
    "smoke": ProtocolPreset("NASES-Digits-v0", budget=3, seeds=2, pretrain_steps=30),
}


@dataclass
class ReproduceArgs:
    """Run the protocol of the paper for several seeds: pretrain an embedding, search, train the best architecture to
    convergence, and report the results next to random search's. Rerun the command to resume it after an
    interruption."""

    preset: Literal["auto", "paper", "gpu", "small", "cpu", "smoke"] = "auto"
    """Defaults of --env-id, --budget, --seeds, --agents, --child and --final. auto: gpu if there is a GPU, otherwise cpu.
    With paper, the agent reinforce has --std 0.1 --no-unseen: Algorithm 1 with little exploration."""
    output: Path | None = None
    """Output directory. Default: runs/reproduction-PRESET."""
    dry_run: bool = False
    """Print the commands and their estimated durations, measured on a few batches; write nothing."""
    env_id: str | None = None
    """Id of the environment. Default: the preset's value."""
    budget: int | None = None
    """Number of children per search. Default: the preset's value."""
    seeds: int | None = None
    """Number of repetitions of all steps. Default: the preset's value, 5 for paper."""
    agents: tuple[str, ...] | None = None
    """Agents, by module name; all use the same budget and, if they use one, the same embedding. Default: the preset's value,
    reinforce random_search for paper, otherwise elite_reinforce random_search."""
    embedding: Literal["default", "paper"] = "default"
    """Preset of `nases pretrain`. With the paper's settings, an embedding reaches fewer than 100 architectures after
    1,000 steps (docs/results/embeddings.md)."""
    data_dir: str | None = None
    """Directory with the data sets. Default: the environment variable NASES_DATA_DIR, otherwise a directory in the user's
    cache."""
    device: str = "auto"
    """Torch device such as cpu or cuda:1. auto: the GPU if there is one."""
    num_threads: int = 1
    """Number of CPU threads per training run."""
    num_envs: int = 1
    """Number of concurrent evaluations."""
    limit_final: bool = True
    """Whether the limits also apply to the final training runs, whose networks may be larger."""
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(default_factory=ExecutionSettings)
    """Where and how children are evaluated; has no effect on results, except for --time-limit and --memory-limit:"""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)
    """Limits of the children of the searches and, unless --no-limit-final is given, of the final networks:"""
    child: ChildOptions = None
    """Settings of the children of the searches; the defaults are set by --preset:"""
    final: ChildOptions = None
    """Settings of the final training runs; the defaults are those of the searches, with the longer training of --preset:"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "budget", "seeds", "num_envs")
        require_num_threads(self)
        if self.agents is not None and not 0 < len(set(self.agents)) == len(self.agents):
            raise InputError("--agents must list at least one agent, without duplicates")
