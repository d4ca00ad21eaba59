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

# A part is a module or subpackage of nases_env. Leaves may be imported by all other parts.
LEAVES: dict[str, set[str]] = {
    "atomic_io": {"errors", "file_lock"},
    "console": {"escaping"},
    "cpu": {"errors"},
    "devices": {"errors"},
    "errors": set(),
    "escaping": set(),
    "extras": {"errors"},
    "file_lock": set(),
    "hashing": set(),
    "input_files": {"errors"},
    "json_io": {"input_files"},
    "optimizers": set(),
    "pareto": set(),
    "paths": {"errors"},
    "progress": set(),
    "quantity": set(),
    "safetensors_file": {"atomic_io", "errors", "hashing", "json_io"},
    "seeding": {"hashing"},
    "signals": set(),
    "streams": {"errors"},
    "tables": {"escaping"},
    "units": {"errors"},
    "user_modules": {"errors", "escaping"},
    "version": set(),
}
# The imports of each other part, except for leaves.
PARTS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "command_line": set(),
    "networks": set(),
    "search_spaces": {"networks"},
    "training": set(),
    "embedding": {"search_spaces"},
    "evaluation": {"networks", "search_spaces", "training"},
    "model_io": {"networks", "search_spaces", "training"},
    "cell_layout": {"search_spaces"},
    "visualization": {"cell_layout", "search_spaces"},
    "report": {"cell_layout", "search_spaces"},
    "execution": {"evaluation", "search_spaces"},
    "envs": {"embedding", "evaluation", "execution", "search_spaces", "visualization"},
    "sb3_vec_env": {"envs"},
    "registration": set(),
    "search": {
        "cell_layout",
        "command_line",
        "envs",
        "evaluation",
        "execution",
        "registration",
        "report",
        "search_spaces",
        "visualization",
    },
    "retraining": {
        "embedding",
        "evaluation",
        "execution",
        "model_io",
        "networks",
        "report",
        "search",
        "search_spaces",
        "training",
    },
    "cli": {
        "command_line",
        "embedding",
        "envs",
        "evaluation",
        "execution",
        "model_io",
        "registration",
        "report",
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


def imported_parts(source: str) -> set[str]:
    """Return the parts that a module imports; names that are not a module, such as ``__version__``, are of ``__init__``."""
    parts = set()
    for name in imported_names(source):
        package, *rest = name.split(".")
        if package == "nases_env":
            is_module = rest and ((ROOT / rest[0]).is_dir() or (ROOT / f"{rest[0]}.py").is_file())
            parts.add(rest[0] if is_module else "__init__")
        elif package == "nases_agents":
            parts.add(package)
    return parts


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


PATHS = sorted(ROOT.rglob("*.py"))


def test_imports_are_found() -> None:
    assert imported_parts("import nases_env.cpu, torch\nfrom nases_env.envs.base import X") == {"cpu", "envs"}
    assert imported_parts("from nases_env import __version__, visualization") == {"__init__", "visualization"}
    assert imported_parts("import nases_env") == {"__init__"}
    assert imported_parts("import nases_agents.sb3") == {"nases_agents"}
    assert imported_parts("importlib.import_module('nases_agents')") == {"nases_agents"}


@pytest.mark.parametrize("part", sorted({part_of(path) for path in PATHS}))
def test_parts_import_exactly_what_is_listed(part: str) -> None:
    imported = set().union(*(imported_parts(path.read_text()) for path in PATHS if part_of(path) == part)) - {part}
    if part in LEAVES:
        assert imported == LEAVES[part]
    else:
        assert imported - LEAVES.keys() == PARTS[part]


def test_parts_form_no_cycle() -> None:
    """``static_order`` raises an error if there is a cycle; no part imports the package itself."""
    order = list(
        TopologicalSorter({**LEAVES, **{part: {*LEAVES, *imports} for part, imports in PARTS.items()}}).static_order()
    )
    assert set(order) == {part_of(path) for path in PATHS}
    assert not any("__init__" in imports for imports in PARTS.values())


def test_import_does_not_load_torch_or_matplotlib() -> None:
    code = "import nases_env, sys; assert not {'torch', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_searches_do_not_import_the_compiler_of_torch() -> None:
    """The import takes about as long as that of torch, in each process that trains or searches."""
    code = """
import sys, gymnasium as gym, numpy as np, nases_env
from nases_agents.model_assisted import Args, ModelAssisted
from nases_env.networks import NetworkSettings, count_costs
from nases_env.search_spaces import get_search_space
env = gym.make("NASES-Synthetic-v0")
env.reset(seed=0)
agent = ModelAssisted(env, Args(budget=6))
metrics = {}
for _ in range(6):
    (proposal,) = agent.ask()
    metrics |= agent.tell(proposal, env.unwrapped.evaluator.evaluate(proposal.architecture, 0))
assert metrics["policy/gradient_norm"] > 0
env = gym.make("NASES-Digits-v0", preset="smoke")
env.reset(seed=0)
env.step(env.action_space.sample())
generator = np.random.default_rng(0)
for name in ("enas_micro", "enas_micro_sized", "nasbench201"):
    space = get_search_space(name)
    for _ in range(4):
        network = space.build(space.sample(generator), NetworkSettings(1, 4), num_classes=10, image_shape=(3, 16, 16))
        assert count_costs(network, (3, 16, 16)).num_flops > 0
assert not {"torch._dynamo", "sympy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
