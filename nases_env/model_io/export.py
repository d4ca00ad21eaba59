"""Export of trained models to ONNX, ``torch.export`` and Python, verified against the model before the file is written."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.extras import import_extra
from nases_env.model_io.export_python import load_python, python_source
from nases_env.model_io.model import TrainedModel
from nases_env.model_io.serialization import model_metadata
from nases_env.seeding import torch_generator

ExportFormat = Literal["onnx", "torch-export", "python"]
SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2", "python": ".py"}

TOLERANCE = 1e-4  # absolute difference between a logit of the model and of the export
RELATIVE_TOLERANCE = 1e-5  # the same relative to the largest logit; applies to logits above 10
TEST_BATCH_SIZES = (1, 2, 7, 32)
EXAMPLE_BATCH_SIZE = 2  # torch.export treats a batch size of 1 as a constant

Function = Callable[[Tensor], Tensor]


def export_model(
    model: TrainedModel,
    path: str | os.PathLike[str],
    format: ExportFormat = "onnx",
    *,
    batch_size: int | None = None,
) -> float:
    """Write ``model`` in evaluation mode to ``path``, atomically, for use without NASES.

    The export maps ``images``, float32 (N, channels, height, width) with values in [0, 1], to ``logits``, float32
    (N, classes). Before it is written, the export is loaded and compared with the model on random images.

    The ``model_metadata`` is stored as JSON: ``search_space``, ``genotype``, ``network``, ``class_names``, ``image_shape``
    and ``description``; in ``metadata_props`` of ONNX files, in ``extra_files`` of ``torch.export`` files, and in
    ``METADATA`` of Python files.

    Args:
        model: the model; it is not modified.
        path: the file.
        format: ``onnx`` requires the packages of ``nases-env[export]``; ``torch-export`` is read by ``torch.export.load``;
            ``python`` is a module with the function ``load`` that needs only torch.
        batch_size: fixed batch size N of the export; None: any batch size.

    Returns:
        The largest absolute difference between a logit of the model and of the export.

    Raises:
        InputError: if packages are missing, ``batch_size`` is not positive, the network cannot be exported, a logit differs
            by more than 1e-4 and by more than 1e-5 of the largest logit, or the file cannot be written. In these
            cases no file is written.
    """
    exported = verified_export(model, format, batch_size)
    write_atomically(Path(path), exported.content)
    return exported.difference


class VerifiedExport(NamedTuple):
    """An export whose logits equal the model's.

    Attributes:
        function: the export, loaded again (an ONNX model with one thread): maps images to logits.
        content: the content of its file.
        difference: the largest absolute difference between a logit of the model and of the export.
    """

    function: Function
    content: bytes
    difference: float


def verified_export(model: TrainedModel, format: ExportFormat, batch_size: int | None) -> VerifiedExport:
    """Export ``model`` and compare the export with it; see ``export_model``.

    Raises:
        InputError: see ``export_model``.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")
    if format not in SUFFIXES:
        raise InputError(f"unknown format {format!r}{did_you_mean(str(format), SUFFIXES)}; known: {', '.join(SUFFIXES)}")
    export, load = _FORMATS[format]
    copied = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    metadata = {name: json.dumps(value) for name, value in model_metadata(model).items()}
    content = export(copied, batch_size, metadata)
    function = load(content)
    difference = _check(copied, function, TEST_BATCH_SIZES if batch_size is None else (batch_size,) * 3)
    return VerifiedExport(function, content, difference)


def _check(model: TrainedModel, exported: Function, batch_sizes: tuple[int, ...]) -> float:
    """Return the largest absolute difference between logits of ``model`` and ``exported`` on random images."""
    generator = torch_generator(0, "export")
    batches = [torch.rand((batch_size, *model.image_shape), generator=generator) for batch_size in batch_sizes]
    with torch.inference_mode():
        expected = torch.cat([model(images) for images in batches])
        differences = torch.cat([exported(images) for images in batches]) - expected
    difference, largest = float(differences.abs().max()), float(expected.abs().max())
    if not difference <= max(TOLERANCE, RELATIVE_TOLERANCE * largest):  # true for NaN as well
        raise InputError(
            f"the logits of the export differ from the model's by {difference:.1e} (largest logit: {largest:.1e}); no file "
            "was written: try a different --format, or a different version of torch or onnxruntime"
        )
    return difference


def _program(model: TrainedModel, batch_size: int | None) -> torch.export.ExportedProgram:
    example = torch.rand((batch_size or EXAMPLE_BATCH_SIZE, *model.image_shape), generator=torch_generator(0, "example"))
    shapes = None if batch_size else {"images": {0: torch.export.Dim("batch", min=1)}}
    try:
        with torch.no_grad():
            return torch.export.export(model, (example,), dynamic_shapes=shapes)
    except Exception as error:  # tracing a custom network can raise any exception
        raise InputError(
            f"the network cannot be exported by torch.export ({_first_line(error)}); try another version of torch"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return one_line(f"{type(error).__name__}: {lines[0] if lines else ''}")


def _to_torch_export(model: TrainedModel, batch_size: int | None, metadata: dict[str, str]) -> bytes:
    buffer, program = io.BytesIO(), _program(model, batch_size)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines, with paths of this machine
    torch.export.save(program, buffer, extra_files=metadata)
    return buffer.getvalue()


def _load_torch_export(content: bytes) -> Function:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda images: module(images)


def _to_python(model: TrainedModel, batch_size: int | None, metadata: dict[str, str]) -> bytes:
    return python_source(model, _program(model, batch_size), metadata)


def _to_onnx(model: TrainedModel, batch_size: int | None, metadata: dict[str, str]) -> bytes:
    onnx_packages()
    onnx = torch.onnx.export(
        _program(model, batch_size),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=None if batch_size else {"images": {0: "batch"}},
        verbose=False,
    )
    assert onnx is not None  # only the legacy exporter returns None
    onnx.model.metadata_props.update(metadata)
    proto = onnx.model_proto
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]  # the source lines of every operator, with paths of this machine: most of a small file
    content: bytes = proto.SerializeToString()
    return content


def load_onnx(content: bytes) -> Function:
    """Load an ONNX model with one thread."""
    runtime = onnx_packages()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def onnx_packages() -> Any:
    """Return the module onnxruntime after checking that all three packages are installed.

    Raises:
        InputError: if one is missing.
    """
    _, _, runtime = (import_extra(name, "export", "export to ONNX") for name in ("onnx", "onnxscript", "onnxruntime"))
    return runtime


_FORMATS: dict[
    ExportFormat, tuple[Callable[[TrainedModel, int | None, dict[str, str]], bytes], Callable[[bytes], Function]]
] = {
    "onnx": (_to_onnx, load_onnx),
    "torch-export": (_to_torch_export, _load_torch_export),
    "python": (_to_python, load_python),
}
"""The functions that return the content of a file, and that load it."""
