from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from nases_env.cli.pretrain import PretrainArgs, pretrain_command
from nases_env.embedding import load_embedding
from nases_env.errors import InputError
from nases_env.search_spaces import get_search_space
from tests.embedding.spaces import ListSpace


def quick(output: Path, **changes: Any) -> PretrainArgs:
    return PretrainArgs(
        output,
        **{"embedding_size": 4, "hidden_size": 8, "num_steps": 3, "batch_size": 8, "num_calibration_rounds": 1, **changes},
    )


def test_it_writes_weights_and_report_prints_the_report_and_restores_the_threads(
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
    assert f"{record['kept_decisions']:.1%}" in capsys.readouterr().out


def test_the_recorded_command_makes_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain_command(quick(tmp_path / "first" / "x.safetensors", noise=0.25, standardize=False))
    record = json.loads((tmp_path / "first" / "x.json").read_text())
    words = shlex.split(record["command"])
    assert words[:2] == ["nases", "pretrain"]
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "second")
    pretrain_command(tyro.cli(PretrainArgs, args=words[2:]))
    for name in ("x.safetensors", "x.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_every_setting_has_an_option_and_help() -> None:
    settings = quick(Path("x"), loss="least_squares", num_calibration_rounds=0).settings(ListSpace((2, 3)))
    options = {option.name: option for option in dataclasses.fields(PretrainArgs)}
    for setting in dataclasses.fields(settings):
        assert options[setting.name].metadata["help"].startswith(setting.metadata["help"])
    assert (settings.loss, settings.embedding_size) == ("least_squares", 4)


def test_a_space_of_ones_own_is_named_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "from nases_env.search_spaces import SearchSpace\n"
        "class Own(SearchSpace):\n    name = 'mine'\n    decision_sizes = (2, 50, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pretrain_command(quick(tmp_path / "made", search_space="own:Own", embedding_size=None))
    assert load_embedding(get_search_space("own:Own"), tmp_path / "made" / "mine.safetensors").embedding_size == 3
    record = json.loads((tmp_path / "made" / "mine.json").read_text())
    assert record["settings"]["embedding_size"] == record["embedding_size"] == 3
    assert "--search-space own:Own" in record["command"]
    assert "--embedding-size" not in record["command"]


@pytest.mark.parametrize(
    "changes", [{"search_space": "nothing"}, {"num_steps": 0}, {"num_threads": 0}, {"loss": "least_squares"}]
)
def test_bad_arguments_are_input_errors_and_write_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        pretrain_command(quick(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        pretrain_command(quick(tmp_path / "file" / "x.safetensors", num_steps=10**9))
    (tmp_path / "y.safetensors").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        pretrain_command(quick(tmp_path / "y.safetensors", num_steps=10**9))
