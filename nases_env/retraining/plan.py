"""The steps of a reproduction: each is a command that a person could give, and that goes on where it was."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nases_env.execution import ExecutionSettings
from nases_env.retraining import FinalFolder
from nases_env.retraining.plan_args import REPRODUCTIONS, ReproduceArgs
from nases_env.search.run_dir import CONFIG, is_finished

Stage = Literal["pretrain", "search", "train"]


@dataclass(frozen=True)
class Plan:
    """A reproduction with nothing left open.

    Attributes:
        preset: never "auto".
        output: the folder.
        env_id, budget, seeds: the preset's, or what was given instead.
        args: everything else.
    """

    preset: str
    output: Path
    env_id: str
    budget: int
    seeds: int
    args: ReproduceArgs

    def steps(self) -> Iterator[Step]:
        """All steps in the order in which they are done."""
        for seed in range(self.seeds):
            yield Step("pretrain", seed, None, self)
            for agent in self.args.agents:
                yield Step("search", seed, agent, self)
                yield Step("train", seed, agent, self)

    def embedding(self, seed: int) -> Path:
        """The file of a seed's embedding."""
        return self.output / f"seed-{seed}" / "embedding.safetensors"

    def run_dir(self, seed: int, agent: str) -> Path:
        """The run folder of a seed's search by ``agent``; its final training is in ``final`` below it."""
        return self.output / f"seed-{seed}" / agent


def make_plan(args: ReproduceArgs) -> Plan:
    """What ``args`` ask for."""
    preset = args.preset
    if preset == "auto":
        preset = "gpu" if torch.cuda.is_available() else "cpu"
    default = REPRODUCTIONS[preset]
    return Plan(
        preset=preset,
        output=args.output or Path("runs") / f"reproduction-{preset}",
        env_id=args.env_id or default.env_id,
        budget=args.budget or default.budget,
        seeds=args.seeds or default.seeds,
        args=args,
    )


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        stage: what it does.
        seed: of all of it.
        agent: what searches, or found what is trained; None for a pretraining.
        plan: what it belongs to.
    """

    stage: Stage
    seed: int
    agent: str | None
    plan: Plan

    @property
    def is_done(self) -> bool:
        """Whether its results are on the disk."""
        if self.agent is None:
            return self.plan.embedding(self.seed).with_suffix(".json").exists()
        run_dir = self.plan.run_dir(self.seed, self.agent)
        if self.stage == "train":
            return FinalFolder(run_dir / "final").result(self.seed) is not None
        return (run_dir / CONFIG).exists() and is_finished(run_dir, self.plan.budget)

    def options(self) -> list[str]:
        """The command's arguments, without its name."""
        plan, args = self.plan, self.plan.args
        if self.agent is None:
            return [
                *("--output", str(plan.embedding(self.seed)), "--seed", str(self.seed)),
                *_if_not("preset", args.embedding, "default"),
                *_if_not("num-steps", REPRODUCTIONS[plan.preset].pretrain_steps, None),
            ]
        where = [
            *_if_not("data-dir", args.data_dir, None),
            *_if_not("device", args.device, "auto"),
            *_if_not("num-threads", args.num_threads, 1),
        ]
        run_dir = plan.run_dir(self.seed, self.agent)
        if self.stage == "train":
            return [str(run_dir), "--preset", plan.preset, "--seed", str(self.seed), *where, *_children(args.final)]
        execution = _changed(args.execution, ExecutionSettings())
        if (run_dir / CONFIG).exists():
            return ["--resume", str(run_dir), "--budget", str(plan.budget), *execution]
        return [
            *("--env-id", plan.env_id, "--preset", plan.preset, "--budget", str(plan.budget), "--seed", str(self.seed)),
            *("--embedding", str(plan.embedding(self.seed)), "--run-dir", str(run_dir)),
            *_if_not("num-envs", args.num_envs, 1),
            *where,
            *execution,
            *_children(args.child),
        ]

    @property
    def command(self) -> str:
        """What a person would type."""
        program = f"python -m nases_agents.{self.agent}" if self.stage == "search" else f"nases {self.stage}"
        return f"{program} {shlex.join(self.options())}"


def _if_not(option: str, value: Any, default: Any) -> list[str]:
    return [] if value == default else [f"--{option}", str(value)]


def _changed(values: Any, defaults: Any) -> list[str]:
    """The options of a dataclass that are not at their defaults."""
    names = [field.name for field in dataclasses.fields(values)]
    words = (_if_not(name.replace("_", "-"), getattr(values, name), getattr(defaults, name)) for name in names)
    return [word for option in words for word in option]


def _children(options: Any) -> list[str]:
    given = {name: value for name, value in vars(options).items() if value != "preset"}
    return [word for name, value in given.items() for word in (f"--child.{name.replace('_', '-')}", str(value))]
