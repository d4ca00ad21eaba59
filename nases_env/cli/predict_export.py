"""``nases export`` and ``nases predict``: what a trained model is good for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from nases_env.errors import InputError
from nases_env.model_io.export import SUFFIXES, ExportFormat, export_model
from nases_env.model_io.serialization import find_model, load_model

_RUN_HELP = "A model.safetensors, or the folder of a search or of its final training: of several seeds the lowest."
_SEARCH_SPACE_HELP = "Of a model whose search space does not ship: its MODULE:CLASS."


@dataclass(frozen=True)
class ExportArgs:
    """Write a trained model for programs that know nothing of NASES.

    What is written takes images of values in [0, 1] and gives logits. It has been loaded again and compared with the model
    on random images: a logit that differs by more than 1e-4, or 1e-5 of the largest logit where that is more, is an error,
    and nothing is written.
    """

    run: tyro.conf.Positional[Path] = field(metadata={"help": _RUN_HELP})
    format: ExportFormat = field(
        default="onnx",
        metadata={"help": "onnx needs pip install 'nases-env[export]'; torch-export needs torch alone."},
    )
    output: Path | None = field(default=None, metadata={"help": "The file; unset: beside the model's."})
    batch_size: Literal["dynamic"] | int = field(
        default="dynamic", metadata={"help": "How many images it takes at once; dynamic: any number."}
    )
    search_space: str | None = field(default=None, metadata={"help": _SEARCH_SPACE_HELP})


def export_command(args: ExportArgs) -> None:
    """Runs ``nases export``.

    Raises:
        InputError: if there is no model, packages are missing, the export differs from the model or it cannot be written.
    """
    file = find_model(args.run)
    output = args.output or file.with_suffix(SUFFIXES[args.format])
    if output.is_dir():
        raise InputError(f"{output} is a folder; give --output a file, such as {output / file.stem}{SUFFIXES[args.format]}")
    model = load_model(file, search_space=args.search_space)
    batch_size = None if args.batch_size == "dynamic" else args.batch_size
    difference = export_model(model, output, args.format, batch_size=batch_size)
    print(f"{output}: {len(model.class_names)} classes; its logits differ from the model's by at most {difference:.1e}")


@dataclass(frozen=True)
class PredictArgs:
    """Say what a trained model sees in pictures: its most probable classes, the most probable first.

    A picture that cannot be read is an error of one line, and the others are answered; the exit status is then 2.
    """

    run: tyro.conf.Positional[Path] = field(metadata={"help": _RUN_HELP})
    pictures: tyro.conf.Positional[tuple[Path, ...]] = field(metadata={"help": "PNG or JPEG files."})
    top: int = field(default=5, metadata={"help": "How many classes to name."})
    search_space: str | None = field(default=None, metadata={"help": _SEARCH_SPACE_HELP})


def predict_command(args: PredictArgs) -> None:
    """Runs ``nases predict``; exits with status 2 if a picture cannot be read.

    Raises:
        InputError: if there is no model, no picture is named, or ``--top`` is not positive.
    """
    if not args.pictures:
        raise InputError("name at least one picture: nases predict RUN PICTURE...")
    if args.top < 1:
        raise InputError(f"--top is {args.top}; it must be at least 1")
    model = load_model(args.run, search_space=args.search_space)
    num_unread = 0
    for picture in args.pictures:
        try:
            answers = model.predict(picture, args.top)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            num_unread += 1
            continue
        print(f"{picture}:")
        for class_name, probability in answers:
            print(f"{probability:8.2%}  {class_name}")
    if num_unread:
        sys.exit(2)
