"""The executor that the settings describe; options that it does not support are errors."""

from __future__ import annotations

import gc
import pickle
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import pytest

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, OperatorShareEvaluator, TrainingEvaluator
from nases_env.execution import ExecutionSettings, Executor, SerialExecutor, Store, make_executor, resolve_execution
from nases_env.execution.caching import CachingExecutor
from nases_env.execution.factory import count_workers, without_unsupported
from nases_env.execution.pool import WorkerPoolExecutor
from nases_env.search_spaces import get_search_space
from tests.execution.faulty import FaultyEvaluator
from tests.processes import run_forked

CHEAP = OperatorShareEvaluator("nasbench201", "skip_connect")
EXPENSIVE = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu")


def executor_of(evaluator: Any, max_in_flight: int = 1, **options: Any) -> CachingExecutor:
    return make_executor(evaluator, ExecutionSettings(**options), max_in_flight=max_in_flight, describe=lambda child: "{}")


@pytest.mark.parametrize(
    ("evaluator", "max_in_flight", "options", "expected"),
    [
        (CHEAP, 1, {}, SerialExecutor),
        (CHEAP, 4, {}, SerialExecutor),
        (EXPENSIVE, 1, {}, SerialExecutor),
        (EXPENSIVE, 4, {}, WorkerPoolExecutor),
        (CHEAP, 1, {"time_limit": 5.0}, WorkerPoolExecutor),
        (EXPENSIVE, 1, {"memory_limit": 2.0}, WorkerPoolExecutor),
        (EXPENSIVE, 4, {"executor": "serial"}, SerialExecutor),
        (CHEAP, 1, {"executor": "processes"}, WorkerPoolExecutor),
    ],
)
def test_auto_uses_processes_for_expensive_or_limited_children(
    evaluator: Any, max_in_flight: int, options: dict[str, Any], expected: type[Executor]
) -> None:
    executor = executor_of(evaluator, max_in_flight, **options)
    assert type(executor.inner) is expected
    executor.shutdown()


