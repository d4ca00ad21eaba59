"""The command ``nases search``."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nases_agents
import numpy as np
import pytest
import torch
from nases_agents.random_search import Args as RandomSearchArgs

from nases_env.cli import search
from nases_env.cli.agents import AGENTS, require_agent
from nases_env.cli.main import main
from nases_env.cli.search import data_options
from nases_env.errors import InputError
from nases_env.evaluation import OperatorShareEvaluator, TrainingEvaluator
from nases_env.execution import process_worker
from nases_env.execution.factory import ExecutionSettings
from nases_env.retraining import timing
from nases_env.retraining.timing import TrainingTime
from nases_env.search.run_dir import read_config, read_trajectory
from tests.commands import error_of, module, run_here
from tests.training.images import write_image

SMOKE = ("--preset", "smoke", "--budget", "2", "--num-finalists", "0", "--num-envs", "1")


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_classes(folder: Path, side: int = 12, **num_images: int) -> None:
    for name, number in num_images.items():
        for index in range(number):
            write_image(folder / name / f"{index}.png", width=side, height=side, seed=index)


def nases() -> None:
    """Run the command ``nases`` as users start it."""
    sys.argv[0] = "/usr/bin/nases"
    main()


def the_run() -> Path:
    (run_dir,) = Path("runs").iterdir()
    return run_dir


def test_every_agent_is_known() -> None:
    modules = [module.name for module in pkgutil.iter_modules(nases_agents.__path__)]
    agents = [name for name in modules if hasattr(importlib.import_module(f"nases_agents.{name}"), "main")]
    assert sorted(AGENTS) == agents
    with pytest.raises(InputError, match=r"unknown agent 'reinforc' \(did you mean 'reinforce'\?\)"):
        require_agent("reinforc")


def test_directory_of_images_is_described_and_searched() -> None:
    write_classes(Path("images"), cat=40, dog=10)
    result = run_here(nases, "search", "images", *SMOKE)
    assert result.returncode == 0, result.stderr
    assert "data: " in result.stdout
    assert "2 classes, 40 RGB training images of 12x12 pixels" in result.stdout
    assert "classes: cat 32, dog 8" in result.stdout
    assert "note: cat has 4 times as many images as dog" in result.stdout
    assert "note: with 4 validation images, one image is 25.0 points of accuracy" in result.stdout
    assert "pixels and measured on 4 others" in result.stdout
    assert "photographs" not in result.stdout
    assert "plan: model_assisted evaluates 2 children, 1 at a time; each is trained for 1 epoch on 36" in result.stdout
    assert re.search(r"estimate: \d+\.\d s per child on .*, about \d+s in all", result.stdout)
    assert "the best of 2 architectures" in result.stdout
    config = read_config(the_run())
    assert config["command"] == shlex.join(["/usr/bin/nases", "search", "images", *SMOKE])
    assert config["arguments"]["data_dir"] == str(Path("images").absolute())
    assert "when not to use it" not in result.stdout.lower()


def test_dry_run_only_prints_the_plan() -> None:
    write_classes(Path("images"), side=100, cat=5, dog=5)
    result = run_here(main, "search", "images", "--dry-run", "--preset", "smoke", "--budget", "7")
    assert result.returncode == 0, result.stderr
    assert "note: if these are natural photographs, fine-tuning a pretrained network" in result.stdout
    assert "plan: model_assisted evaluates 7 children" in result.stdout
    assert "pixels and measured on 1 other\n" in result.stdout
    assert "note: with 1 validation image, one image is 100.0 points" in result.stdout
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize(("preset", "epochs"), [((), "10 epochs"), (("--preset", "smoke"), "1 epoch")])
def test_plan_of_a_search_with_gpus_on_other_machines(preset: tuple[str, ...], epochs: str) -> None:
    options = ("search", "digits", "--dry-run", "--device", "cuda", *preset)
    result = run_here(main, *options, "--executor", "slurm")
    assert result.returncode == 0, result.stderr
    assert f"children, 1 at a time; each is trained for {epochs} on" in result.stdout
    assert "estimate: none, because this machine does not have the device cuda\n" in result.stdout
    assert error_of(run_here(main, *options)).startswith("error: cannot use the device 'cuda'")


@pytest.mark.parametrize("data", ["my_envs:Widths-v0", "my_package.envs:Widths-v0"])
def test_environment_of_a_module_is_not_a_path(data: str) -> None:
    assert data_options(data) == ["--env-id", data]


@pytest.mark.parametrize("data", ["C:/images.csv", "images.csv", "my-envs:Widths-v0", "my_envs:"])
def test_other_names_are_paths(data: str) -> None:
    with pytest.raises(InputError, match="is neither a directory, a file nor the name of a data set"):
        data_options(data)


def test_missing_test_images_are_a_note() -> None:
    write_classes(Path("images/train"), cat=5, dog=5)
    note = f"note: {Path('images/test').absolute()} does not exist; nases train needs its images to test the final network"
    assert note in run_here(main, "search", "images", "--dry-run", *SMOKE).stdout
    rows = [f"images/train/{name}/{number}.png,{name},train" for name in ("cat", "dog") for number in range(5)]
    Path("images.csv").write_text("\n".join(["file,label,split", *rows]))
    note = f"note: {Path('images.csv').absolute()} has no test image of cat; add some, because nases train tests the final"
    assert note in run_here(main, "search", "images.csv", "--dry-run", *SMOKE).stdout
    write_classes(Path("images/test"), cat=1, dog=1)
    assert "note: /" not in run_here(main, "search", "images", "--dry-run", *SMOKE).stdout


def test_time_is_converted_to_a_number_of_children() -> None:
    result = run_here(main, "search", "digits", "--dry-run", "--preset", "smoke", "--time", "1h")
    assert "plan: model_assisted evaluates children for 1h" in result.stdout
    assert re.search(r"so about [\d,]+ children", result.stdout)
    result = run_here(main, "search", "digits", "--dry-run", "--preset", "smoke", "--time", "1h", "--budget", "5")
    assert "at most 1h" in result.stdout


@pytest.mark.parametrize(
    ("budget", "factor", "epochs", "mean", "total"),
    [
        # 16 children for one epoch, four of them for 2 more, one of them for 24 more; the finalists for 27 each
        ("16", "4", "the best 1 of 4 for 3 epochs, the best 1 of 16 for 27 epochs", "30.0 s per child", "30m34s"),
        ("3", "3", "the best 1 of 3 for 3 epochs, the best 1 of 9 for 27 epochs", "16.7 s per child", "14m24s"),
        ("2", "3", "the best 1 of 3 for 3 epochs, the best 1 of 9 for 27 epochs", "10.0 s per child", "9m24s"),
    ],
)
def test_plan_counts_the_epochs_of_the_rungs(
    budget: str, factor: str, epochs: str, mean: str, total: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "time_training", lambda *_, **__: TrainingTime(per_epoch=10.0, overhead=0.0))
    monkeypatch.setattr(timing, "FORWARD_SHARE", 0.0)
    options = ("--preset", "smoke", "--rungs", "1,3,27", "--budget", budget, "--reduction-factor", factor, "--num-envs", "1")
    result = run_here(main, "search", "digits", "--dry-run", "--agent", "random_search", *options)
    assert result.returncode == 0, result.stderr
    assert f"each is trained for 1 epoch, {epochs} on" in result.stdout
    assert f"estimate: {mean} on" in result.stdout
    assert f"about {total} in all" in result.stdout


@pytest.mark.parametrize("option", ["--num-envs", "--num_envs"])
def test_number_of_concurrent_children_is_that_of_the_option(option: str) -> None:
    options = ("--preset", "smoke", "--budget", "7", option, "3", "--num-workers", "3")
    result = run_here(main, "search", "digits", "--dry-run", *options)
    assert "evaluates 7 children, 3 at a time" in result.stdout


@pytest.mark.parametrize(("budget", "concurrent"), [(2, 5), (30, 5), (60, 10), (1000, 32)])
def test_number_of_concurrent_children_leaves_the_agent_results_to_learn_from(
    budget: int, concurrent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_worker, "num_cores", lambda: 32)
    args, training = RandomSearchArgs(budget=budget, device="cpu"), TrainingEvaluator("enas_micro", "digits")
    assert search._default_num_envs(args, training) == concurrent
    assert search._default_num_envs(args, replace(training, num_threads=8)) == min(4, concurrent)
    assert search._default_num_envs(args, OperatorShareEvaluator("nasbench201", "skip_connect")) == 1
    serial = replace(args, execution=ExecutionSettings(executor="serial"))
    assert search._default_num_envs(serial, training) == 1


@pytest.mark.parametrize(("num_gpus", "concurrent"), [(1, 1), (4, 4), (8, 5)])
def test_number_of_concurrent_children_is_that_of_the_gpus(
    num_gpus: int, concurrent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    args, training = RandomSearchArgs(device="cuda"), TrainingEvaluator("enas_micro", "digits", device="cuda")
    assert search._default_num_envs(args, training) == concurrent
    shared = replace(args, budget=100, execution=ExecutionSettings(workers_per_gpu=2))
    assert search._default_num_envs(shared, training) == 2 * num_gpus
    assert search._default_num_envs(replace(args, device="cuda:0"), replace(training, device="cuda:0")) == 1
    remote = replace(args, execution=ExecutionSettings(executor="ray"))
    assert search._default_num_envs(remote, training) == 1


def test_plan_of_a_resumed_search_counts_the_children_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "time_training", lambda *_, **__: TrainingTime(per_epoch=10.0, overhead=0.0))
    monkeypatch.setattr(timing, "FORWARD_SHARE", 0.0)
    assert run_here(main, "search", "digits", "--agent", "random_search", *SMOKE).returncode == 0
    resume = ("search", "--resume", str(the_run()), "--dry-run")
    result = run_here(main, *resume, "--budget", "5")
    assert "plan: random_search evaluates 5 children (2 of them recorded), 1 at a time" in result.stdout
    assert "estimate: 10.0 s per child on" in result.stdout
    assert "about 34s in all" in result.stdout
    result = run_here(main, *resume, "--time", "44s")
    assert "plan: random_search evaluates children for 44s, 1 at a time" in result.stdout
    assert "so about 4 more children" in result.stdout


@pytest.mark.parametrize("limit", [("--budget", "2"), ("--time", "1h")])
def test_search_whose_networks_diverge_has_no_estimate(limit: tuple[str, ...]) -> None:
    result = run_here(main, "search", "digits", "--dry-run", "--preset", "smoke", "--child.lr-max", "1e30", *limit)
    assert result.returncode == 0, result.stderr
    assert "estimate: none, because the training of 3 random networks failed on" in result.stdout


def test_arrays_and_tables_are_searched() -> None:
    images = np.random.default_rng(0).integers(256, size=(20, 9, 9), dtype=np.uint8)
    np.savez("images.npz", images=images, labels=np.arange(20) % 2)
    result = run_here(main, "search", "images.npz", "--agent", "random_search", *SMOKE)
    assert "2 classes, 16 grayscale training images of 9x9 pixels" in result.stdout
    assert "the best of 2 architectures" in result.stdout
    write_classes(Path("images"), cat=10)
    lines = ["file,label", *(f"images/cat/{index}.png,{'ab'[index % 2]}" for index in range(10))]
    Path("table.csv").write_text("\n".join(lines))
    result = run_here(main, "search", "table.csv", "--agent", "random_search", "--dry-run", *SMOKE)
    assert "2 classes, 8 RGB training images of 12x12 pixels" in result.stdout


def test_environment_without_training() -> None:
    result = run_here(main, "search", "NASES-Synthetic-v0", "--budget", "3", "--agent", "random_search")
    assert "plan: random_search evaluates 3 children in NASES-Synthetic-v0, which trains no networks" in result.stdout
    assert sum(1 for _ in read_trajectory(the_run())) == 3


@pytest.mark.parametrize("agent", ["random_search", "sb3"])
def test_search_is_resumed(agent: str) -> None:
    assert run_here(main, "search", "NASES-Synthetic-v0", "--budget", "3", "--agent", agent).returncode == 0
    result = run_here(main, "search", "--resume", str(the_run()), "--budget", "5")
    assert result.returncode == 0, result.stderr
    assert sum(1 for _ in read_trajectory(the_run())) == 5
    assert "is finished (5 children)" in run_here(main, "search", "--resume", str(the_run())).stdout


@pytest.mark.parametrize("program", [nases, module("nases_env")])
def test_interrupted_search_names_the_command_to_resume(
    program: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nases_agents import random_search

    def fail(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(random_search.RandomSearch, "tell", fail)
    result = run_here(program, "search", "NASES-Synthetic-v0", "--budget", "3", "--agent", "random_search")
    assert result.returncode == 130
    assert f"resume with: nases search --resume {the_run()}" in result.stdout


def test_run_directory_is_not_taken_for_data() -> None:
    Path("my run").mkdir()
    for name in ("config.json", "evaluations.jsonl"):
        Path("my run", name).touch()
    message = error_of(run_here(nases, "search", "my run"))
    assert message == "error: my run is the run directory of a search; resume it with: nases search --resume 'my run'"


def test_help() -> None:
    result = run_here(main, "search", "--help")
    assert result.stdout.startswith("usage: nases search DATA [--agent AGENT] [--dry-run] [OPTIONS]")
    for name in AGENTS:
        assert name in result.stdout
    result = run_here(main, "search", "digits", "--agent", "reinforce", "--help")
    assert "usage: nases search DATA" in result.stdout
    assert "--baseline-decay" in result.stdout
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no data given; the first argument is a directory of images"),
        (("--budget", "3", "digits"), "no data given"),
        (("digitz",), "digitz is neither a directory, a file nor the name of a data set (did you mean 'digits'?)"),
        (("digits", "--agent", "gaussian_process"), "unknown agent 'gaussian_process'; known: model_assisted, reinforce"),
        (("digits", "--agent"), "argument --agent: expected one argument"),
        (("digits", "--env-id", "NASES-SVHN-v0"), "--env-id is determined by digits; omit it"),
        (("digits", "--env_id", "NASES-SVHN-v0"), "--env-id is determined by digits; omit it"),
        (("digits", "--budget", "0"), "--budget must be at least 1, not 0"),
        (("digits", "--num-envs", "0"), "--num-envs must be at least 1, not 0"),
        (("digits", "--num-threads", "0"), "--num-threads must be at least 1, not 0"),
        (("digits", "--num-threads", "100000"), "--num-threads must be at most 1024, not 100000"),
        ((".", "--data-dir=."), "--data-dir is determined by .; omit it"),
        (("digits", "--resume", "runs"), "the data and the agent are those of the resumed search; omit them"),
        (("--resume", "nowhere"), "nowhere is not a run directory"),
        (("digits", "--budget", "x"), "--budget: 'x' is not an integer"),
        (("digits", "--bugdet", "3"), "unknown option '--bugdet' (did you mean '--budget'?)"),
        ((".",), " contains no class directories"),
        (("NASES-NASBench-v0",), "unknown environment 'NASES-NASBench-v0' (did you mean 'NASES-NASBench201-v0'?); known: "),
        (("nothing:NASES-Other-v0",), "unknown environment 'nothing:NASES-Other-v0'"),
    ],
)
def test_invalid_input_is_a_one_line_error(options: tuple[str, ...], message: str) -> None:
    assert message in error_of(run_here(main, "search", *options))
    assert not Path("runs").exists()


def test_environment_that_the_agent_cannot_search_is_an_error_before_the_plan() -> None:
    result = run_here(nases, "search", "digits", *SMOKE, "--agent", "mo_reinforce")
    assert "mo_reinforce needs an environment with several objectives" in error_of(result)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-finalists", "1"), "--num-finalists must be 0 or at least 2, not 1"),
        (("--num-workers", "2", "--num-envs", "1"), "the executor serial does not take num_workers; omit it"),
        (("--run-dir", "used"), "the run directory used exists and is not empty"),
    ],
)
def test_invalid_option_is_an_error_before_the_plan(options: tuple[str, ...], message: str) -> None:
    Path("used").mkdir()
    Path("used", "config.json").touch()
    result = run_here(nases, "search", "digits", "--preset", "smoke", *options)
    assert message in error_of(result)
    assert result.stdout == ""


def test_budget_of_a_resumed_search_that_is_too_small_is_an_error_before_the_plan() -> None:
    assert run_here(main, "search", "NASES-Synthetic-v0", "--budget", "3", "--agent", "random_search").returncode == 0
    config = the_run() / "config.json"  # of a search that was stopped after 3 children
    config.write_text(json.dumps({name: value for name, value in read_config(the_run()).items() if name != "finished"}))
    result = run_here(main, "search", "--resume", str(the_run()), "--budget", "2")
    assert "has 3 children already, more than --budget 2; pass a larger --budget" in error_of(result)
    assert result.stdout == ""


def test_missing_earlier_search_is_an_error_before_the_plan() -> None:
    result = run_here(nases, "search", "digits", *SMOKE, "--transfer-from", "nowhere")
    assert "nowhere is not a run directory" in error_of(result)
    assert result.stdout == ""
