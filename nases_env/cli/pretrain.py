"""``nases pretrain``: train an embedding and measure its quality."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from nases_env.atomic_io import write_atomically
from nases_env.command_line import given_preset, parse
from nases_env.console import Console
from nases_env.cpu import torch_threads
from nases_env.embedding.metrics import quality_report, report_table
from nases_env.embedding.pretraining import PRESETS, PretrainSettings, pretrain
from nases_env.embedding.serialization import save_embedding
from nases_env.errors import InputError
from nases_env.search_spaces import SEARCH_SPACES, get_search_space


@dataclass(frozen=True)
class PretrainArgs:
    """Train the embedding of a search space, print its quality metrics, and save weights and metrics."""

    output: Path = field(
        metadata={
            "help": "A .safetensors file, or a directory for SEARCH_SPACE.safetensors. It is created, unless its name has "
            "another suffix. The metrics are saved in a .json file of the same name."
        }
    )
    search_space: str = field(
        default="enas_micro", metadata={"help": f"{', '.join(SEARCH_SPACES)}, or a custom search space as MODULE:CLASS."}
    )
    preset: Literal["default", "paper"] = field(default="default", metadata={"help": "Defaults of the settings below."})
    seed: int = field(default=0, metadata={"help": "Random seed; the same command writes the same file."})
    num_threads: int = field(
        default=1,
        metadata={"help": "Number of CPU threads; the file is bit-identical only for the same number."},
    )
    settings: tyro.conf.OmitArgPrefixes[tyro.conf.FlagConversionOff[tyro.conf.AvoidSubcommands[PretrainSettings | None]]] = (
        field(default=None, metadata={"help": "Training settings; the defaults are set by --preset:"})
    )


ARGS = PretrainArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases pretrain``."""
    pretrain_command(parse_pretrain(options))


def parse_pretrain(options: Sequence[str]) -> PretrainArgs:
    """Parse the options of ``nases pretrain``; options that are not given default to the preset's values."""
    settings = PRESETS.get(given_preset(options) or "default")
    default = PretrainArgs(tyro.MISSING, settings=settings)
    args: PretrainArgs = parse(PretrainArgs, prog="nases pretrain", args=options, default=default)
    return args


def pretrain_command(args: PretrainArgs) -> None:
    """Run ``nases pretrain``.

    Raises:
        InputError: for an unknown search space, settings out of range, or an output that cannot be written.
    """
    search_space = get_search_space(args.search_space)
    settings = args.settings or PRESETS[args.preset]
    settings = dataclasses.replace(settings, embedding_size=settings.embedding_size_for(search_space))
    with torch_threads(args.num_threads):
        path = _weights_path(args.output, search_space.name)
        embedding, _ = pretrain(search_space, settings, args.seed, progress=sys.stderr.isatty())
        report = quality_report(embedding, search_space, args.seed)
    record = {"command": _command(args, path.name), "settings": dataclasses.asdict(settings), **dataclasses.asdict(report)}
    save_embedding(embedding, path)
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    console = Console()
    console.print(report_table(report))
    console.print(f"weights: {path}", f"report:  {path.with_suffix('.json')}", sep="\n", soft_wrap=True)


def _weights_path(output: Path, search_space: str) -> Path:
    """Return the file to write; create its directory and check that it is writable."""
    is_file = output.suffix == ".safetensors"
    if output.suffix and not is_file and not output.is_dir():
        raise InputError(f"--output {output} is neither a .safetensors file nor an existing directory; choose one of them")
    path = output if is_file else output / f"{search_space}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the directory {path.parent} ({error.strerror}); choose a different --output"
        ) from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}; choose a different --output")
    return path


def _command(args: PretrainArgs, file_name: str) -> str:
    """Return the command that reproduces the file in the working directory, without options that have default values."""
    words = ["nases", "pretrain", "--output", file_name]
    preset = PRESETS[args.preset]
    for values, defaults in ((args, PretrainArgs(args.output)), (args.settings or preset, preset)):
        for option in dataclasses.fields(values):
            value = getattr(values, option.name)
            if option.name not in ("output", "settings") and value != getattr(defaults, option.name):
                words += [f"--{option.name.replace('_', '-')}", str(value)]
    return shlex.join(words)
