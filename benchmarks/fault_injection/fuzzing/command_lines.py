"""Command lines of all commands: the options of their dataclasses, with values of any type.

The first options keep a command cheap: the environment without training, a budget of 1, the preset ``smoke``. Values that
would train for minutes, download a data set, or start worker processes or Ray are not drawn; see ``CHEAP_VALUES``. No model
is converted and no reproduction is timed, because each takes 16 seconds.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks.common.commands import script
from benchmarks.fault_injection.fuzzing.inputs import INPUTS, OUTPUTS, FuzzInput, command
from benchmarks.fault_injection.fuzzing.values import TEXTS, choose, read_path, words, written_path
from benchmarks.fault_injection.search_process import AGENTS
from nases_env.cli import draw, export, predict, pretrain, status, store, train, validate
from nases_env.cli import main as cli
from nases_env.retraining.plan_args import ReproduceArgs

CHEAP_VALUES: dict[str, tuple[str, ...]] = {
    "env_id": (
        "NASES-Synthetic-v0",
        "NASES-Query-v0",
        "NASES-NASBench201-v0",
        "NASES-TransNASMicro-v0",
        "NASES-Accel-v0",
        "CartPole-v1",
        "x:y",
        "os:x",
        "",
        "é",
        ":",
        "x/y-v0",
    ),
    "executor": ("serial", "auto", "x", ""),
    "dataset": ("digits", "image_folder", "x", "", "é", "\udcff"),
    "preset": ("smoke", "x", "", "é", "SMOKE", "default"),
    "device": ("cpu", "auto", "cuda", "cuda:99", "meta", "mps", "cpu:1", "xla", "", "é", "privateuseone", "fpga", "\udcff"),
}
"""Words of options that could otherwise select a long computation; they are drawn instead of values of any type."""

READ_OPTIONS = ("resume", "data_dir", "embedding")
WRITTEN_OPTIONS = ("output", "run_dir", "store", "work_dir")
"""Options whose values are paths."""


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        name: name of the option with underscores, and with the name of its group.
        hint: the type of its value.
    """

    name: str
    hint: Any


class Command(NamedTuple):
    """A command.

    Attributes:
        name: its name in messages.
        main: its main function.
        args_type: the dataclass of its options.
        first: words of the command line that come first; they make the command cheap.
        positional: returns the positional arguments.
    """

    name: str
    main: Callable[[], object]
    args_type: type
    first: tuple[str, ...] = ()
    positional: Callable[[np.random.Generator], list[str]] = lambda rng: []


def options_of(args_type: type, prefix: str = "") -> Iterator[Option]:
    """Yield the options of a dataclass, without positional arguments."""
    hints = typing.get_type_hints(args_type, include_extras=True)
    for field in dataclasses.fields(args_type):
        metadata = getattr(hints[field.name], "__metadata__", ())
        if tyro.conf.Positional in metadata:
            continue
        group = _group(hints[field.name])
        if group is None:
            yield Option(prefix + field.name, hints[field.name])
        else:
            yield from options_of(group, prefix if tyro.conf.OmitArgPrefixes in metadata else f"{prefix}{field.name}.")


def _group(hint: Any) -> type | None:
    """Return the dataclass in ``hint``, which may be annotated or optional; None if there is none."""
    if isinstance(hint, type):
        return hint if dataclasses.is_dataclass(hint) else None
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        arguments = arguments[:1]
    return next((found for each in arguments if (found := _group(each)) is not None), None)


def _reads(number: int) -> Callable[[np.random.Generator], list[str]]:
    return lambda rng: [read_path(rng) for _ in range(number if rng.random() < 0.9 else rng.integers(4))]


def _reads_sample(*names: str) -> Callable[[np.random.Generator], list[str]]:
    """Return a function that draws a valid file, or any path."""
    return lambda rng: [f"{INPUTS}/{choose(rng, names)}"] if rng.random() < 0.5 else _reads(1)(rng)


def _unconvertible(rng: np.random.Generator) -> list[str]:
    """Return a path that is not a model, because the conversion of a model takes 16 seconds."""
    return [f"{INPUTS}/{choose(rng, ('run', 'image.png', 'embedding.safetensors', 'directory', 'missing', 'loop', 'null'))}"]


