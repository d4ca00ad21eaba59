"""Trained models for other programs: ONNX and ``torch.export``, checked against the model before they are written."""

from __future__ import annotations

import copy
import importlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.model_io.model import TrainedModel
from nases_env.model_io.serialization import describe_model
from nases_env.seeding import torch_generator

ExportFormat = Literal["onnx", "torch-export"]
SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2"}

TOLERANCE = 1e-4  # between a logit of the model and of its export
RELATIVE_TOLERANCE = 1e-5  # the same as a share of the largest logit: beyond 10, float32 rounds more coarsely
CHECKED_BATCH_SIZES = (1, 2, 7, 32)
EXAMPLE_BATCH_SIZE = 2  # the least that torch.export does not take for a constant

Function = Callable[[Tensor], Tensor]


def export_model(
    model: TrainedModel,
    path: str | os.PathLike[str],
    format: ExportFormat = "onnx",
    *,
    batch_size: int | None = None,
) -> float:
    """Writes ``model`` in evaluation mode to ``path``, atomically, for programs that know nothing of NASES.

    The export takes ``images``, float32 (N, channels, height, width) with values in [0, 1], and gives ``logits``, float32
    (N, classes). What is written has been loaded again and compared with the model on random images.

    Every entry of the model's description is kept as JSON: ``search_space``, ``genotype``, ``network``, ``class_names``,
    ``image_shape`` and ``description``. ONNX holds them in ``metadata_props``, ``torch.export`` in ``extra_files``.

    Args:
        model: stays as it is.
        path: the file.
        format: ``onnx`` needs the extra packages of ``nases-env[export]``; ``torch-export`` is read by
            ``torch.export.load``.
        batch_size: the only N that the export takes; None: any.

    Returns:
        The largest difference of a logit between the model and its export.

    Raises:
        InputError: if packages are missing, ``batch_size`` is not positive, the network cannot be exported, a logit of the
            export differs by more than 1e-4, or 1e-5 of the largest logit where that is more, or the file cannot be
            written. In all cases nothing is written.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1, or dynamic for any")
    if format not in SUFFIXES:
        raise InputError(f"unknown format {format!r}{did_you_mean(str(format), SUFFIXES)}; known: {', '.join(SUFFIXES)}")
    export, load = {"onnx": (_to_onnx, _load_onnx), "torch-export": (_to_torch_export, _load_torch_export)}[format]
    copied = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    metadata = {name: json.dumps(value) for name, value in describe_model(model).items()}
    content = export(copied, batch_size, metadata)
    difference = _check(copied, load(content), CHECKED_BATCH_SIZES if batch_size is None else (batch_size,) * 3)
    write_atomically(Path(path), content)
    return difference


def _check(model: TrainedModel, exported: Function, batch_sizes: tuple[int, ...]) -> float:
    """The largest difference of a logit between the two, on random images."""
    generator = torch_generator(0, "export")
    batches = [torch.rand((batch_size, *model.image_shape), generator=generator) for batch_size in batch_sizes]
    with torch.inference_mode():
        expected = torch.cat([model(images) for images in batches])
        differences = torch.cat([exported(images) for images in batches]) - expected
    difference, largest = float(differences.abs().max()), float(expected.abs().max())
    if not difference <= max(TOLERANCE, RELATIVE_TOLERANCE * largest):  # NaN too
        raise InputError(
            f"the export differs from the model by {difference:.1e} where the largest logit is {largest:.1e}; nothing was "
            "written: try another --format, or another version of torch or onnxruntime"
        )
    return difference


def _program(model: TrainedModel, batch_size: int | None) -> torch.export.ExportedProgram:
    example = torch.rand((batch_size or EXAMPLE_BATCH_SIZE, *model.image_shape), generator=torch_generator(0, "example"))
    shapes = None if batch_size else {"images": {0: torch.export.Dim("batch", min=1)}}
    try:
        with torch.no_grad():
            return torch.export.export(model, (example,), dynamic_shapes=shapes)
    except Exception as error:  # whatever a network of one's own makes of being traced
        raise InputError(f"the network cannot be exported by torch.export ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return one_line(f"{type(error).__name__}: {lines[0] if lines else ''}")


def _to_torch_export(model: TrainedModel, batch_size: int | None, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(model, batch_size), buffer, extra_files=metadata)
    return buffer.getvalue()


def _load_torch_export(content: bytes) -> Function:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda images: module(images)


def _to_onnx(model: TrainedModel, batch_size: int | None, metadata: dict[str, str]) -> bytes:
    _packages()
    onnx = torch.onnx.export(
        _program(model, batch_size),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=None if batch_size else {"images": {0: "batch"}},
        verbose=False,
    )
    assert onnx is not None  # it is None only of the exporter of old
    onnx.model.metadata_props.update(metadata)
    content: bytes = onnx.model_proto.SerializeToString()
    return content


def _load_onnx(content: bytes) -> Function:
    session = _packages().InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _packages() -> Any:
    """onnxruntime, where all three packages are there."""
    try:
        importlib.import_module("onnx")
        importlib.import_module("onnxscript")
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            f"exporting to ONNX needs more packages ({one_line(error)}): pip install 'nases-env[export]'"
        ) from error
