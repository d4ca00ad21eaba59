"""The int8 export classifies as the model does, is quantized completely, and is not written after an error."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from nases_env.errors import InputError
from nases_env.model_io import TrainedModel, export_int8
from nases_env.model_io.export import VerifiedExport, verified_export
from nases_env.model_io.export_int8 import Quantized
from nases_env.training import ImageSet
from tests.model_io.conftest import CLASSES, SIZED, cifar10, tiny_model

export_int8_module = importlib.import_module("nases_env.model_io.export_int8")  # the package has a function of this name


@pytest.fixture(scope="module")
def splits() -> tuple[ImageSet, ImageSet]:
    return cifar10("train", 8), cifar10("test", 10)


@pytest.fixture(scope="module")
def int8_export(
    model: TrainedModel,
    onnx_export: VerifiedExport,
    splits: tuple[ImageSet, ImageSet],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Quantized]:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_int8_module, "verified_export", lambda *arguments: onnx_export)
        return path, export_int8(model, path, *splits, num_calibration_images=50)


@pytest.fixture(scope="module")
def int8_file(int8_export: tuple[Path, Quantized]) -> Path:
    return int8_export[0]


def logits_of(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": (images / 255).numpy()})[0])


def test_int8_logits_are_close_to_the_model(model: TrainedModel, splits: tuple[ImageSet, ImageSet], int8_file: Path) -> None:
    images = splits[1].images
    with torch.no_grad():
        expected = model(images / 255)
    difference = logits_of(int8_file, images) - expected
    assert 0 < difference.square().mean().sqrt() < 0.3 * expected.std(dim=0).mean()
    torch.testing.assert_close(logits_of(int8_file, images[:1]), logits_of(int8_file, images)[:1], rtol=0, atol=1e-5)


def test_reported_figures_are_those_of_the_files(
    model: TrainedModel, splits: tuple[ImageSet, ImageSet], int8_export: tuple[Path, Quantized]
) -> None:
    path, compared = int8_export
    valid = splits[1]
    with torch.no_grad():
        expected = model(valid.images / 255).argmax(1)
    predicted = logits_of(path, valid.images).argmax(1)
    assert compared.agreement == pytest.approx(float((predicted == expected).double().mean()))
    assert compared.full.accuracy == pytest.approx(float((expected == valid.labels).double().mean()))
    assert compared.int8.accuracy == pytest.approx(float((predicted == valid.labels).double().mean()))
    assert 0 < min(compared.full.seconds, compared.int8.seconds) < 1
    assert compared.int8.num_bytes == path.stat().st_size < compared.full.num_bytes < 100_000
    assert (compared.num_calibration_images, compared.num_valid_images) == (50, 100)


def test_convolutions_and_poolings_run_in_int8(int8_file: Path, tmp_path: Path) -> None:
    """ONNX Runtime fuses the quantized operators of the file, except for the batch norms after a concatenation."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3  # warns that the fused file is for this machine only
    onnxruntime.InferenceSession(int8_file, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert not {"Conv", "AveragePool", "Add", "Concat", "Gemm", "Relu"} & set(operators)
    assert operators.count("QLinearConv") > 20
    assert operators.count("QLinearAveragePool") == 3 * 2 + 2 * 1


def test_weights_are_quantized_per_channel_within_seven_bits(int8_file: Path) -> None:
    graph = onnx.load(int8_file).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = [
        (numpy_helper.to_array(tensors[node.input[0]]), numpy_helper.to_array(tensors[node.input[1]]))
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in tensors
        and tensors[node.input[0]].data_type == TensorProto.INT8
        and len(tensors[node.input[0]].dims) == 4
    ]
    assert weights
    for values, scales in weights:
        assert scales.shape == (len(values),)
        assert np.abs(values.astype(int)).max() <= 64


def test_int8_file_has_the_metadata_and_no_paths_of_this_machine(model: TrainedModel, int8_file: Path) -> None:
    exported = onnx.load(int8_file)
    onnx.checker.check_model(exported)
    metadata = {entry.key: json.loads(entry.value) for entry in exported.metadata_props}
    assert tuple(metadata["class_names"]) == CLASSES
    assert metadata["image_shape"] == list(model.image_shape)
    assert [opset.domain for opset in exported.opset_import] == [""]
    assert b".py" not in int8_file.read_bytes()


def tiny_splits(count: int = 5, names: tuple[str, ...] = ("cat", "dog", "eel"), side: int = 9) -> tuple[ImageSet, ImageSet]:
    images = torch.arange(count * 7 * side).remainder(251).to(torch.uint8).view(count, 1, 7, side)
    images_set = ImageSet(images, torch.arange(count) % 3, names)
    return images_set, images_set


@pytest.fixture(scope="module")
def tiny_float_export() -> VerifiedExport:
    return verified_export(tiny_model(), "onnx", None)


@pytest.fixture
def exported_once(tiny_float_export: VerifiedExport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one float export of ``tiny_model`` for all int8 exports, because it takes seconds."""
    monkeypatch.setattr(export_int8_module, "verified_export", lambda *arguments: tiny_float_export)


@pytest.mark.usefixtures("exported_once")
def test_equal_exports_are_equal_files_and_samples_differ(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.onnx" for number in range(3)]
    for file, num_images in zip(files, (5, 5, 1), strict=True):
        export_int8(tiny_model(), file, *tiny_splits(), num_calibration_images=num_images)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_fixed_batch_size_needs_no_multiple_of_images(
    fixed_export: VerifiedExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network has a stem of stride 2 and an expansion."""
    monkeypatch.setattr(export_int8_module, "verified_export", lambda *arguments: fixed_export)
    model = tiny_model("enas_micro_sized", genotype=SIZED)
    compared = export_int8(model, tmp_path / "model.onnx", *tiny_splits(), batch_size=4)
    assert (compared.num_calibration_images, compared.num_valid_images) == (5, 5)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == [4, 1, 7, 9]


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        (tiny_splits(names=("cat", "dog", "emu")), {}, "cat, dog, emu, but the model is for shape"),
        (tiny_splits(side=8), {}, r"shape \(1, 7, 8\) of .* pass its data set \(data_dir\)"),
        (tiny_splits(), {"num_calibration_images": 0}, "num_calibration_images must be at least 1"),
        (tiny_splits(), {"batch_size": 0}, "batch size is 0"),
    ],
)
def test_invalid_arguments_are_input_errors(
    splits: tuple[ImageSet, ImageSet], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_int8(tiny_model(), tmp_path / "model.onnx", *splits, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime.quantization"])
def test_missing_package_is_an_input_error(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'nases-env\[export\]'"):
        export_int8(tiny_model(), tmp_path / "model.onnx", *tiny_splits())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("exported_once")
def test_failed_quantization_is_an_input_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import onnxruntime.quantization

    def fail(*arguments: Any, **options: Any) -> None:
        raise ValueError("an operator\nis unknown")

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", fail)
    with pytest.raises(InputError, match=r"cannot quantize the network \(an operator is unknown\); export it without"):
        export_int8(tiny_model(), tmp_path / "model.onnx", *tiny_splits())
    assert list(tmp_path.iterdir()) == []