def _store_command(rng: np.random.Generator) -> list[str]:
    path = f"{INPUTS}/run/store.sqlite" if rng.random() < 0.6 else read_path(rng)
    others = {"merge": [written_path(rng), path], "show": [path, choose(rng, (*TEXTS, "enas_micro"))]}
    name = choose(rng, ("ls", "show", "export", "merge", "verify", "", "x", "lss"))
    return [name, *others.get(name, [path])]


@lru_cache(maxsize=1)
def commands() -> tuple[Command, ...]:
    """Return all commands."""
    search = ("--env-id", "NASES-Synthetic-v0", "--budget", "1", "--run-dir", f"{OUTPUTS}/run-new")
    pretraining = ("--num-steps", "2", "--batch-size", "2", "--hidden-size", "4", "--num-calibration-rounds", "0")
    training = ("--dataset", "digits", "--preset", "smoke", "--child.num-epochs", "1", "--child.num-train-images", "3")
    # Without an environment that trains, a reproduction ends with an error before its first step.
    reproduction = ("--env-id", "NASES-Synthetic-v0", "--preset", "smoke", "--dry-run", "--output", f"{OUTPUTS}/new")
    models = _reads_sample("final", "final/seed-0/model.safetensors")
    return (
        Command("nases draw", cli.main, draw.DrawArgs, ("draw",), _reads_sample("run/best.json", "final/genotype.json")),
        Command("nases status", cli.main, status.StatusArgs, ("status",), _reads_sample("run", "final")),
        Command("nases validate", cli.main, validate.ValidateArgs, ("validate",), _reads_sample("run")),
        Command("nases train", cli.main, train.TrainArgs, ("train", *training), _reads_sample("run/best.json")),
        Command("nases export", cli.main, export.ExportArgs, ("export",), _unconvertible),
        Command("nases predict", cli.main, predict.PredictArgs, ("predict",), lambda rng: [*models(rng), *_reads(2)(rng)]),
        Command("nases store", cli.main, store.LsArgs, ("store",), _store_command),
        Command("nases store", cli.main, store.ExportArgs, ("store",), _store_command),
        Command("nases pretrain", cli.main, pretrain.PretrainArgs, ("pretrain", "--output", f"{OUTPUTS}/new", *pretraining)),
        Command("nases reproduce", cli.main, ReproduceArgs, ("reproduce", *reproduction)),
        Command("nases", cli.main, draw.DrawArgs, (), _reads(1)),
        *(Command(name, script(AGENTS / f"{name}.py"), args_type, search) for name, args_type in _agents()),
    )


def _agents() -> Iterator[tuple[str, type]]:
    """Yield the name and the options of each agent that has a command line."""
    for module in pkgutil.iter_modules([str(AGENTS)]):
        args_type = getattr(importlib.import_module(f"nases_agents.{module.name}"), "Args", None)
        if args_type is not None:
            yield module.name, args_type


def _value(rng: np.random.Generator, option: Option) -> list[str]:
    name = option.name.split(".")[-1]
    if name in CHEAP_VALUES:
        return [choose(rng, CHEAP_VALUES[name])]
    if name in WRITTEN_OPTIONS:
        return [written_path(rng)]
    if name in READ_OPTIONS:
        return [f"{OUTPUTS}/run" if name == "resume" and rng.random() < 0.5 else read_path(rng)]
    return words(rng, option.hint)


def _option_words(rng: np.random.Generator, option: Option) -> list[str]:
    """Return the words of an option; its value or its name may be damaged."""
    flag, value, kind = f"--{option.name.replace('_', '-')}", _value(rng, option), rng.random()
    if kind < 0.05:
        return [flag]
    if kind < 0.08:
        return [flag + choose(rng, ("x", "é", "-", "=")), *value]
    if kind < 0.11:
        return [flag[:-1], *value]
    if kind < 0.2:
        return [f"{flag}={' '.join(value)}"]
    if kind < 0.25:
        return [flag, *value, flag, *value]
    return [flag, *value]


def draw_command_line(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that runs a command with random options."""
    chosen = choose(rng, commands())
    options = list(options_of(chosen.args_type))
    line = [*chosen.first, *chosen.positional(rng)]
    for _ in range(choose(rng, (0, 1, 1, 1, 2, 3))):
        line += _option_words(rng, choose(rng, options)) if rng.random() < 0.9 and options else [choose(rng, TEXTS)]
    if rng.random() < 0.05:  # without some of the first words
        line = line[rng.integers(1, 4) :] if len(chosen.first) <= 1 else line
    return command(chosen.name.split()[0], chosen.main, line)
