"""The steps of a reproduction. Each step is a command that users can run themselves and that can be resumed."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nases_env.evaluation import PRESETS, ChildSettings, final_settings, resolve_preset, settings_overrides
from nases_env.execution import ExecutionSettings
from nases_env.retraining.folder import REPORT, FinalFolder
from nases_env.retraining.plan_args import PROTOCOL_PRESETS, ReproduceArgs
from nases_env.retraining.training import require_final_settings
from nases_env.search.options import SearchArgs
from nases_env.search.run_dir import CONFIG, is_finished
from nases_env.search_spaces import EnasMicro
from nases_env.units import NO_LIMIT

Stage = Literal["pretrain", "search", "train"]


@dataclass(frozen=True)
class Plan:
    """A reproduction with all defaults resolved.

    Attributes:
        preset: name of the preset, never "auto".
        output: output directory.
        env_id: id of the environment.
        budget: number of children per search.
        seeds: number of repetitions.
        agents: names of the agents.
        child: settings of the children of the searches.
        final: settings of the final training runs.
        args: all other options.
        search_space: argument of ``get_search_space`` for the search space of the environment.
    """

    preset: str
    output: Path
    env_id: str
    budget: int
    seeds: int
    agents: tuple[str, ...]
    child: ChildSettings
    final: ChildSettings
    args: ReproduceArgs
    search_space: str = EnasMicro.name

    def steps(self) -> Iterator[Step]:
        """Iterate over all steps in order."""
        for seed in range(self.seeds):
            yield Step("pretrain", seed, None, self)
            for agent in self.agents:
                yield Step("search", seed, agent, self)
                yield Step("train", seed, agent, self)

    def embedding(self, seed: int) -> Path:
        """Return the path of the embedding of ``seed``."""
        return self.output / f"seed-{seed}" / "embedding.safetensors"

    def run_dir(self, seed: int, agent: str) -> Path:
        """Return the run directory of a search; its subdirectory ``final`` contains the final training."""
        return self.output / f"seed-{seed}" / agent


def make_plan(args: ReproduceArgs) -> Plan:
    """Resolve the defaults of ``args``.

    Raises:
        InputError: if ``args`` set an option that has no effect on the final training.
    """
    preset, child = resolve_preset(args.preset)
    child = args.child or child
    default_final = final_settings(child, preset)
    final = args.final or default_final
    require_final_settings(final, default_final, "final")
    default = PROTOCOL_PRESETS[preset]
    return Plan(
        preset=preset,
        output=args.output or Path("runs") / f"reproduction-{preset}",
        env_id=args.env_id or default.env_id,
        budget=args.budget or default.budget,
        seeds=args.seeds or default.seeds,
        agents=args.agents or default.agents,
        child=child,
        final=final,
        args=args,
    )


@dataclass(frozen=True)
class Step:
    """One command of a reproduction.

    Attributes:
        stage: kind of the command.
        seed: its seed.
        agent: name of the agent whose search it runs, or whose best architecture it trains; None for pretraining.
        plan: the reproduction.
    """

    stage: Stage
    seed: int
    agent: str | None
    plan: Plan

    @property
    def is_done(self) -> bool:
        """Whether the results are on disk."""
        if self.agent is None:
            return self.plan.embedding(self.seed).with_suffix(".json").exists()
        run_dir = self.plan.run_dir(self.seed, self.agent)
        if self.stage == "train":
            folder = FinalFolder(run_dir / "final")
            return folder.is_finished(self.seed) and (folder.path / REPORT).exists()
        return (run_dir / CONFIG).exists() and is_finished(run_dir, self.plan.budget)

    def options(self) -> list[str]:
        """Return the arguments of the command."""
        plan, args = self.plan, self.plan.args
        if self.agent is None:
            return [
                *("--output", str(plan.embedding(self.seed)), "--seed", str(self.seed)),
                *_option_unless_default("search-space", plan.search_space, EnasMicro.name),
                *_option_unless_default("preset", args.embedding, "default"),
                *_option_unless_default("num-steps", PROTOCOL_PRESETS[plan.preset].pretrain_steps, None),
            ]
        where = [
            *_option_unless_default("data-dir", args.data_dir, None),
            *_option_unless_default("device", args.device, "auto"),
            *_option_unless_default("num-threads", args.num_threads, 1),
        ]
        run_dir = plan.run_dir(self.seed, self.agent)
        limits = args.limits.options()
        if self.stage == "train":
            settings = settings_overrides(plan.final, final_settings(plan.child, plan.preset))
            unlimited = {} if args.limit_final else dict.fromkeys(limits, NO_LIMIT)
            return [
                *(str(run_dir), "--seed", str(self.seed), *where),
                *_to_options(unlimited),
                *_to_options(settings, "child."),
            ]
        default = ExecutionSettings()
        execution = _to_options({name: v for name, v in vars(args.execution).items() if v != getattr(default, name)})
        if (run_dir / CONFIG).exists():
            return ["--resume", str(run_dir), "--budget", str(plan.budget), *execution]
        return [
            *("--env-id", plan.env_id, "--preset", plan.preset, "--budget", str(plan.budget), "--seed", str(self.seed)),
            *("--run-dir", str(run_dir)),
            *PROTOCOL_PRESETS[plan.preset].agent_options.get(self.agent, ()),
            *(("--embedding", str(plan.embedding(self.seed))) if _uses_embedding(self.agent) else ()),
            *_option_unless_default("num-envs", args.num_envs, 1),
            *where,
            *execution,
            *_to_options(limits),
            *_to_options(settings_overrides(plan.child, PRESETS[plan.preset]), "child."),
        ]

    @property
    def command(self) -> str:
        """The command line."""
        program = f"python -m nases_agents.{self.agent}" if self.stage == "search" else f"nases {self.stage}"
        return f"{program} {shlex.join(self.options())}"


def _uses_embedding(agent: str) -> bool:
    """Return whether the options of the module ``agent`` of ``nases_agents`` say so."""
    options = getattr(importlib.import_module(f"nases_agents.{agent}"), "Args", SearchArgs)
    return bool(options.uses_embedding)


def _option_unless_default(option: str, value: Any, default: Any) -> list[str]:
    return [] if value == default else [f"--{option}", str(value)]


def _to_options(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    return [word for name, value in values.items() for word in (f"--{prefix}{name.replace('_', '-')}", str(value))]