@pytest.mark.parametrize("has_gpu", [True, False])
def test_device_auto_is_that_of_the_search_in_a_worker_that_has_another(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a worker that was restarted after the GPU had failed."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    monkeypatch.setattr("torch.cuda.device_count", lambda: int(has_gpu))
    evaluator = replace(EXPENSIVE, device="auto")
    executor = executor_of(evaluator, executor="processes")
    monkeypatch.undo()
    workers = executor.inner._workers.values()  # type: ignore[attr-defined]
    sent = [pickle.loads(worker._configuration) for worker in workers]
    assert [each.device for each in (executor.evaluator, *sent)] == ["cuda" if has_gpu else "cpu"] * 2
    executor.shutdown()


@pytest.mark.parametrize(("options", "expected"), [({"executor": "serial"}, 1), ({"num_workers": 2}, 2)])
def test_executor_knows_its_number_of_workers(options: dict[str, Any], expected: int) -> None:
    executor = executor_of(EXPENSIVE, 4, **options)
    assert count_workers(EXPENSIVE, ExecutionSettings(**options), 4) == expected
    assert executor.num_workers == executor.inner.num_workers == expected
    executor.shutdown()


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("auto", "cannot use the device 'cuda:99'"),
        ("serial", "cannot use the device 'cuda:99'"),
        ("processes", "cannot use the device 'cuda:99'"),
        ("ray", "^with the executor ray, a child sees its own GPU only; use cuda, not cuda:99$"),
        ("slurm", "^with the executor slurm, a child sees its own GPU only; use cuda, not cuda:99$"),
    ],
)
def test_device_must_exist_where_children_are_trained(executor: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        executor_of(replace(EXPENSIVE, device="cuda:99"), executor=executor)
    if executor in ("ray", "slurm"):
        ExecutionSettings(executor=executor).require_device("cuda")


def test_results_are_cached_in_the_store(tmp_path: Path) -> None:
    executor = executor_of(CHEAP, store=str(tmp_path / "store.sqlite"))
    assert isinstance(executor, CachingExecutor)
    executor.shutdown()
    with Store(tmp_path / "store.sqlite", read_only=True) as store:
        assert store.count() == 0


def test_children_write_checkpoints_below_the_work_dir(tmp_path: Path) -> None:
    executor = executor_of(EXPENSIVE, work_dir=str(tmp_path), checkpoint_interval=7.0)
    assert isinstance(executor.evaluator, TrainingEvaluator)
    assert executor.evaluator.checkpoint_dir == str(tmp_path / "checkpoints")
    assert executor.evaluator.checkpoint_interval == 7.0
    assert executor.evaluator.describe() == EXPENSIVE.describe()


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("fails", [True, False])
def test_temporary_folder_is_removed_unless_it_has_the_log_of_a_failed_child(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, *(["raise"] if fails else []))
    executor = executor_of(evaluator, executor="processes", max_retries=0)
    architecture = get_search_space("nasbench201").sample(np.random.default_rng(0))
    evaluation = executor.submit(architecture, 0).result(timeout=60)
    executor.shutdown()
    del executor
    gc.collect()
    logs = list((tmp_path / "temporary").glob("*/logs/*"))
    assert evaluation.reason.endswith("".join(f"; see {path}" for path in logs))
    assert (len(logs), len(list((tmp_path / "temporary").iterdir()))) == ((1, 1) if fails else (0, 0))


@pytest.mark.parametrize("options", ["partition=gpu", "partition", "timeout_min=x"])
def test_invalid_options_leave_no_temporary_folder(options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        executor_of(CHEAP, executor="slurm", slurm_options=options)
    assert list(tmp_path.iterdir()) == []


def test_files_of_slurm_jobs_are_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other nodes do not share the temporary directory of the system."""
    pytest.importorskip("submitit")
    for name in ("bin", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "srun").touch(mode=0o755)  # submitit looks for it
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path / "here")
    executor = executor_of(CHEAP, executor="slurm", slurm_options="timeout_min=5")
    (worker,) = executor.inner._workers.values()  # type: ignore[attr-defined]
    (folder,) = (tmp_path / "here").iterdir()
    assert Path(worker._executor.folder).parent == folder / "slurm"
    executor.shutdown()
    del executor, worker
    gc.collect()
    assert list((tmp_path / "here").iterdir()) == []
    monkeypatch.setattr("tempfile.mkdtemp", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(InputError, match=r"in the working directory \(Permission denied\); pass work_dir"):
        executor_of(CHEAP, executor="slurm", slurm_options="timeout_min=5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "proceses"}, r"unknown executor 'proceses' \(did you mean 'processes'\?\)"),
        ({"num_workers": 0}, "num_workers must be at least 1, not 0"),
        ({"time_limit": 0.0}, "time_limit must be a positive number"),
        ({"memory_limit": float("nan")}, "memory_limit must be a positive number"),
        ({"max_retries": -1}, "max_retries must be at least 0"),
        ({"checkpoint_interval": -1.0}, "checkpoint_interval must be 0 or a number of seconds"),
        ({"num_worker": 1}, r"unknown option 'num_worker' of execution \(did you mean 'num_workers'\?\)"),
        ("processes", "execution must be a dictionary such as {'executor': 'processes'}, not 'processes'"),
        ({"num_workers": "two"}, r"num_workers of execution must be int \| None, not 'two'"),
        ({"max_retries": "a"}, "max_retries of execution must be int, not 'a'"),
    ],
)
def test_invalid_settings_are_input_errors(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve_execution(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray_address": "127.0.0.1:1"}, "the executor serial does not take ray_address; .* use the executor ray"),
        ({"executor": "serial", "time_limit": 1.0}, "the executor serial does not take time_limit"),
        ({"executor": "processes", "slurm_options": "partition=x"}, "the executor processes does not take slurm_options"),
        ({"executor": "slurm", "memory_limit": 1.0}, "the executor slurm does not take memory_limit"),
    ],
)
def test_unsupported_options_are_input_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        executor_of(CHEAP, **options)


@pytest.mark.parametrize(
    ("executor", "kept"),
    [
        ("auto", {"memory_limit": 8.0, "time_limit": 60.0}),
        ("serial", {}),
        ("processes", {"memory_limit": 8.0, "num_workers": 2, "time_limit": 60.0}),
        ("slurm", {"num_workers": 2, "time_limit": 60.0}),
    ],
)
def test_unsupported_options_are_dropped(executor: str, kept: dict[str, Any]) -> None:
    settings = ExecutionSettings(num_workers=2, time_limit=60.0, memory_limit=8.0, ray_address="auto", store="a.sqlite")
    assert without_unsupported(settings, executor) == ExecutionSettings(store="a.sqlite", **kept)


def step_without(module: str, executor: str) -> None:
    """Evaluate a child in a process that cannot import a module."""
    sys.modules[module] = None  # type: ignore[assignment]
    env = gym.make("NASES-Synthetic-v0", execution={"executor": executor})
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.parametrize(
    ("executor", "module", "message"), [("ray", "ray", "nases-env[ray]"), ("slurm", "submitit", "nases-env[slurm]")]
)
def test_missing_extra_is_named(executor: str, module: str, message: str, tmp_path: Path) -> None:
    result = run_forked(partial(step_without, module, executor), folder=tmp_path)
    assert f"InputError: the executor {executor} needs" in result.stderr
    assert message in result.stderr
