"""``nases pretrain``: train an embedding, measure it, and write both down."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from nases_env.atomic_io import write_atomically
from nases_env.cpu import torch_threads
from nases_env.embedding.autoencoder import Loss
from nases_env.embedding.metrics import quality_report, report_table
from nases_env.embedding.pretraining import PRESETS, PretrainSettings, pretrain
from nases_env.embedding.serialization import save_embedding
from nases_env.errors import InputError
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, get_search_space


def _help(name: str) -> str:
    """The help of a setting, for the option of the same name."""
    by_name = {setting.name: setting.metadata["help"] for setting in dataclasses.fields(PretrainSettings)}
    return f"{by_name[name]} Unset: the preset's."


@dataclass(frozen=True)
class PretrainArgs:
    """Train the embedding of a search space, print a report on its quality, and save weights and report."""

    output: Path = field(
        metadata={
            "help": "A .safetensors file, or a folder for <search space>.safetensors; the report lies beside it as .json."
        }
    )
    search_space: str = field(
        default="enas_micro", metadata={"help": f"{', '.join(SEARCH_SPACES)}, or one of your own as MODULE:CLASS."}
    )
    preset: Literal["default", "paper"] = field(default="default", metadata={"help": "Settings to start from."})
    seed: int = field(default=0, metadata={"help": "Of everything random: the same command makes the same file."})
    num_threads: int = field(
        default=1,
        metadata={"help": "Threads that torch computes with; the file is bit for bit the same only for the same number."},
    )
    embedding_size: int | None = field(default=None, metadata={"help": _help("embedding_size")})
    hidden_size: int | None = field(default=None, metadata={"help": _help("hidden_size")})
    loss: Loss | None = field(default=None, metadata={"help": _help("loss")})
    num_steps: int | None = field(default=None, metadata={"help": _help("num_steps")})
    batch_size: int | None = field(default=None, metadata={"help": _help("batch_size")})
    learning_rate: float | None = field(default=None, metadata={"help": _help("learning_rate")})
    schedule: Literal["constant", "cosine"] | None = field(default=None, metadata={"help": _help("schedule")})
    standardize: bool | None = field(default=None, metadata={"help": _help("standardize")})
    noise: float | None = field(default=None, metadata={"help": _help("noise")})
    num_calibration_rounds: int | None = field(default=None, metadata={"help": _help("num_calibration_rounds")})

    def settings(self, search_space: SearchSpace) -> PretrainSettings:
        """The preset with what was overridden, and the size of an embedding of ``search_space``."""
        options = {setting.name: getattr(self, setting.name) for setting in dataclasses.fields(PretrainSettings)}
        given = {name: value for name, value in options.items() if value is not None}
        settings = dataclasses.replace(PRESETS[self.preset], **given)
        return dataclasses.replace(settings, embedding_size=settings.size_for(search_space))


def pretrain_command(args: PretrainArgs) -> None:
    """Run ``nases pretrain``.

    Raises:
        InputError: for an unknown search space, settings out of range, or an output that cannot be written.
    """
    search_space = get_search_space(args.search_space)
    settings = args.settings(search_space)
    path = _weights_path(args.output, search_space.name)
    with torch_threads(args.num_threads):
        embedding, _ = pretrain(search_space, settings, args.seed, progress=sys.stderr.isatty())
        report = quality_report(embedding, search_space, args.seed)
    record = {"command": _command(args, path.name), "settings": dataclasses.asdict(settings), **dataclasses.asdict(report)}
    save_embedding(embedding, path)
    write_atomically(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())
    console = Console()
    console.print(report_table(report))
    console.print(f"weights: {path}\nreport:  {path.with_suffix('.json')}", highlight=False, soft_wrap=True)


def _weights_path(output: Path, search_space: str) -> Path:
    """The file that ``output`` means; its folder exists and can be written to."""
    path = output if output.suffix == ".safetensors" else output / f"{search_space}.safetensors"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path.parent} ({error.strerror}); give another --output") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}; give another --output")
    return path


def _command(args: PretrainArgs, file_name: str) -> str:
    """The command that makes the same file again in the working folder; what stands at its default is left out."""
    words = ["nases", "pretrain", "--output", file_name]
    for option in dataclasses.fields(args):
        value = getattr(args, option.name)
        if option.name != "output" and value != option.default:
            words += [f"--{option.name.replace('_', '-')}", str(value)]
    return shlex.join(words)
