"""Imports point one way, and importing the package stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nases_env

ROOT = Path(nases_env.__file__).parent
LEAVES = {"errors", "seeding", "files", "interrupts", "modules", "threads"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "seeding": set(),
    "files": {"errors"},
    "interrupts": set(),
    "modules": set(),
    "threads": {"errors"},
    "commands": {"errors"},
    "networks": LEAVES,
    "search_spaces": LEAVES | {"networks"},
    "training": LEAVES,
    "embedding": LEAVES | {"search_spaces"},
    "evaluation": LEAVES | {"search_spaces", "training", "networks"},
    "models": LEAVES | {"search_spaces", "training", "networks", "evaluation"},
    "drawing": LEAVES | {"search_spaces"},
    "execution": LEAVES | {"search_spaces", "training", "evaluation"},
    "env": LEAVES | {"search_spaces", "training", "networks", "embedding", "evaluation", "drawing", "execution"},
    "vector_env": {"errors", "search_spaces", "evaluation", "env"},
    "sb3": {"errors"},
    "registration": set(),
    "agent": {"search_spaces", "evaluation", "env"},
    "search": LEAVES | {"search_spaces", "evaluation", "execution", "drawing", "env", "agent", "commands"},
    "final": LEAVES | {"search_spaces", "training", "networks", "evaluation", "models", "search"},
    "reproduction": LEAVES
    | {"search_spaces", "training", "embedding", "evaluation", "execution", "final", "search", "commands"},
    "store_commands": LEAVES | {"search_spaces", "evaluation", "execution", "commands"},
    "cli": LEAVES
    | {
        "networks",
        "search_spaces",
        "embedding",
        "models",
        "drawing",
        "commands",
        "search",
        "final",
        "reproduction",
        "store_commands",
    },
    "__init__": {"registration", "models"},
}


def rooms_imported_by(path: Path) -> set[str]:
    """The rooms of the package that a module imports: "nases_env.networks.operations" is in "networks"."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("nases_env.")}
    return rooms


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    imported = {name for name in rooms_imported_by(path) if (ROOT / name).exists() or (ROOT / f"{name}.py").exists()}
    assert imported <= MAY_IMPORT[room] | {room}


def test_import_registers_without_loading_torch() -> None:
    code = "import nases_env, sys; assert 'torch' not in sys.modules; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
