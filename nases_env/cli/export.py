"""``nases export``: convert a trained model for use without NASES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.table import Table

from nases_env.atomic_io import require_writable, write_atomically
from nases_env.command_line import parse
from nases_env.console import Console
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.model_io import TrainedModel
from nases_env.model_io.export import SUFFIXES, ExportFormat, onnx_packages, verified_export
from nases_env.model_io.export_int8 import NUM_CALIBRATION_IMAGES, export_int8
from nases_env.model_io.export_timing import median_seconds
from nases_env.model_io.serialization import find_model, load_model
from nases_env.paths import require_other_file

INT8_SUFFIX = ".int8.onnx"
MAX_ACCURACY_LOSS = 0.01  # of int8, as a fraction of the validation images, before the output recommends the float model

MODEL_HELP = "A model.safetensors, or the directory of a search or of its final training; the lowest seed is used."
SEARCH_SPACE_HELP = "The custom search space of the model as MODULE:CLASS."


@dataclass(frozen=True)
class ExportArgs:
    """Convert a trained model for use without NASES.

    The exported model maps images with values in [0, 1] to logits. It is loaded again and compared with the original on
    random images. If a logit differs by more than 1e-4 (or 1e-5 of the largest logit, if that is larger), the command fails
    and writes nothing. The command prints the size of the file and the latency, the median of passes of one image with one
    CPU thread.

    With --int8, the weights and activations of the ONNX model are quantized to 8 bits, and the command compares it with the
    float model on validation images: a tenth of the training images, split as in the search whose run directory contains
    the final training.
    """

    run: tyro.conf.Positional[Path] = field(metadata={"help": MODEL_HELP})
    format: ExportFormat = field(
        default="onnx",
        metadata={
            "help": "onnx requires pip install 'nases-env[export]'. torch-export and python require only torch; python is a "
            "module that contains the network as readable code and its weights."
        },
    )
    int8: bool = field(
        default=False, metadata={"help": "Quantize the ONNX model to int8; this reads the data set of the final training."}
    )
    calibration_images: int = field(
        default=NUM_CALIBRATION_IMAGES,
        metadata={"help": "With --int8: number of training images that determine the ranges of the activations."},
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "With --int8: directory with the data set. Default: the search's value."}
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
    _check_options(args)
    file = find_model(args.run)
    suffix = INT8_SUFFIX if args.int8 else SUFFIXES[args.format]
    output = args.output or file.with_suffix(suffix)
    if output.is_dir():
        raise InputError(f"{output} is a directory; pass a file to --output, such as {output / file.stem}{suffix}")
    _require_suffix(output, args.format)
    require_other_file(output, file)
    require_writable(output)  # before the export, which takes long
    model = load_model(file, search_space=args.search_space)
    batch_size = None if args.batch_size == "dynamic" else args.batch_size
    num_images = "one image" if batch_size in (None, 1) else f"{batch_size} images"
    if args.int8:
        _export_int8(args, file, model, output, batch_size, num_images)
        return
    exported = verified_export(model, args.format, batch_size)
    (seconds,) = median_seconds([exported.function], (batch_size or 1, *model.image_shape))
    write_atomically(output, exported.content)
    size, latency = _kilobytes(len(exported.content)), f"{1000 * seconds:.3g} ms for {num_images} with one thread"
    print(
        f"{printable(output)}: {len(model.class_names)} classes; {size}; {latency}; its logits differ from the model's by at"
        f" most {exported.difference:.1e}"
    )


def _require_suffix(output: Path, format: ExportFormat) -> None:
    """Raise ``InputError`` if ``output`` has the suffix of another format; other suffixes are free."""
    for other, suffix in SUFFIXES.items():
        if output.suffix.lower() == suffix and other != format:
            raise InputError(f"{suffix} is the suffix of --format {other}, not {format}; change --output or --format")


def _check_options(args: ExportArgs) -> None:
    if args.int8 and args.format != "onnx":
        raise InputError(f"--int8 is only for --format onnx, not {args.format}; omit one of them")
    for option, is_given in (
        ("--calibration-images", args.calibration_images != NUM_CALIBRATION_IMAGES),
        ("--data-dir", args.data_dir is not None),
    ):
        if is_given and not args.int8:
            raise InputError(f"{option} is only for --int8; add --int8, or omit it")
    if args.calibration_images < 1:
        raise InputError(f"--calibration-images must be at least 1, not {args.calibration_images}")


def _export_int8(
    args: ExportArgs, file: Path, model: TrainedModel, output: Path, batch_size: int | None, num_images: str
) -> None:
    from nases_env.retraining.image_splits import read_splits  # slow to import

    onnx_packages()
    train, valid = read_splits(file, args.data_dir)
    compared = export_int8(
        model, output, train, valid, num_calibration_images=args.calibration_images, batch_size=batch_size
    )
    table = Table("export", "validation accuracy", "size", f"latency, {num_images}")
    for name, measured in (("float", compared.full), ("int8", compared.int8)):
        table.add_row(name, f"{measured.accuracy:.2%}", _kilobytes(measured.num_bytes), f"{measured.seconds * 1000:.3g} ms")
    console = Console(soft_wrap=True)
    Console().print(table)
    console.print(
        f"Both predict the same class for {compared.agreement:.2%} of the {compared.num_valid_images} validation images, "
        f"which the final training may have used. Calibrated on {compared.num_calibration_images} other training images."
    )
    loss = compared.full.accuracy - compared.int8.accuracy
    if loss > MAX_ACCURACY_LOSS:
        console.print(
            f"The accuracy of int8 is {100 * loss:.1f} percentage points lower, which is more than "
            f"{100 * MAX_ACCURACY_LOSS:g}: use the float model, or more --calibration-images."
        )
    print(f"{printable(output)}: {len(model.class_names)} classes, int8")


def _kilobytes(num_bytes: int) -> str:
    return f"{num_bytes / 1000:,.1f} kB"
