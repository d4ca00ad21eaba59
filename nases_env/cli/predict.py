"""``nases predict``: classify images with a trained model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from nases_env.cli.export import MODEL_HELP, SEARCH_SPACE_HELP
from nases_env.command_line import parse, print_error
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.model_io.serialization import load_model


@dataclass(frozen=True)
class PredictArgs:
    """Classify images with a trained model and print the most probable classes of each.

    An image that cannot be read is reported in one line, and the remaining images are classified; the exit status is then 2.
    """

    run: tyro.conf.Positional[Path] = field(metadata={"help": MODEL_HELP})
    images: tyro.conf.Positional[tuple[Path, ...]] = field(
        metadata={"help": "PNG, JPEG or TIFF files, or .npy files with one image each."}
    )
    top: int = field(default=5, metadata={"help": "Number of classes to print."})
    search_space: str | None = field(default=None, metadata={"help": SEARCH_SPACE_HELP})


ARGS = PredictArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases predict``."""
    predict_command(parse(PredictArgs, prog="nases predict", args=options))


def predict_command(args: PredictArgs) -> None:
    """Run ``nases predict``; exit with status 2 if an image cannot be read.

    Raises:
        InputError: if there is no model, no image is given, or ``--top`` is not positive.
    """
    if not args.images:
        raise InputError("no image given: nases predict RUN IMAGE...")
    if args.top < 1:
        raise InputError(f"--top must be at least 1, not {args.top}")
    model = load_model(args.run, search_space=args.search_space)
    num_unreadable = 0
    for image in args.images:
        try:
            predictions = model.predict(image, args.top)
        except InputError as error:
            print_error(error)
            num_unreadable += 1
            continue
        print(f"{printable(image)}:")
        for class_name, probability in predictions:
            print(f"{probability:8.2%}  {printable(class_name)}")
    if num_unreadable:
        sys.exit(2)
