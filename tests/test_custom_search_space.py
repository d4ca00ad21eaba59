"""The tutorial on custom search spaces, run as documented."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nases_env.cli.main import main as cli
from nases_env.evaluation import PRESETS
from nases_env.networks import NetworkSettings, count_parameters
from tests.commands import ROOT, error_of, run_here, script

EXAMPLES = ROOT / "examples"
SPACE = "custom_search_space:WidthsAndKernels"


@pytest.fixture
def tutorial(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("custom_search_space")


@pytest.mark.usefixtures("few_samples")
def test_pretrains_searches_and_prints_the_best(
    tutorial: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "cpu", PRESETS["smoke"])
    tutorial.main(num_children=4, num_pretraining_steps=300)
    output = capsys.readouterr().out
    reconstruction, chance = map(int, re.findall(r"(\d+)%", output.splitlines()[0]))
    assert reconstruction > chance + 20
    children = re.findall(r"^reward (0\.\d+), validation accuracy ([0-9.]+)%, ", output, flags=re.MULTILINE)
    assert len(children) == 4
    assert f"best of 4: validation accuracy {max(children)[1]}%, " in output
    assert "activation 3: " in output


def test_every_decision_changes_the_network(tutorial: ModuleType) -> None:
    space = tutorial.WidthsAndKernels()
    settings = NetworkSettings()
    smallest = space.build(space.architecture([0] * 9), settings, num_classes=10, image_shape=(1, 8, 8))
    assert smallest(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    for index in range(9):
        decisions = [0] * 9
        decisions[index] = 1
        changed = space.build(space.architecture(decisions), settings, num_classes=10, image_shape=(1, 8, 8))
        if index % 3 == 2:
            assert [str(layer) for layer in changed.modules()] != [str(layer) for layer in smallest.modules()]
        else:
            assert count_parameters(changed) > count_parameters(smallest)


@pytest.fixture
def in_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands in the folder of the example, whose module is neither imported nor on the path, as in a new process."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(EXAMPLES))])
    monkeypatch.delitem(sys.modules, "custom_search_space", raising=False)


@pytest.mark.parametrize(
    "agent",
    [
        "random_search",
        "local_search",
        "regularized_evolution",
        "discrete_reinforce",
        "bayesian_optimization",
        "tpe",
    ],
)
@pytest.mark.usefixtures("in_examples")
def test_agents_without_embedding_search_without_one(agent: str, tmp_path: Path) -> None:
    main = script(Path(f"../agents/{agent}.py"))
    options = ("--search-space", SPACE, "--preset", "smoke", "--budget", "1", "--run-dir", str(tmp_path / "run"))
    assert f"--embedding has no effect, because {agent} uses no embedding; omit it" in error_of(
        run_here(main, *options, "--embedding", "widths.safetensors")
    )
    searched = run_here(main, *options)
    assert searched.returncode == 0, searched.stderr
    resumed = run_here(main, "--resume", str(tmp_path / "run"), "--budget", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert run_here(cli, "validate", str(tmp_path / "run")).stdout.endswith("children were reproduced\n")


@pytest.mark.usefixtures("in_examples")
def test_agent_with_embedding_needs_one_before_anything_is_written(tmp_path: Path) -> None:
    options = ("--search-space", SPACE, "--preset", "smoke", "--run-dir", str(tmp_path / "run"))
    message = error_of(run_here(script(Path("../agents/reinforce.py")), *options))
    assert "no built-in embedding for the search space widths_and_kernels; train one with `nases pretrain" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_examples")
def test_documented_command_lines_work_in_the_folder_of_the_example(tmp_path: Path) -> None:
    weights, run_dir = str(tmp_path / "widths.safetensors"), tmp_path / "run"
    few = ("--num-steps", "2", "--num-calibration-rounds", "1", "--hidden-size", "8")
    # test_registry.py runs this command in a new process.
    pretrained = run_here(cli, "pretrain", "--search-space", SPACE, "--output", weights, *few)
    assert pretrained.returncode == 0, pretrained.stderr
    quick = ("--preset", "smoke", "--budget", "2", "--run-dir", str(run_dir))
    searched = run_here(script(Path("../agents/reinforce.py")), "--search-space", SPACE, "--embedding", weights, *quick)
    assert searched.returncode == 0, searched.stderr
    result = run_here(cli, "draw", "--search-space", SPACE, str(run_dir / "best.json"))
    assert result.stdout.startswith("width 1: ")
