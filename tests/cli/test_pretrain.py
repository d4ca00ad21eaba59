"""``nases pretrain``: output files, presets, and errors."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from nases_env.cli.main import main
from nases_env.cli.pretrain import PretrainArgs, parse_pretrain, pretrain_command
from nases_env.embedding import load_embedding
from nases_env.embedding.pretraining import PRESETS
from nases_env.errors import InputError
from nases_env.search_spaces import get_search_space
from tests.commands import run_here


def quick(output: Path, **changes: Any) -> PretrainArgs:
    options = {field.name: changes.pop(field.name) for field in dataclasses.fields(PretrainArgs) if field.name in changes}
    few = {"embedding_size": 4, "hidden_size": 8, "num_steps": 3, "batch_size": 8, "num_calibration_rounds": 1}
    return PretrainArgs(output, settings=dataclasses.replace(PRESETS["default"], **{**few, **changes}), **options)


def test_writes_weights_and_metrics_and_restores_the_number_of_threads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)
    pretrain_command(quick(tmp_path / "new" / "folder", seed=5))
    assert torch.get_num_threads() == 2
    embedding = load_embedding(get_search_space("enas_micro"), tmp_path / "new" / "folder" / "enas_micro.safetensors")
    assert embedding.embedding_size == 4
    record = json.loads((tmp_path / "new" / "folder" / "enas_micro.json").read_text())
    assert record["settings"]["num_steps"] == 3
    assert record["seed"] == 5
    assert f"{record['reconstruction_accuracy']:.1%}" in capsys.readouterr().out


def test_recorded_command_reproduces_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain_command(quick(tmp_path / "first" / "x.safetensors", noise_std=0.25, standardize=False))
    record = json.loads((tmp_path / "first" / "x.json").read_text())
    words = shlex.split(record["command"])
    assert words[:2] == ["nases", "pretrain"]
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "second")
    pretrain_command(parse_pretrain(words[2:]))
    for name in ("x.safetensors", "x.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("name", PRESETS)
def test_settings_default_to_the_preset(name: str) -> None:
    options = ["--output", "x", "--preset", name]
    assert parse_pretrain(options).settings == PRESETS[name]
    changed = parse_pretrain([*options, "--num-steps", "5", "--standardize", "True", "--embedding-size", "4"]).settings
    assert changed == dataclasses.replace(PRESETS[name], num_steps=5, standardize=True, embedding_size=4)


def test_custom_search_space_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "custom.py").write_text(
        "from nases_env.search_spaces import SearchSpace\n"
        "class Custom(SearchSpace):\n    name = 'custom'\n    decision_sizes = (2, 50, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pretrain_command(quick(tmp_path / "output", search_space="custom:Custom", embedding_size=None))
    assert load_embedding(get_search_space("custom:Custom"), tmp_path / "output" / "custom.safetensors").embedding_size == 3
    record = json.loads((tmp_path / "output" / "custom.json").read_text())
    assert record["settings"]["embedding_size"] == record["embedding_size"] == 3
    assert "--search-space custom:Custom" in record["command"]
    assert "--embedding-size" not in record["command"]


@pytest.mark.parametrize(
    "option",
    [
        *("--search-space=nothing", "--num-steps=0", "--num-threads=0", "--num-threads=100000", "--learning-rate=1e38"),
        *("--loss=least_squares", "--preset=papr"),
    ],
)
def test_invalid_options_are_errors_and_write_nothing(tmp_path: Path, option: str) -> None:
    result = run_here(main, "pretrain", "--output", str(tmp_path / "new"), option)
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot create the directory"):
        pretrain_command(quick(tmp_path / "file" / "x.safetensors", num_steps=10**9))
    (tmp_path / "y.safetensors").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        pretrain_command(quick(tmp_path / "y.safetensors", num_steps=10**9))
    with pytest.raises(InputError, match=r"neither a \.safetensors file nor an existing directory"):
        pretrain_command(quick(tmp_path / "z.bin", num_steps=10**9))
    assert not (tmp_path / "z.bin").exists()
