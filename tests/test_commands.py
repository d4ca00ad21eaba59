"""The commands of the README, the examples and the Makefile, as a person types them."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nases_env import ENV_IDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REAL_DATA_DIR = os.environ.get("NASES_DATA_DIR")


def run(*command: str, folder: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable if word == "python" else word for word in command],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        check=check,
        timeout=300,
    )


def fails(*command: str, folder: Path, **environment: str) -> str:
    """The one line on standard error with which a command ends that was given wrong input."""
    result = run(*command, folder=folder, check=False, **environment)
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


AGENT = str(ROOT / "agents" / "reinforce.py")
SMOKE = ("--preset", "smoke", "--budget", "2")


AGENTS = sorted(path.stem for path in (ROOT / "agents").glob("*.py") if path.stem not in ("__init__", "gaussian_process"))


@pytest.mark.parametrize("agent", AGENTS)
def test_agent_runs_from_the_checkout_and_from_the_package(agent: str, tmp_path: Path) -> None:
    for number, command in enumerate(
        (("python", str(ROOT / "agents" / f"{agent}.py")), ("python", "-m", f"nases_agents.{agent}"))
    ):
        result = run(*command, *SMOKE, "--run-dir", f"run{number}", folder=tmp_path)
        assert "the best of 2 architectures" in result.stdout
    evaluations = [
        [
            {**json.loads(line), "seconds": None}
            for line in (tmp_path / run_dir / "evaluations.jsonl").read_text().splitlines()
        ]
        for run_dir in ("run0", "run1")
    ]
    assert evaluations[0] == evaluations[1]


def test_help_names_every_option_of_the_readme(tmp_path: Path) -> None:
    shown = run("python", AGENT, "--help", folder=tmp_path).stdout
    for option in set(re.findall(r"(?<![\w-])--(?:child\.)?[a-z][a-z-]+", README)) - {
        "--output",
        "--logdir",
        "--help",
        "--sample",
    }:
        assert option in shown, option


def test_wrong_input_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    cases: dict[tuple[str, ...], str] = {
        ("--preset", "cpuu"): "unknown preset 'cpuu' (did you mean 'cpu'?)",
        ("--env-id", "NASES-CIFAR"): "no environment 'NASES-CIFAR'",
        ("--embedding", "absent.safetensors"): "absent.safetensors",
        ("--child.num-epochs", "0"): "num_epochs is 0; it must be at least 1",
        ("--env-id", "NASES-ImageFolder-v0"): "image_folder needs a folder of images",
        ("--run-dir", "/dev/null/run"): "/dev/null/run",
        ("--num-threads", "0"): "num_threads must be at least 1, not 0",
        ("--sigma", "-1"): "--sigma must be a positive number",
        ("--budgt", "3"): "unknown option '--budgt' (did you mean '--budget'?)",
        ("--child.num-epoch", "3"): "unknown option '--child.num-epoch' (did you mean '--child.num-epochs'?)",
    }
    for options, message in cases.items():
        assert message in fails("python", AGENT, "--budget", "2", *options, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cifar_without_data_or_network_is_one_line(tmp_path: Path) -> None:
    unreachable = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    message = fails(
        "python", AGENT, "--env-id", "NASES-CIFAR10-v0", folder=tmp_path, HOME=str(tmp_path / "home"), **unreachable
    )
    assert "CIFAR-10 is not in" in message
    assert "NASES_DATA_DIR" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(
    REAL_DATA_DIR is None or not Path(REAL_DATA_DIR, "cifar10").is_dir(), reason="NASES_DATA_DIR holds no cifar10 folder"
)
def test_real_cifar10_is_searched(tmp_path: Path) -> None:
    options = ("--env-id", "NASES-CIFAR10-v0", *SMOKE, "--data-dir", str(REAL_DATA_DIR), "--run-dir", "run")
    assert "the best of 2 architectures" in run("python", AGENT, *options, folder=tmp_path).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_keeps_what_it_has(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, AGENT, "--preset", "smoke", "--budget", "1000", "--run-dir", "run"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with SIGINT ignored; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    evaluations = tmp_path / "run" / "evaluations.jsonl"
    while not (evaluations.exists() and evaluations.read_text()) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "of 1000 children" in out
    assert all(json.loads(line)["status"] == "ok" for line in evaluations.read_text().splitlines())
    assert (tmp_path / "run" / "best.png").exists()


def test_a_full_disk_ends_a_search_in_one_line_with_whole_records(tmp_path: Path) -> None:
    """Beyond 60,000 bytes a file the kernel refuses to write, as a full disk does: here TensorBoard's file comes first."""
    result = subprocess.run(
        [sys.executable, AGENT, "--env-id", "NASES-Analytic-v0", "--budget", "200", "--run-dir", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert re.search(r"^error: cannot write .*run.*; free some space", result.stderr, flags=re.MULTILINE)
    records = (tmp_path / "run" / "evaluations.jsonl").read_text()
    assert records.endswith("\n")
    assert all(json.loads(line)["reward"] >= 0 for line in records.splitlines())


def test_nases_draws_and_pretrains(tmp_path: Path) -> None:
    nases = str(Path(sys.executable).parent / "nases")
    run("python", AGENT, *SMOKE, "--run-dir", "run", folder=tmp_path)
    assert run(nases, "draw", "run/best.json", folder=tmp_path).stdout.startswith("normal cell\n")
    run(nases, "draw", "run/best.json", "--output", "cell.svg", folder=tmp_path)
    assert (tmp_path / "cell.svg").stat().st_size > 1000
    assert "unknown option '--outpt' (did you mean '--output'?)" in fails(
        nases, "draw", "run/best.json", "--outpt", "cell.png", folder=tmp_path
    )
    assert "cannot read absent.json" in fails(nases, "draw", "absent.json", folder=tmp_path)

    result = run(nases, "pretrain", "--output", "embedding", "--num-steps", "2", folder=tmp_path)
    assert "decisions kept" in result.stdout
    run("python", AGENT, *SMOKE, "--embedding", "embedding/enas_micro.safetensors", "--run-dir", "own", folder=tmp_path)
    assert "unknown search space" in fails(nases, "pretrain", "--output", "x", "--search-space", "darts", folder=tmp_path)


def test_examples_run(tmp_path: Path) -> None:
    assert run("python", str(ROOT / "examples" / "step_by_step.py"), folder=tmp_path).stdout.count("reward") == 3
    assert "the best of 10" in run("python", str(ROOT / "examples" / "own_search_space.py"), folder=tmp_path).stdout


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        code = block.replace("NASES-CIFAR10-v0", "NASES-Digits-v0").replace('preset="cpu"', 'preset="smoke"')
        run("python", "-c", code, folder=tmp_path)


def test_the_readme_names_what_is_there() -> None:
    for env_id in ENV_IDS:
        assert f"`{env_id}`" in README
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_run(script: Path, tmp_path: Path) -> None:
    few = {
        "child_throughput": ("--num-architectures", "1", "--num-steps", "1", "--batch-size", "16", "--image-size", "8"),
        "reward_signal": (
            "--env-ids",
            "NASES-Digits-v0",
            "--preset",
            "smoke",
            "--num-architectures",
            "2",
            "--num-processes",
            "1",
        ),
        "embedding_quality": (
            *("--settings", "paper", "calibrated_n12", "--num-steps", "2", "--num-seeds", "2", "--budgets", "3", "6"),
            *("--num-processes", "1"),
        ),
        "execution": (
            *("--num-repeats", "1", "--num-workers", "1", "--preset", "smoke", "--num-children", "2", "--num-waiting", "3"),
            *("--num-commits", "3", "--num-rows", "3", "5", "--num-searched", "3", "--parts", "scaling", "store", "resume"),
        ),
        "fault_campaign": (
            *("--campaigns", "two_searches", "--toy-children", "4", "--digits-children", "2", "--num-envs", "2"),
            *("--num-workers", "1"),
        ),
        "env_overhead": ("--num-envs", "1", "3", "--num-children", "6", "--num-repeats", "1"),
        "search_quality": (
            *("--env-id", "NASES-Analytic-v0", "--agents", "random_search", "reinforce", "model_assisted"),
            *("--num-seeds", "2", "--budgets", "3", "6", "--num-processes", "1"),
        ),
    }
    run("python", str(script), *few[script.stem], "--output", "results/figures.json", folder=tmp_path)
    assert json.loads((tmp_path / "results" / "figures.json").read_text())
