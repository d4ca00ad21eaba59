"""Static post-training quantization of the ONNX export to int8 by ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.errors import InputError, one_line, require_minimum
from nases_env.extras import import_extra
from nases_env.model_io.export import Function, load_onnx, onnx_packages, verified_export
from nases_env.model_io.export_timing import median_seconds
from nases_env.model_io.model import TrainedModel
from nases_env.seeding import torch_generator
from nases_env.training import ImageSet
from nases_env.training.metrics import accuracy

NUM_CALIBRATION_IMAGES = 256
BATCH_SIZE = 64
"""Images per pass in calibration and evaluation, unless the batch size of the export is fixed."""

FLOAT_OPERATORS = ("BatchNormalization",)
"""Operators that stay float although ONNX Runtime could quantize their inputs: it has no int8 kernel for them. A batch norm
that follows a convolution is folded into it and is not affected."""


class Measured(NamedTuple):
    """Measurements of an export.

    Attributes:
        accuracy: on the validation images, in [0, 1].
        num_bytes: the size of the file.
        seconds: the median duration of a pass in seconds.
    """

    accuracy: float
    num_bytes: int
    seconds: float


class Quantized(NamedTuple):
    """The comparison of an int8 export with the float export.

    Attributes:
        full: the float export, which is not written.
        int8: the int8 export.
        agreement: the share of validation images for which both predict the same class, in [0, 1].
        num_calibration_images: the number of training images that determined the ranges of the activations.
        num_valid_images: the number of validation images.
    """

    full: Measured
    int8: Measured
    agreement: float
    num_calibration_images: int
    num_valid_images: int


def export_int8(
    model: TrainedModel,
    path: str | os.PathLike[str],
    train: ImageSet,
    valid: ImageSet,
    *,
    num_calibration_images: int = NUM_CALIBRATION_IMAGES,
    batch_size: int | None = None,
) -> Quantized:
    """Write ``model`` to ``path`` as an ONNX file with int8 weights and activations, atomically.

    The float export, which ``export_model`` writes, is checked first. Batch norms after convolutions are folded. Weights are
    quantized per output channel; activations by their range on a seeded sample of ``train``. Weights are in [-64, 64], so
    that the sum of two products does not overflow on x86 processors without VNNI, where the accuracy would differ. The file
    contains standard operators only (QDQ format), and its input and output are those of the float export.

    Args:
        model: the model; it is not modified.
        path: the file.
        train: the training images.
        valid: the images on which the exports are compared.
        num_calibration_images: size of the sample; fewer are used if there are fewer training images.
        batch_size: fixed batch size of the export; None: any batch size.

    Raises:
        InputError: as ``export_model``, if the images are not of the model, or the quantized network cannot be run. In these
            cases no file is written.
    """
    require_minimum(1, num_calibration_images=num_calibration_images)
    for images in (train, valid):
        if images.image_shape != model.image_shape or images.class_names != model.class_names:
            raise InputError(
                f"the data set has images of shape {images.image_shape} of {', '.join(images.class_names)}, but the model "
                f"is for shape {model.image_shape} and {', '.join(model.class_names)}; pass its data set (data_dir)"
            )
    _packages()
    exported = verified_export(model, "onnx", batch_size)
    order = torch.randperm(len(train), generator=torch_generator(0, "calibration images"))[:num_calibration_images]
    try:
        content = _quantize(exported.content, [batch.numpy() for batch in _batches(train.images[order], batch_size)])
        function = load_onnx(content)
    except InputError:
        raise
    except Exception as error:  # of ONNX Runtime, on a custom network
        raise InputError(
            f"ONNX Runtime cannot quantize the network ({one_line(error)}); export it without --int8"
        ) from error
    full, int8 = (_logits(each, valid.images, batch_size) for each in (exported.function, function))
    if not int8.isfinite().all():
        raise InputError("the logits of the quantized network are not finite; export it without --int8")
    seconds = median_seconds((exported.function, function), (batch_size or 1, *model.image_shape))
    quantized = Quantized(
        Measured(accuracy(full, valid), len(exported.content), seconds[0]),
        Measured(accuracy(int8, valid), len(content), seconds[1]),
        float((full.argmax(1) == int8.argmax(1)).double().mean()),
        len(order),
        len(valid),
    )
    write_atomically(Path(path), content)
    return quantized


def _batches(images: Tensor, batch_size: int | None) -> Iterator[Tensor]:
    """Yield ``images`` with values in [0, 1]; the first images fill up the last batch if the batch size is fixed."""
    if batch_size is not None:
        missing = -len(images) % batch_size
        images = images[torch.arange(len(images) + missing) % len(images)]
    for batch in torch.split(images, batch_size or BATCH_SIZE):
        yield batch.contiguous() / 255


def _logits(function: Function, images: Tensor, batch_size: int | None) -> Tensor:
    return torch.cat([function(batch) for batch in _batches(images, batch_size)])[: len(images)]


def _packages() -> tuple[Any, Any, Any]:
    """Return the modules onnx, onnxruntime.quantization and onnxruntime.quantization.shape_inference."""
    onnx_packages()
    names = ("onnx", "onnxruntime.quantization", "onnxruntime.quantization.shape_inference")
    onnx, quantization, shape_inference = (import_extra(name, "export", "export to int8") for name in names)
    return onnx, quantization, shape_inference


def _quantize(content: bytes, batches: list[NDArray[np.float32]]) -> bytes:
    """Return the int8 model of a float ONNX model; ``batches`` are its inputs in calibration."""
    onnx: Any
    quantization: Any
    shape_inference: Any
    onnx, quantization, shape_inference = _packages()

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inputs = iter([{"images": batch} for batch in batches])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        full, prepared, output = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8"))
        full.write_bytes(content)
        shape_inference.quant_pre_process(full, prepared)
        graph = onnx.load(prepared).graph
        quantization.quantize_static(
            prepared,
            output,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in graph.node if node.op_type in FLOAT_OPERATORS],
        )
        quantized = onnx.load(output)
    _shorten(quantized)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(onnx.load_model_from_string(content).metadata_props)
    onnx.checker.check_model(quantized)
    result: bytes = quantized.SerializeToString()
    return result


def _shorten(proto: Any) -> None:
    """Number the values inside the graph, whose long names are most of a small file, and remove what is not needed."""
    graph = proto.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}  # "" is an omitted input
    for node in graph.node:
        node.ClearField("name")
        for values in (node.input, node.output):
            values[:] = [names.setdefault(name, f"v{len(names)}") for name in values]
    for initializer in graph.initializer:
        initializer.name = names.setdefault(initializer.name, f"v{len(names)}")
    del graph.value_info[:]
    domains = {node.domain for node in graph.node}
    used = [opset for opset in proto.opset_import if opset.domain in domains]
    del proto.opset_import[:]
    proto.opset_import.extend(used)
