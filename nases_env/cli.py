"""The ``nases`` command."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from nases_env import drawing
from nases_env.commands import parse, run
from nases_env.embedding.command import PretrainArgs, pretrain_command
from nases_env.errors import InputError
from nases_env.search.status import StatusArgs, status_command
from nases_env.search.validate import ValidateArgs, validate_command
from nases_env.search_spaces import SEARCH_SPACES, EnasMicro, make_search_space
from nases_env.store_commands import StoreCommands, run_store_command

DESCRIPTION = "Neural architecture search in embedding space: what is needed beside the agents."


@dataclass(frozen=True)
class DrawArgs:
    """Draw an architecture, such as a run folder's best.json."""

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
    search_space = make_search_space(args.search_space or _named_in(text))
    architecture = search_space.from_json(text)
    if args.output is None:
        print(drawing.describe(search_space, architecture))
    else:
        drawing.save(drawing.draw(search_space, architecture, args.architecture.name), args.output)


def _named_in(text: str) -> str:
    """The search space that a file of an architecture names; enas_micro where it names none that ships.

    A file does not decide what is imported, so that it cannot name MODULE:CLASS.
    """
    with contextlib.suppress(json.JSONDecodeError):  # which the search space refuses with a reason
        record = json.loads(text)
        if isinstance(record, dict) and record.get("search_space") in list(SEARCH_SPACES):
            return str(record["search_space"])
    return EnasMicro.name


Commands = (
    Annotated[PretrainArgs, tyro.conf.subcommand("pretrain")]
    | Annotated[DrawArgs, tyro.conf.subcommand("draw")]
    | Annotated[StatusArgs, tyro.conf.subcommand("status")]
    | Annotated[ValidateArgs, tyro.conf.subcommand("validate")]
    | Annotated[StoreCommands, tyro.conf.subcommand("store", description="Look at or check a store of results.")]
)


def main() -> None:
    """The entry point of ``nases``."""
    run(_main)


def _main() -> None:
    args = parse(Commands, prog="nases", description=DESCRIPTION)
    if isinstance(args, PretrainArgs):
        pretrain_command(args)
    elif isinstance(args, DrawArgs):
        draw_command(args)
    elif isinstance(args, StatusArgs):
        status_command(args)
    elif isinstance(args, ValidateArgs):
        validate_command(args)
    else:
        run_store_command(args)
