"""The agents, the ``nases`` command and the benchmarks run. ``test_documentation.py`` runs the commands of the pages."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from nases_env.cli import main as cli
from tests.commands import ROOT, error_of, module, run, run_benchmark, run_here, script
from tests.processes import ForkedCommand, run_forked

pytestmark = pytest.mark.usefixtures("few_samples", "tiny_children")

REAL_DATA_DIR = os.environ.get("NASES_DATA_DIR")

AGENT = ROOT / "agents" / "reinforce.py"
SMOKE = ("--preset", "smoke", "--budget", "2")


SHARED = ("__init__", "gaussian_process", "optuna_study", "policy", "reward_model", "transfer")
"""Modules that are not agents."""
SEVERAL_OBJECTIVES = ("mo_model_assisted", "mo_reinforce", "nsga2")  # agents that need several objectives
AGENTS = sorted(path.stem for path in (ROOT / "agents").glob("*.py") if path.stem not in SHARED)


@pytest.mark.parametrize("agent", AGENTS)
def test_agent_runs_from_the_checkout_and_from_the_package(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkout = ROOT / "agents" / f"{agent}.py"
    # The children of this search space are small; the choice of the best does not depend on the agent.
    options: tuple[str, ...] = (*SMOKE, "--search-space", "nasbench201", "--num-finalists", "0")
    if agent in SEVERAL_OBJECTIVES:
        options = ("--env-id", "NASES-MO-Digits-v0", *options)
    if agent == "reinforce":  # in another process, where the children of the preset smoke are not smaller
        options = ("--env-id", "NASES-Synthetic-v0", "--budget", "2")
    ran = [
        run("python", str(checkout), *options, "--run-dir", "checkout", folder=tmp_path)
        if agent == "reinforce"
        else run_here(script(checkout), *options, "--run-dir", "checkout"),
        run_here(module(f"nases_agents.{agent}"), *options, "--run-dir", "package"),
    ]
    for result in ran:
        assert "the best of 2 architectures" in result.stdout, result.stderr
    evaluations = [
        [
            {**json.loads(line), "seconds": None}
            for line in (tmp_path / run_dir / "evaluations.jsonl").read_text().splitlines()
        ]
        for run_dir in ("checkout", "package")
    ]
    assert evaluations[0] == evaluations[1]


def test_invalid_input_is_a_one_line_error_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: dict[tuple[str, ...], str] = {
        ("--preset", "cpuu"): "unknown preset 'cpuu' (did you mean 'cpu'?)",
        ("--env-id", "NASES-CIFAR"): "unknown environment 'NASES-CIFAR'",
        ("--embedding", "absent.safetensors"): "absent.safetensors",
        ("--child.num-epochs", "0"): "num_epochs must be at least 1, not 0",
        ("--env-id", "NASES-ImageFolder-v0"): "image_folder requires a directory of images",
        ("--run-dir", "/dev/null/run"): "/dev/null/run",
        ("--num-threads", "0"): "--num-threads must be at least 1, not 0",
        ("--std", "-1"): "--std must be a positive number",
        ("--budgt", "3"): "unknown option '--budgt' (did you mean '--budget'?)",
        ("--child.num-epoch", "3"): "unknown option '--child.num-epoch' (did you mean '--child.num-epochs'?)",
    }
    monkeypatch.chdir(tmp_path)
    for options, message in cases.items():
        assert message in error_of(run_here(script(AGENT), "--budget", "2", *options))
    (first, *_), (message, *_) = cases, cases.values()
    assert message in error_of(run_forked(script(AGENT), *first, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_cifar_without_data_or_network_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("http_proxy", "http://127.0.0.1:9"), ("https_proxy", "http://127.0.0.1:9"), ("no_proxy", "")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(urllib.request, "_opener", None)  # the opener keeps the proxies for the next tests in this process
    message = error_of(run_here(script(AGENT), "--env-id", "NASES-CIFAR10-v0"))
    assert "CIFAR-10 is not in" in message
    assert "NASES_DATA_DIR" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(
    REAL_DATA_DIR is None or not Path(REAL_DATA_DIR, "cifar10").is_dir(), reason="NASES_DATA_DIR contains no cifar10 folder"
)
def test_real_cifar10_is_searched(tmp_path: Path) -> None:
    """Only 1% of the images are used, because decoding is slow; test_datasets.py decodes the complete test split."""
    for image in Path(str(REAL_DATA_DIR), "cifar10", "train").glob("*/*00.*"):
        link = tmp_path / "cifar10" / "train" / image.parent.name / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.absolute())
    options = ("--env-id", "NASES-CIFAR10-v0", *SMOKE, "--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run"))
    assert "the best of 2 architectures" in run_here(script(AGENT), *options).stdout


@pytest.mark.parametrize(
    ("number", "options"), [(signal.SIGINT, ("--preset", "smoke")), (signal.SIGTERM, ("--env-id", "NASES-Synthetic-v0"))]
)
def test_interrupted_search_keeps_its_results(number: signal.Signals, options: tuple[str, ...], tmp_path: Path) -> None:
    process = ForkedCommand(script(AGENT), *options, "--budget", "1000", "--run-dir", "run", folder=tmp_path)
    evaluations = tmp_path / "run" / "evaluations.jsonl"
    while not (evaluations.exists() and evaluations.read_text()) and process.is_running():
        time.sleep(0.02)
    process.send_signal(number)
    ended = process.wait()
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "of 1000 children" in ended.stdout
    assert all(json.loads(line)["status"] == "ok" for line in evaluations.read_text().splitlines())
    assert (tmp_path / "run" / "best.png").exists()


def test_full_disk_is_a_one_line_error_and_keeps_complete_records(tmp_path: Path) -> None:
    """Files are limited to 60,000 bytes; writing more fails, as on a full disk. The event file reaches the limit first."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (60_000, 60_000))
    options = ("--env-id", "NASES-Synthetic-v0", "--budget", "200", "--run-dir", "run")
    result = run_forked(script(AGENT), *options, folder=tmp_path, prepare=limit)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert re.search(r"^error: cannot write .*run.*; choose a different directory", result.stderr, flags=re.MULTILINE)
    records = (tmp_path / "run" / "evaluations.jsonl").read_text()
    assert records.endswith("\n")
    assert all(json.loads(line)["reward"] >= 0 for line in records.splitlines())


