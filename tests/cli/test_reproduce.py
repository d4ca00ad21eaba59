from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nases_env.cli.reproduce import reproduce_command
from nases_env.command_line import parse
from nases_env.errors import InputError
from nases_env.retraining.plan_args import ReproduceArgs

STAGES_OF_A_SEED = (
    "nases pretrain",
    "python -m nases_agents.reinforce",
    "nases train",
    "python -m nases_agents.random_search",
    "nases train",
)


def reproduce(*options: object) -> None:
    reproduce_command(parse(ReproduceArgs, args=[str(option) for option in options]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves, as a person types it."""
    path = tmp_path_factory.mktemp("reproduction") / "smoke"
    command = [str(Path(sys.executable).with_name("nases")), "reproduce", "--preset", "smoke", "--output", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    return path


def test_all_three_stages_are_done_for_every_seed(folder: Path) -> None:
    for seed in range(2):
        record = json.loads((folder / f"seed-{seed}" / "embedding.json").read_text())
        assert f"--seed {seed} --num-steps 30" in f"{record['command']} " or seed == 0
        for agent in ("reinforce", "random_search"):
            run = folder / f"seed-{seed}" / agent
            search = json.loads((run / "config.json").read_text())
            assert (search["agent"], search["arguments"]["budget"], search["arguments"]["seed"]) == (agent, 3, seed)
            assert search["arguments"]["embedding"] == str(folder / f"seed-{seed}" / "embedding.safetensors")
            assert len((run / "evaluations.jsonl").read_text().splitlines()) == 3
            assert (run / "final" / f"seed-{seed}" / "model.safetensors").exists()
            assert json.loads((run / "best.json").read_text())["normal"]


def test_the_report_is_of_what_was_measured(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    errors = {}
    for agent in ("reinforce", "random_search"):
        finals = [folder / f"seed-{seed}" / agent / "final" / f"seed-{seed}" / "result.json" for seed in range(2)]
        errors[agent] = [json.loads(path.read_text())["test_error"] for path in finals]
        assert report["agents"][agent]["test_errors"] == errors[agent]
        assert report["agents"][agent]["final"]["test_error_mean"] == pytest.approx(sum(errors[agent]) / 2)
    less = [random - ours for random, ours in zip(errors["random_search"], errors["reinforce"], strict=True)]
    assert report["agents"]["reinforce"]["less_error_than_random_search"]["mean"] == pytest.approx(sum(less) / 2)
    assert report["agents"]["random_search"]["less_error_than_random_search"] is None
    text = (folder / "report.md").read_text()
    for words in ("Stage 1", "Stage 2", "Final phase", "2 seeds in NASES-Digits-v0", "256 training images of digits"):
        assert words in text
    assert "Table 1" not in text  # which is of CIFAR-10


def test_it_goes_on_with_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = folder / "seed-1" / "random_search" / "final" / "seed-1" / "result.json"
    before = final.read_text()
    others = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "report" not in path.name}
    final.unlink()
    report = (folder / "report.json").read_text()
    reproduce("--preset", "smoke", "--output", folder)
    told = capsys.readouterr().err
    assert [line for line in told.splitlines() if line.startswith("[")] == [
        f"[10/10] nases train {folder}/seed-1/random_search --preset smoke --seed 1"
    ]
    changed = {path for path, time in others.items() if path.stat().st_mtime_ns != time}
    assert {path.parent for path in changed} == {final.parent}
    ours, theirs = json.loads(final.read_text()), json.loads(before)
    assert {**ours, "seconds": 0, "hours": 0} == {**theirs, "seconds": 0, "hours": 0}
    assert (
        json.loads((folder / "report.json").read_text())["agents"]["reinforce"] == json.loads(report)["agents"]["reinforce"]
    )


def test_a_dry_run_says_what_and_how_long_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new"
    options = ["--preset", "smoke", "--output", output, "--seeds", 1, "--num-threads", 1, "--final.cutout", 2]
    reproduce(*options, "--child.num-filters", 3, "--dry-run")
    *steps, total, _ = capsys.readouterr().out.splitlines()
    assert not output.exists()
    assert len(steps) == len(STAGES_OF_A_SEED)
    for line, stage in zip(steps, STAGES_OF_A_SEED, strict=True):
        assert line.strip().split("  ", 1)[1].startswith(stage)
        assert line.split()[0].count(":") == 2  # hours, minutes, seconds
    assert "--child.num-filters 3" in steps[1]
    assert "--child.cutout 2" in steps[2]
    assert "in all on" in total


def test_a_dry_run_of_what_is_done_has_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce("--preset", "smoke", "--output", folder, "--dry-run")
    *steps, total, _ = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in steps] == ["done"] * 10
    assert total.split()[0] == "0:00:00"


def test_the_commands_that_are_shown_are_commands(folder: Path) -> None:
    """The first one is given as it stands, and finds its work done by the search's own account."""
    from nases_env.retraining.plan import make_plan

    steps = list(make_plan(parse(ReproduceArgs, args=["--preset", "smoke", "--output", str(folder)])).steps())
    assert all(step.is_done for step in steps)
    search = shlex.split(steps[1].command)
    assert search[:3] == ["python", "-m", "nases_agents.reinforce"]
    ended = subprocess.run([sys.executable, *search[1:]], capture_output=True, text=True, timeout=120, check=True)
    assert "is finished" in ended.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agents", "reinforc"], "there is no agent 'reinforc' .did you mean 'reinforce'"),
        (["--agents", "reinforce", "reinforce"], "--agents names each agent once"),
        (["--budget", 0], "--budget must be at least 1, not 0"),
        (["--budget", 4], "was begun with other --budget; give them as before, or another --output"),
        (["--final.cutout", 2], "was begun with other --final; give them as before"),
        (["--env-id", "NASES-NASBench201-v0"], "does not take --"),
        (["--env-id", "NASES-Synthetic-v0"], "does not take --"),
    ],
)
def test_wrong_input_is_one_clear_line(folder: Path, options: list[object], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(InputError, match=message):
        reproduce("--preset", "smoke", "--output", folder, *options)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and holds no reproduction; give another --output"):
        reproduce("--preset", "smoke", "--output", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
