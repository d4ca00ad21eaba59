"""The exported Python file is readable, needs only torch, and returns the same logits as the model."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nases_env.errors import InputError
from nases_env.model_io import TrainedModel, export_model
from nases_env.model_io.export_python import FUNCTIONS, python_source
from nases_env.seeding import torch_generator
from tests.commands import run
from tests.model_io.conftest import SIZED, tiny_model

CUSTOM = {"decisions": [0, 0]}

# Run without the directory of the tests and without this package, as after a copy to another machine.
SCRIPT = """
import importlib.util, sys, torch
sys.modules["nases_env"] = None
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load()
    assert not network.training
    with torch.inference_mode():
        torch.save(network(torch.load(path + ".images")), path + ".logits")
"""


def test_file_returns_the_logits_of_the_model_in_a_process_without_nases(model: TrainedModel, tmp_path: Path) -> None:
    models = {
        "enas_micro": model,
        "enas_micro_sized": tiny_model("enas_micro_sized", (3, 9, 10), SIZED),
        "nasbench201": tiny_model(),
        "no_edges": tiny_model(genotype={"cell": "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"}),
        "transnas_micro": tiny_model(
            "transnas_micro",
            (3, 8, 8),
            {"cell": "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"},
        ),
        "tied": tiny_model("tests.model_io.spaces:TiedWidths", genotype=CUSTOM),
        "unusual": tiny_model("tests.model_io.spaces:Unusual", genotype=CUSTOM),
    }
    paths = [str(tmp_path / f"{name}.py") for name in models]
    for path, each in zip(paths, models.values(), strict=True):
        export_model(each, path, "python")
        torch.save(torch.rand((3, *each.image_shape), generator=torch_generator(0, "images")), f"{path}.images")
    result = run("python", "-I", "-c", SCRIPT, *paths, folder=tmp_path)
    assert (result.stdout, result.stderr) == ("", "")
    for path, each in zip(paths, models.values(), strict=True):
        with torch.inference_mode():
            expected = each(torch.load(f"{path}.images"))
        torch.testing.assert_close(torch.load(f"{path}.logits"), expected, rtol=1e-5, atol=1e-5)
        assert expected.std(dim=0).min() > 0 or "no_edges" in path


def test_file_shows_the_layers_and_imports_only_torch(tmp_path: Path) -> None:
    model = tiny_model()
    model.class_names = ('"""\\', "it's", "\u00e9\udc80")
    export_model(model, tmp_path / "model.py", "python")
    source = (tmp_path / "model.py").read_text(encoding="ascii")
    tree = ast.parse(source)
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"base64", "torch", "torch.nn.functional"}
    assert "self.cells_0_operations_1_1 = nn.Conv2d(2, 2, 3, padding=1, bias=False)" in source
    assert "self.stem_1 = nn.BatchNorm2d(2, " in source
    assert "        # cells.1\n" in source
    assert "torch.ops" not in source
    assert max(map(len, source.split("METADATA")[0].splitlines())) <= 140
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    assert namespace["CLASS_NAMES"] == model.class_names
    assert namespace["IMAGE_SHAPE"] == (1, 7, 9)
    metadata = namespace["METADATA"]
    assert json.loads(metadata["class_names"]) == list(model.class_names)
    assert json.loads(metadata["search_space"]) == "nasbench201"


def test_loaded_network_can_be_trained_and_has_no_other_tensors(tmp_path: Path) -> None:
    model = tiny_model()
    export_model(model, tmp_path / "model.py", "python")
    namespace: dict[str, Any] = {}
    exec((tmp_path / "model.py").read_text(), namespace)
    network = namespace["load"]()
    network.train()(torch.rand(4, 1, 7, 9)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    expected = sorted(tuple(parameter.shape) for parameter in model.parameters())
    assert sorted(tuple(parameter.shape) for parameter in network.parameters()) == expected


def test_buffers_that_the_network_changes_are_changed_by_the_file(tmp_path: Path) -> None:
    model = tiny_model("tests.model_io.spaces:Counting", genotype=CUSTOM)
    export_model(model, tmp_path / "model.py", "python")
    namespace: dict[str, Any] = {}
    exec((tmp_path / "model.py").read_text(), namespace)
    network = namespace["load"]()
    for _ in range(3):
        network(torch.rand(2, 1, 7, 9))
    assert [buffer.item() for buffer in network.buffers() if buffer.dim() == 0] == [3]


def test_graph_with_other_outputs_than_logits_is_an_input_error() -> None:
    model = tiny_model("tests.model_io.spaces:Counting", genotype=CUSTOM)
    program = torch.export.export(model, (torch.rand(2, 1, 7, 9),)).run_decompositions()
    with pytest.raises(InputError, match=r"changes its buffers .* --format") as caught:
        python_source(model, program, {})
    assert "\n" not in str(caught.value)


def test_network_that_is_not_a_list_of_operators_is_an_input_error(tmp_path: Path) -> None:
    model = tiny_model("tests.model_io.spaces:Conditional", genotype=CUSTOM)
    with pytest.raises(InputError, match=r"does not support; choose onnx or torch-export with --format") as caught:
        export_model(model, tmp_path / "model.py", "python")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_code_that_fails_is_an_input_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FUNCTIONS, torch.ops.aten.flatten.using_ints, FUNCTIONS[torch.ops.aten.cat.default])
    with pytest.raises(InputError, match=r"cannot be run as Python code \(.*\); choose onnx or torch-export"):
        export_model(tiny_model(), tmp_path / "model.py", "python")
    assert list(tmp_path.iterdir()) == []


def test_network_that_draws_random_numbers_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the logits of the export differ"):
        export_model(tiny_model("tests.model_io.spaces:Noisy", genotype=CUSTOM), tmp_path / "model.py", "python")
    assert list(tmp_path.iterdir()) == []
