"""Search spaces by name, built-in and custom."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nases_env.errors import InputError
from nases_env.search_spaces import SEARCH_SPACES, EnasMicro, SearchSpace, get_search_space, importable_name
from tests.embedding.spaces import ListSpace

MODULE = """
from nases_env.search_spaces import EnasMicro, SearchSpace

class MySpace(SearchSpace):
    name = "my_space"
    decision_sizes = (2, 50, 1)

class Undecided(SearchSpace):
    name = "undecided"

class Sized(MySpace):
    def __init__(self, size):
        self.decision_sizes = (size,)

class Failing(MySpace):
    def __init__(self):
        raise ValueError("no table here")

class Named(MySpace):
    decision_names = None
    choice_names = None

class NamedByNumber(MySpace):
    decision_names = {"a": 1, "b": 2, "c": 3}

class NotASearchSpace:
    pass

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a module of search spaces in the working directory, which is not on ``sys.path``, as for a console script."""
    (tmp_path / "my_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    importlib.invalidate_caches()
    return tmp_path


def error_of(space: str | SearchSpace) -> str:
    with pytest.raises(InputError) as caught:
        get_search_space(space)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_built_in_search_spaces_by_name() -> None:
    for name, cls in SEARCH_SPACES.items():
        space = get_search_space(name)
        assert type(space) is cls
        assert importable_name(space) == space.name == name


@pytest.mark.usefixtures("folder")
def test_module_and_class_in_the_working_directory() -> None:
    space = get_search_space("my_module:MySpace")
    assert (space.name, space.decision_sizes) == ("my_space", (2, 50, 1))
    assert importable_name(space) == "my_module:MySpace"
    assert get_search_space("my_module:MySpace") is space
    assert get_search_space("my_module:Named").decision_sizes == space.decision_sizes  # None names nothing


def test_module_in_a_package(folder: Path) -> None:
    (folder / "my_package").mkdir()
    (folder / "my_package" / "spaces.py").write_text(MODULE)
    assert get_search_space("my_package.spaces:MySpace").name == "my_space"


def test_search_space_object_is_returned_unchanged() -> None:
    space = ListSpace((2, 3))
    assert get_search_space(space) is space


def test_module_is_imported_again_after_a_fix(folder: Path) -> None:
    (folder / "broken.py").write_text("1 / 0")
    assert "ZeroDivisionError: division by zero" in error_of("broken:MySpace")
    (folder / "broken.py").write_text(MODULE + "# fixed")
    assert get_search_space("broken:MySpace").name == "my_space"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "enas_mikro",
            r"unknown search space 'enas_mikro' \(did you mean 'enas_micro'\?\); known: enas_micro.*MODULE:CLASS",
        ),
        ("", r"unknown search space ''; known"),
        ("absent:MySpace", r"no module 'absent' \(No module named 'absent'\); run this in its directory"),
        ("my_module.deeper:MySpace", r"no module 'my_module.deeper'"),
        ("my_module:YourSpace", r"the module 'my_module' has no class 'YourSpace' \(did you mean 'MySpace'\?\)"),
        (
            "my_module:NotASearchSpace",
            r"NotASearchSpace is not a search space; derive it from nases_env.search_spaces.SearchSpace",
        ),
        ("my_module:number", r"my_module:number is not a search space"),
        ("my_module:Undecided", r"my_module:Undecided cannot be created without arguments \(.*decision_sizes"),
        ("my_module:Sized", r"my_module:Sized cannot be created without arguments \(.*'size'\)"),
        ("my_module:Failing", r"my_module:Failing cannot be created without arguments \(ValueError: no table here\)"),
        ("my_module:NamedByNumber", r"my_module:NamedByNumber has 3 decisions and the decision_names {'a': 1.*name each"),
        ("my_module:", r"is not MODULE:CLASS; write my_space:MySpace for the class MySpace"),
        (":MySpace", r"is not MODULE:CLASS"),
        ("./my_module.py:MySpace", r"is not MODULE:CLASS"),
        ("my_module:My:Space", r"is not MODULE:CLASS"),
    ],
)
def test_invalid_search_space_is_a_one_line_error(name: str, message: str) -> None:
    assert re.search(message, error_of(name))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import absent_library", "fails when it is imported (ModuleNotFoundError: No module named 'absent_library')"),
        ("raise RuntimeError('two\\nlines')", "fails when it is imported (RuntimeError: two lines)"),
        ("def f(:", "fails when it is imported (SyntaxError: "),
    ],
)
def test_import_error_names_the_cause(folder: Path, code: str, message: str) -> None:
    (folder / "failing.py").write_text(code)
    assert message in error_of("failing:MySpace")


def spaces(**attributes: object) -> SearchSpace:
    space: SearchSpace = type("Mine", (SearchSpace,), {"name": "mine", "decision_sizes": (2, 3), **attributes})()
    return space


@pytest.mark.parametrize("sizes", [(), (2, 0), (2, -1), (1, 1), [2, 3], (2.0, 3), (True, 3), None, 5])
def test_invalid_decision_sizes_are_rejected(sizes: object) -> None:
    assert "Mine has invalid decision sizes" in error_of(spaces(decision_sizes=sizes))


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "..", "a b", 3, None])
def test_names_that_are_not_file_names_are_rejected(name: object) -> None:
    assert "Mine has the name" in error_of(spaces(name=name))


def test_search_space_without_a_name_is_rejected() -> None:
    class Mine(SearchSpace):
        decision_sizes = (2, 3)

    assert "Mine has the name None" in error_of(Mine())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"decision_names": ("a",)}, "has 2 decisions and the decision_names ('a',); name each of them"),
        ({"decision_names": "ab"}, "has 2 decisions and the decision_names 'ab'; name each of them"),
        ({"choice_names": (("x", "y"),)}, "has choice_names of the sizes (2,), not (2, 3); name each choice of each"),
        ({"choice_names": (("x", "y"), ("x", "y"))}, "has choice_names of the sizes (2, 2), not (2, 3); name each choice"),
        ({"choice_names": 5}, "has the choice_names 5; name each choice of each decision, or none"),
        ({"choice_names": (1, 2)}, "has choice_names of the sizes (0, 0), not (2, 3); name each choice of each decision"),
    ],
)
def test_names_for_some_of_the_decisions_or_choices_are_rejected(names: dict[str, object], message: str) -> None:
    assert message in error_of(spaces(decision_sizes=(2, 3), **names))


@pytest.mark.parametrize("decisions_per_timestep", [0, -1, 1.5])
def test_invalid_decisions_per_timestep_are_rejected(decisions_per_timestep: object) -> None:
    assert "decisions per time step" in error_of(spaces(decisions_per_timestep=decisions_per_timestep))


def test_search_space_class_instead_of_an_object_is_rejected() -> None:
    assert error_of(EnasMicro) == "pass an instance of the search space, EnasMicro(), not the class"  # type: ignore[arg-type]


def test_console_script_finds_the_module_in_the_working_directory(folder: Path) -> None:
    nases = Path(sys.executable).parent / "nases"
    command = [
        str(nases),
        "pretrain",
        "--search-space",
        "my_module:MySpace",
        "--output",
        "my.safetensors",
        *("--num-steps", "2", "--num-calibration-rounds", "1", "--hidden-size", "8"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    assert (folder / "my.safetensors").is_file()
