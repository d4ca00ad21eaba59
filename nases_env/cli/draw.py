"""``nases draw``: draw an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from nases_env.command_line import parse
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.input_files import read_text
from nases_env.search_spaces import SEARCH_SPACES, parse_architecture


@dataclass(frozen=True)
class DrawArgs:
    """Draw an architecture, such as best.json of a run directory or genotype.json of a model."""

    architecture: tyro.conf.Positional[Path] = field(
        metadata={"help": "JSON file with a genotype, or the directory of a search; its best.json is drawn."}
    )
    output: Path | None = field(
        default=None, metadata={"help": "PNG, SVG, PDF or TikZ (.tex) file to write. Default: print the cells as text."}
    )
    search_space: str | None = field(
        default=None,
        metadata={
            "help": f"{', '.join(SEARCH_SPACES)}, or a custom search space as MODULE:CLASS. Default: the one in the file."
        },
    )
    title: str | None = field(default=None, metadata={"help": "Title of the drawing. Default: the name of the file."})


ARGS = DrawArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases draw``."""
    draw_command(parse(DrawArgs, prog="nases draw", args=options))


def draw_command(args: DrawArgs) -> None:
    """Run ``nases draw``.

    Raises:
        InputError: if the file cannot be read or is not an architecture, the figure cannot be written, or an option has no
            effect.
    """
    if args.title is not None and args.output is None:
        raise InputError("--title is only for --output; add --output, or omit it")
    file = args.architecture
    if file.is_dir():
        from nases_env.search.run_dir import BEST  # imports the evaluators, which is slow

        file /= BEST
    text = read_text(file, "pass a JSON file with a genotype, or the directory of a search")
    search_space, architecture = parse_architecture(text, args.search_space)
    from nases_env import visualization  # imports matplotlib, which is slow

    if args.output is None:
        print(visualization.describe(search_space, architecture))
    else:
        title = printable(file.name if args.title is None else args.title)
        visualization.save_drawing(search_space, architecture, args.output, title)