def test_nases_draws_and_pretrains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(script(AGENT), *SMOKE, "--run-dir", "run").returncode == 0
    assert run_here(cli.main, "draw", "run/best.json").stdout.startswith("normal cell\n")
    assert run_here(cli.main, "draw", "run/best.json", "--output", "cell.svg").returncode == 0
    assert (tmp_path / "cell.svg").stat().st_size > 1000
    assert "unknown option '--outpt' (did you mean '--output'?)" in error_of(
        run_here(cli.main, "draw", "run/best.json", "--outpt", "cell.png")
    )
    assert "cannot read absent.json" in error_of(run_here(cli.main, "draw", "absent.json"))

    few = ("--num-steps", "2", "--num-calibration-rounds", "1", "--hidden-size", "8")
    result = run_here(cli.main, "pretrain", "--output", "embedding", *few)
    assert "reconstruction accuracy" in result.stdout, result.stdout
    custom = run_here(script(AGENT), *SMOKE, "--embedding", "embedding/enas_micro.safetensors", "--run-dir", "custom")
    assert "the best of " in custom.stdout, custom.stderr
    assert "unknown search space" in error_of(run_here(cli.main, "pretrain", "--output", "x", "--search-space", "darts"))


QUICK_OPTIONS = {
    "env_overhead": ("--num-envs", "1", "3", "--num-children", "6", "--num-repeats", "1"),
    "reward_signal": (
        *("--env-ids", "NASES-Digits-v0", "--preset", "smoke", "--num-architectures", "2", "--num-seeds", "2"),
        *("--num-processes", "1"),
    ),
    "search_then_train": (
        *("--env-id", "NASES-Digits-v0", "--preset", "smoke", "--search-minutes", "0.001", "--train-minutes", "0.001"),
        *("--device", "cpu"),
    ),
}
"""Options of the benchmarks that are run here; the others are run in ``tests/benchmarks``."""


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.parametrize("name", QUICK_OPTIONS)
def test_benchmarks_run(name: str, tmp_path: Path) -> None:
    run_benchmark(name, (*QUICK_OPTIONS[name], "--output", "results/figures.json"), tmp_path)
    assert json.loads((tmp_path / "results" / "figures.json").read_text())


def test_every_benchmark_is_tested() -> None:
    folder = ROOT / "benchmarks"
    names = {path.parent.name for path in folder.glob("*/__main__.py")} | {path.stem for path in folder.glob("*.py")}
    assert names > QUICK_OPTIONS.keys()
    overview = (folder / "README.md").read_text()
    for name in sorted(names - {"__init__"}):
        assert f"benchmarks.{name}`" in overview, name
        if name not in QUICK_OPTIONS:
            assert f'run_benchmark("{name}", ' in (ROOT / "tests" / "benchmarks" / f"test_{name}.py").read_text(), name
