"""Exports return the same logits as the model, or are not written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nases_env.errors import InputError
from nases_env.model_io import TrainedModel, export_model
from nases_env.model_io import export as export_module
from nases_env.model_io.export import VerifiedExport
from nases_env.seeding import torch_generator
from tests.model_io.conftest import CLASSES, SIZED, cifar10, tiny_model

PLAIN = {
    *("Add", "AveragePool", "BatchNormalization", "Concat", "Conv", "Div", "Gemm", "MaxPool", "Pad", "ReduceMean"),
    *("Relu", "Reshape", "Slice", "Sub", "Transpose"),
}


@pytest.fixture(scope="module")
def onnx_file(model: TrainedModel, onnx_export: VerifiedExport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "verified_export", lambda *arguments: onnx_export)
        assert export_model(model, path) <= 1e-4
    return path


def test_onnx_logits_match_the_model_on_1000_test_images(model: TrainedModel, onnx_file: Path) -> None:
    images = cifar10("test", 100).images / 255
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    batches = [images[start : start + 333] for start in range(0, 1000, 333)]  # the last batch has a single image
    with torch.no_grad():
        expected = torch.cat([model(batch) for batch in batches])
    logits = [session.run(["logits"], {"images": batch.numpy()})[0] for batch in batches]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(logits)), expected, rtol=0, atol=1e-4)
    assert len(expected) == 1000
    assert expected.std(dim=0).min() > 0.01  # logits differ between images


def test_onnx_has_plain_operators_and_metadata(onnx_file: Path) -> None:
    exported = onnx.load(onnx_file)
    onnx.checker.check_model(exported)
    assert {node.op_type for node in exported.graph.node} <= PLAIN
    assert sum(node.op_type == "AveragePool" for node in exported.graph.node) == 3 * 2 + 2 * 1
    shape = exported.graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["batch", 3, 32, 32]
    metadata = {entry.key: json.loads(entry.value) for entry in exported.metadata_props}
    assert tuple(metadata["class_names"]) == CLASSES
    assert metadata["search_space"] == "enas_micro"
    assert metadata["description"] == {"seed": 0, "test_accuracy": 0.25}


def test_exported_program_matches_the_model_and_leaves_it_unchanged(tmp_path: Path) -> None:
    model = tiny_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_model(model, tmp_path / "model.pt2", "torch-export")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    extra: dict[str, Any] = {"class_names": "", "image_shape": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["class_names"]) == list(model.class_names)
    assert json.loads(extra["image_shape"]) == [1, 7, 9]
    model.eval()
    for batch_size in (1, 5):
        images = torch.rand((batch_size, 1, 7, 9), generator=torch_generator(batch_size, "images"))
        torch.testing.assert_close(program.module()(images), model(images), rtol=0, atol=1e-5)


def test_onnx_with_fixed_batch_size_and_odd_image_size(
    fixed_export: VerifiedExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Implementations differ in pooling of odd sizes with windows that extend over the border."""
    monkeypatch.setattr(export_module, "verified_export", lambda *arguments: fixed_export)
    assert export_model(tiny_model("enas_micro_sized", genotype=SIZED), tmp_path / "model.onnx", batch_size=4) <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == [4, 1, 7, 9]


def test_network_with_a_stem_of_stride_2_and_expansion_is_exported(tmp_path: Path) -> None:
    """The export compares the logits and raises an error if they differ. Another test exports the network to ONNX."""
    export_model(tiny_model("enas_micro_sized", (3, 9, 10), SIZED), tmp_path / "model", "torch-export")
    assert (tmp_path / "model").is_file()


def noisy() -> TrainedModel:
    return tiny_model("tests.model_io.spaces:Noisy", genotype={"decisions": [0, 0]})


def data_dependent() -> TrainedModel:
    return tiny_model("tests.model_io.spaces:DataDependent", genotype={"decisions": [0, 0]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (noisy, "the logits of the export differ from the model's by"),
        (data_dependent, r"cannot be exported by torch.export .*; try another version of torch$"),
    ],
)
def test_failed_export_writes_no_file(make: Callable[[], TrainedModel], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        export_model(make(), tmp_path / "model.pt2", "torch-export")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_is_an_input_error(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(export_module, "_program", None)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'nases-env\[export\]'"):
        export_model(tiny_model(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"), [({"batch_size": 0}, "at least 1"), ({"format": "onxx"}, "did you mean 'onnx'")]
)
def test_invalid_options_are_input_errors(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_model(tiny_model(), tmp_path / "model.onnx", **options)
