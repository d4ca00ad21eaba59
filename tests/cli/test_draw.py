"""``nases draw`` reads the search space of an architecture file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nases_env.cli.draw import DrawArgs, draw_command
from nases_env.errors import InputError
from nases_env.search_spaces import SEARCH_SPACES, get_search_space
from tests.embedding.spaces import ListSpace


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_search_space_is_read_from_the_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = get_search_space(name)
    file = tmp_path / "best.json"
    file.write_text(space.to_json(space.sample(np.random.default_rng(0))))
    draw_command(DrawArgs(file))
    assert ("block 0 expansion: " if name == "accel" else "node 1 = ") in capsys.readouterr().out
    draw_command(DrawArgs(file, tmp_path / "cell.png"))
    assert (tmp_path / "cell.png").stat().st_size > 1000


def test_genotype_without_a_name_is_read_as_enas_micro(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = get_search_space("enas_micro")
    file = tmp_path / "best.json"
    file.write_text(json.dumps(space.genotype(space.sample(np.random.default_rng(0)))))
    draw_command(DrawArgs(file))
    assert "normal cell" in capsys.readouterr().out


def test_custom_search_space_requires_module_and_class(tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    space = ListSpace((2, 3))
    file.write_text(space.to_json(space.architecture([1, 2])))
    with pytest.raises(InputError, match="belongs to the search space 'list', not 'enas_micro'; pass that search space"):
        draw_command(DrawArgs(file))


def test_title_of_a_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--title is only for --output; add --output, or omit it"):
        draw_command(DrawArgs(tmp_path, title="x"))


@pytest.mark.parametrize("name", ["os:system", ["enas_micro"], {}, 3])
def test_file_cannot_trigger_an_import(name: object, tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"search_space": name}))
    with pytest.raises(InputError, match="not 'enas_micro'; pass that search space"):
        draw_command(DrawArgs(file))


def test_directory_of_a_search_stands_for_its_best_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"best\.json.*pass a JSON file with a genotype, or the directory of a search"):
        draw_command(DrawArgs(tmp_path))
    space = get_search_space("nasbench201")
    (tmp_path / "best.json").write_text(space.to_json(space.sample(np.random.default_rng(0))))
    draw_command(DrawArgs(tmp_path))
    drawn = capsys.readouterr().out
    draw_command(DrawArgs(tmp_path / "best.json"))
    assert drawn == capsys.readouterr().out
    assert "node 1 = " in drawn


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_file_without_an_architecture_is_an_input_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    file.write_text(text)
    with pytest.raises(InputError, match="not an architecture"):
        draw_command(DrawArgs(file))
