"""The ``nases`` command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from nases_env.cli.predict_export import ExportArgs, PredictArgs, export_command, predict_command
from nases_env.cli.pretrain import PretrainArgs, pretrain_command
from nases_env.cli.reproduce import reproduce_command
from nases_env.cli.status import StatusArgs, status_command
from nases_env.cli.store import StoreCommands, run_store_command
from nases_env.cli.train import TrainArgs, train_command
from nases_env.cli.validate import ValidateArgs, validate_command
from nases_env.command_line import parse, run
from nases_env.errors import InputError
from nases_env.retraining.plan_args import ReproduceArgs
from nases_env.search_spaces import SEARCH_SPACES, parse_architecture

DESCRIPTION = "Neural architecture search in embedding space: what is needed beside the agents."


@dataclass(frozen=True)
class DrawArgs:
    """Draw an architecture, such as a run folder's best.json or a model's genotype.json."""

    architecture: tyro.conf.Positional[Path] = field(metadata={"help": "A JSON file with a genotype."})
    output: Path | None = field(default=None, metadata={"help": "A .png or .svg file; unset: print the cells as text."})
    search_space: str | None = field(
        default=None,
        metadata={
            "help": f"{', '.join(SEARCH_SPACES)}, or one of your own as MODULE:CLASS; unset: the one that the file names."
        },
    )


def draw_command(args: DrawArgs) -> None:
    """Runs ``nases draw``.

    Raises:
        InputError: if the file cannot be read or holds no architecture, or the picture cannot be written.
    """
    try:
        text = args.architecture.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {args.architecture} ({error}); give a JSON file with a genotype") from None
    search_space, architecture = parse_architecture(text, args.search_space)
    from nases_env import visualization  # imports matplotlib, which is slow

    if args.output is None:
        print(visualization.describe(search_space, architecture))
    else:
        visualization.save(visualization.draw(search_space, architecture, args.architecture.name), args.output)


Commands = (
    Annotated[PretrainArgs, tyro.conf.subcommand("pretrain")]
    | Annotated[DrawArgs, tyro.conf.subcommand("draw")]
    | Annotated[StatusArgs, tyro.conf.subcommand("status")]
    | Annotated[ValidateArgs, tyro.conf.subcommand("validate")]
    | Annotated[TrainArgs, tyro.conf.subcommand("train")]
    | Annotated[ReproduceArgs, tyro.conf.subcommand("reproduce")]
    | Annotated[ExportArgs, tyro.conf.subcommand("export")]
    | Annotated[PredictArgs, tyro.conf.subcommand("predict")]
    | Annotated[StoreCommands, tyro.conf.subcommand("store", description="Look at or check a store of results.")]
)

RUN: dict[type, Callable[[Any], None]] = {
    PretrainArgs: pretrain_command,
    DrawArgs: draw_command,
    StatusArgs: status_command,
    ValidateArgs: validate_command,
    TrainArgs: train_command,
    ReproduceArgs: reproduce_command,
    ExportArgs: export_command,
    PredictArgs: predict_command,
}


def main() -> None:
    """The entry point of ``nases``."""
    run(_main)


def _main() -> None:
    args = parse(Commands, prog="nases", description=DESCRIPTION)
    RUN.get(type(args), run_store_command)(args)
