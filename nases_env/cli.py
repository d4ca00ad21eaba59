"""The ``nases`` command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from nases_env import drawing
from nases_env.commands import parse, run
from nases_env.embedding.command import PretrainArgs, pretrain_command
from nases_env.errors import InputError
from nases_env.search_spaces import make_search_space

DESCRIPTION = "Neural architecture search in embedding space: what is needed beside the agents."


@dataclass(frozen=True)
class DrawArgs:
    """Draw an architecture, such as a run folder's best.json."""

    architecture: tyro.conf.Positional[Path] = field(metadata={"help": "A JSON file with a genotype."})
    output: Path | None = field(default=None, metadata={"help": "A .png or .svg file; unset: print the cells as text."})
    search_space: str = field(default="enas_micro", metadata={"help": "Name of the search space."})


def draw_command(args: DrawArgs) -> None:
    """Runs ``nases draw``.

    Raises:
        InputError: if the file cannot be read or holds no architecture, or the picture cannot be written.
    """
    try:
        text = args.architecture.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {args.architecture} ({error}); give a JSON file with a genotype") from None
    search_space = make_search_space(args.search_space)
    architecture = search_space.from_json(text)
    if args.output is None:
        print(drawing.describe(search_space, architecture))
    else:
        drawing.save(drawing.draw(search_space, architecture, args.architecture.name), args.output)


Commands = Annotated[PretrainArgs, tyro.conf.subcommand("pretrain")] | Annotated[DrawArgs, tyro.conf.subcommand("draw")]


def main() -> None:
    """The entry point of ``nases``."""
    run(_main)


def _main() -> None:
    args = parse(Commands, prog="nases", description=DESCRIPTION)
    if isinstance(args, PretrainArgs):
        pretrain_command(args)
    else:
        draw_command(args)
