"""``nases export``: convert a trained model for use without NASES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from nases_env.command_line import parse
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.model_io.export import SUFFIXES, ExportFormat, export_model
from nases_env.model_io.serialization import find_model, load_model

MODEL_HELP = "A model.safetensors, or the directory of a search or of its final training; the lowest seed is used."
SEARCH_SPACE_HELP = "The custom search space of the model as MODULE:CLASS."


@dataclass(frozen=True)
class ExportArgs:
    """Convert a trained model for use without NASES.

    The exported model maps images with values in [0, 1] to logits. It is loaded again and compared with the original on
    random images. If a logit differs by more than 1e-4 (or 1e-5 of the largest logit, if that is larger), the command fails
    and writes nothing.
    """

    run: tyro.conf.Positional[Path] = field(metadata={"help": MODEL_HELP})
    format: ExportFormat = field(
        default="onnx",
        metadata={"help": "onnx requires pip install 'nases-env[export]'; torch-export requires only torch."},
    )
    output: Path | None = field(default=None, metadata={"help": "File to write. Default: next to the model."})
    batch_size: Literal["dynamic"] | int = field(
        default="dynamic", metadata={"help": "Number of images per call; dynamic: any number."}
    )
    search_space: str | None = field(default=None, metadata={"help": SEARCH_SPACE_HELP})


ARGS = ExportArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases export``."""
    export_command(parse(ExportArgs, prog="nases export", args=options))


def export_command(args: ExportArgs) -> None:
    """Run ``nases export``.

    Raises:
        InputError: if there is no model, a package is missing, the exported model differs, or it cannot be written.
    """
    file = find_model(args.run)
    output = args.output or file.with_suffix(SUFFIXES[args.format])
    if output.is_dir():
        raise InputError(
            f"{output} is a directory; pass a file to --output, such as {output / file.stem}{SUFFIXES[args.format]}"
        )
    model = load_model(file, search_space=args.search_space)
    batch_size = None if args.batch_size == "dynamic" else args.batch_size
    difference = export_model(model, output, args.format, batch_size=batch_size)
    classes = f"{len(model.class_names)} classes"
    print(f"{printable(output)}: {classes}; its logits differ from the model's by at most {difference:.1e}")
