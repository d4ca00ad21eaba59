"""Imports between the parts of the package form no cycle, and importing the package is fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nases_env

ROOT = Path(nases_env.__file__).parent

# A room is a module or subpackage of nases_env. Leaves may be imported by all other rooms.
LEAVES: dict[str, set[str]] = {
    "atomic_io": {"errors"},
    "cpu": {"errors"},
    "devices": {"errors"},
    "errors": set(),
    "hashing": set(),
    "safetensors_file": {"atomic_io", "errors", "hashing"},
    "seeding": {"hashing"},
    "signals": set(),
    "tables": set(),
    "user_modules": set(),
    "version": set(),
}
# The imports of each other room, except for leaves.
ROOMS: dict[str, set[str]] = {
    "command_line": set(),
    "networks": set(),
    "search_spaces": {"networks"},
    "training": set(),
    "embedding": {"search_spaces"},
    "evaluation": {"networks", "search_spaces", "training"},
    "model_io": {"networks", "search_spaces", "training"},
    "visualization": {"search_spaces"},
    "execution": {"evaluation", "search_spaces"},
    "envs": {"embedding", "evaluation", "execution", "networks", "search_spaces", "visualization"},
    "sb3_vec_env": set(),
    "registration": set(),
    "search": {"command_line", "envs", "evaluation", "execution", "registration", "search_spaces", "visualization"},
    "retraining": {"embedding", "evaluation", "execution", "model_io", "networks", "search", "search_spaces", "training"},
    "cli": {
        "command_line",
        "embedding",
        "envs",
        "evaluation",
        "execution",
        "model_io",
        "retraining",
        "search",
        "search_spaces",
        "training",
        "visualization",
    },
    "__init__": {"model_io", "registration"},
}
DYNAMIC_IMPORTS = {"import_module", "__import__", "run_module"}


def imported_names(source: str) -> Iterator[str]:
    """Yield the full names of all imports, including those with ``importlib`` and a constant name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if function in DYNAMIC_IMPORTS:
                yield str(node.args[0].value)


def imported_rooms(source: str) -> set[str]:
    """Return the rooms that a module imports; names that are not a module, such as ``__version__``, are of ``__init__``."""
    rooms = set()
    for name in imported_names(source):
        package, *rest = name.split(".")
        if package == "nases_env":
            is_module = rest and ((ROOT / rest[0]).is_dir() or (ROOT / f"{rest[0]}.py").is_file())
            rooms.add(rest[0] if is_module else "__init__")
        elif package == "nases_agents":
            rooms.add(package)
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


PATHS = sorted(ROOT.rglob("*.py"))


def test_imports_are_found() -> None:
    assert imported_rooms("import nases_env.cpu, torch\nfrom nases_env.envs.base import X") == {"cpu", "envs"}
    assert imported_rooms("from nases_env import __version__, visualization") == {"__init__", "visualization"}
    assert imported_rooms("import nases_env") == {"__init__"}
    assert imported_rooms("import nases_agents.sb3") == {"nases_agents"}
    assert imported_rooms("importlib.import_module('nases_agents')") == {"nases_agents"}


@pytest.mark.parametrize("room", sorted({room_of(path) for path in PATHS}))
def test_rooms_import_exactly_what_is_listed(room: str) -> None:
    imported = set().union(*(imported_rooms(path.read_text()) for path in PATHS if room_of(path) == room)) - {room}
    if room in LEAVES:
        assert imported == LEAVES[room]
    else:
        assert imported - LEAVES.keys() == ROOMS[room]


def test_rooms_form_no_cycle() -> None:
    """``static_order`` raises an error if there is a cycle; no room imports the package itself."""
    order = list(
        TopologicalSorter({**LEAVES, **{room: {*LEAVES, *imports} for room, imports in ROOMS.items()}}).static_order()
    )
    assert set(order) == {room_of(path) for path in PATHS}
    assert not any("__init__" in imports for imports in ROOMS.values())


def test_import_does_not_load_torch_or_matplotlib() -> None:
    code = "import nases_env, sys; assert not {'torch', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
