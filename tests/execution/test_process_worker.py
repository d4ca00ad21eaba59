"""Worker processes: faults, limits, logs, shutdown and GPU assignment; no process outlives its executor."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Evaluator, OperatorShareEvaluator, Status, TrainingEvaluator
from nases_env.execution import process_worker
from nases_env.execution.attempts import AttemptError
from nases_env.execution.executor import Task
from nases_env.execution.pool import WorkerPoolExecutor
from nases_env.execution.process_worker import ProcessWorker, default_num_workers, process_workers
from nases_env.execution.serial import SerialExecutor
from nases_env.search_spaces import get_search_space
from tests.execution.faulty import FaultyEvaluator
from tests.execution.forked import fork_workers
from tests.processes import ForkedCommand

SECONDS = 120.0  # timeout of a test that hangs
SPACE = get_search_space("nasbench201")
ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(20)]

MakeExecutor = Callable[..., WorkerPoolExecutor]


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyEvaluator:
    (tmp_path / "faults").mkdir()
    return FaultyEvaluator(folder=str(tmp_path / "faults"))


@pytest.fixture
def make_executor(tmp_path: Path) -> Iterator[MakeExecutor]:
    """Create executors with worker processes; check that no process and no open file is left after the test."""
    executors = []
    children, files = set(psutil.Process().children(recursive=True)), psutil.Process().num_fds()

    def make(evaluator: Evaluator, num_workers: int, *, max_retries: int = 1, **limits: float) -> WorkerPoolExecutor:
        workers = process_workers(evaluator, num_workers, log_dir=tmp_path / "logs", **limits)  # type: ignore[arg-type]
        executors.append(WorkerPoolExecutor(evaluator, workers, max_retries=max_retries))
        return executors[-1]

    yield make
    for executor in executors:
        executor.shutdown()
    assert set(psutil.Process().children(recursive=True)) == children  # zombies count too
    assert psutil.Process().num_fds() <= files


@pytest.fixture
def worker(faulty: FaultyEvaluator, tmp_path: Path) -> Iterator[ProcessWorker]:
    worker = ProcessWorker(faulty, environment={"OMP_NUM_THREADS": "1"}, log_dir=tmp_path / "logs")
    yield worker
    worker.close()


def without_origin(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation without the fields that depend on the process and the time."""
    return replace(evaluation, seconds=0.0, device="")


def serial(evaluator: Evaluator, seed: int) -> Evaluation:
    return without_origin(SerialExecutor(evaluator).submit(ARCHITECTURES[seed], seed).result())


def until(condition: Callable[[], bool]) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < SECONDS
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def pids_of(evaluator: FaultyEvaluator, *seeds: int) -> list[int]:
    """Wait until the children sleep or are stopped, and return the pids of their processes."""
    files = [Path(evaluator.folder) / f"{seed}.pid" for seed in seeds]
    until(lambda: all(file.exists() for file in files))
    return [int(file.read_text()) for file in files]


@pytest.mark.usefixtures("forked_workers")
def test_child_is_retried_after_a_fault(
    make_executor: MakeExecutor, faulty: FaultyEvaluator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = {
        "kill": "killed by SIGKILL",
        "crash": "killed by SIGSEGV; see LOG",
        "raise": "raised ValueError: no such thing as this; see LOG",
        "fork": "exited with status 3",
        "cut": "killed by SIGKILL",
    }
    for seed, fault in enumerate(reasons):
        faulty.inject(seed, fault)
    executor = make_executor(faulty, 1)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(len(reasons))]
    for seed, future in enumerate(futures):
        assert without_origin(future.result(timeout=SECONDS)) == serial(faulty, seed)
    logs = [tmp_path / "logs" / f"{Task(ARCHITECTURES[seed], seed).name}.log" for seed in range(len(reasons))]
    assert {record.getMessage() for record in caplog.records if record.name.startswith("nases_env")} == {
        f"child {log.stem}, attempt 1 of 2: {reason.replace('LOG', str(log))}"
        for log, reason in zip(logs, reasons.values(), strict=True)
    }
    assert "Fatal Python error: Segmentation fault" in logs[1].read_text()
    assert logs[2].read_text().endswith("ValueError: no such thing\nas this\n")
    assert set((tmp_path / "logs").iterdir()) == {logs[1], logs[2]}
    assert is_gone(int((Path(faulty.folder) / "subprocess").read_text()))


@pytest.mark.usefixtures("forked_workers")
def test_worker_is_killed_at_a_limit(make_executor: MakeExecutor, faulty: FaultyEvaluator) -> None:
    faulty.inject(0, "allocate", "input_error")
    faulty.inject(1, "stop")
    executors = (
        make_executor(faulty, 1, max_retries=0, memory_limit=1.25),
        make_executor(faulty, 1, max_retries=0, time_limit=3.0),
    )
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed, executor in enumerate(executors)]
    allocated, stopped = (future.result(timeout=SECONDS) for future in futures)
    assert (allocated.status, allocated.reason) == (Status.OUT_OF_MEMORY, "used more than 1.25 GiB of memory")
    assert (stopped.status, stopped.reason) == (Status.TIMED_OUT, "took longer than 3 s")
    # The new processes: one evaluator raises an InputError, the other evaluates the child.
    invalid, evaluated = (executor.submit(ARCHITECTURES[seed], seed) for seed, executor in enumerate(executors))
    assert str(invalid.exception(timeout=SECONDS)) == "fix this first"
    assert isinstance(invalid.exception(), InputError)
    assert without_origin(evaluated.result(timeout=SECONDS)) == serial(faulty, 1)


def test_memory_limit_that_the_worker_exceeds_alone_is_not_a_result(
    make_executor: MakeExecutor, faulty: FaultyEvaluator
) -> None:
    result = make_executor(faulty, 1, max_retries=0, memory_limit=0.01).submit(ARCHITECTURES[0], 0).result(timeout=SECONDS)
    assert result.status is Status.FAILED
    assert result.reason == "its worker used more than 0.01 GiB of memory before it evaluated a child; increase memory_limit"


def test_log_that_is_a_link_is_refused(make_executor: MakeExecutor, faulty: FaultyEvaluator, tmp_path: Path) -> None:
    """In a copied run directory, it could name any file."""
    log = tmp_path / "logs" / f"{Task(ARCHITECTURES[0], 0).name}.log"
    log.parent.mkdir(exist_ok=True)
    log.symlink_to(tmp_path / "other")
    error = make_executor(faulty, 1, max_retries=0).submit(ARCHITECTURES[0], 0).exception(timeout=SECONDS)
    assert isinstance(error, InputError)
    assert "is a symbolic link, and a search would write to its target; replace it with a copy" in str(error)
    assert not (tmp_path / "other").exists()


def test_workers_that_cannot_start_raise_input_error(faulty: FaultyEvaluator, tmp_path: Path) -> None:
    worker = ProcessWorker(faulty, environment={"PYTHONHOME": "/nowhere"}, log_dir=tmp_path / "logs")
    executor = WorkerPoolExecutor(faulty, [worker], max_retries=1)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(4)]
    failed = [future.result(timeout=SECONDS) for future in futures[:2]]
    assert [evaluation.status for evaluation in failed] == [Status.FAILED] * 2
    assert failed[0].reason == f"exited with status 1; see {tmp_path}/logs/{Task(ARCHITECTURES[0], 0).name}.log"
    for future in futures[2:]:
        error = future.exception(timeout=SECONDS)
        assert isinstance(error, InputError)
        assert re.fullmatch(
            r"\d consecutive children failed .* end of its log: .*no Python frame.*; fix the cause .*--resume", str(error)
        )
    executor.shutdown()


def test_process_is_reused_until_it_dies_or_its_evaluator_raises(
    worker: ProcessWorker, faulty: FaultyEvaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (worker.evaluate(Task(ARCHITECTURES[seed], seed)) for seed in (0, 1))
    assert first.device == second.device != str(os.getpid())
    pid = int(first.device)
    assert os.getpgid(pid) == os.getsid(pid) == pid  # Ctrl-C in the terminal is not sent to it
    assert psutil.Process(pid).environ()["OMP_NUM_THREADS"] == "1"
    assert list((tmp_path / "logs").iterdir()) == []

    faulty.inject(2, "write")
    task = Task(ARCHITECTURES[2], 2)
    assert worker.evaluate(task).device == first.device
    worker.evaluate(Task(ARCHITECTURES[3], 3))
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name == f"{task.name}.log"
    lines = log.read_text().splitlines()
    assert sorted(lines)[-2:] == ["written by C", "written by print"]
    assert any(line.endswith("INFO some.library: written by logging") for line in lines)

    worker.cancel()  # kills the idle process
    with pytest.raises(AttemptError, match=r"^killed by SIGKILL$"):
        worker.evaluate(task)
    assert is_gone(pid)
    fork_workers(monkeypatch)
    faulty.inject(2, "raise")
    written = log.read_text()
    with pytest.raises(AttemptError) as caught:
        worker.evaluate(task)
    assert caught.value.log.startswith("Traceback")
    assert log.read_text() == f"{written}{caught.value.log}\n"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.status, again.log) == (str(caught.value), Status.FAILED, caught.value.log)
    worker.close()
    worker.close()
    worker.cancel()


def test_unwritable_log_is_an_input_error(faulty: FaultyEvaluator, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    worker = ProcessWorker(faulty, environment={}, log_dir=tmp_path / "logs")
    with pytest.raises(InputError, match=r"^cannot write .*choose a different directory$"):
        worker.evaluate(Task(ARCHITECTURES[0], 0))


@pytest.mark.usefixtures("forked_workers")
def test_shutdown_during_an_evaluation_leaves_no_process(make_executor: MakeExecutor, faulty: FaultyEvaluator) -> None:
    faulty.inject(0, "sleep")
    faulty.inject(1, "freeze")
    executor = make_executor(faulty, 2)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(4)]
    pids = pids_of(faulty, 0, 1)
    executor.shutdown()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=0)


def test_shutdown_while_workers_start_leaves_no_process(make_executor: MakeExecutor, faulty: FaultyEvaluator) -> None:
    before = set(psutil.Process().children())
    executor = make_executor(faulty, 2)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(2)]
    until(lambda: len(set(psutil.Process().children()) - before) == 2)
    executor.shutdown()
    assert set(psutil.Process().children()) == before
    assert all(isinstance(future.exception(timeout=0), CancelledError) for future in futures)


def search(evaluator: FaultyEvaluator) -> None:
    workers = process_workers(evaluator, 2, log_dir=Path(evaluator.folder) / "logs")
    executor = WorkerPoolExecutor(evaluator, workers)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(2)]
    print(futures[0].result())


def test_workers_end_if_their_parent_is_killed(faulty: FaultyEvaluator, tmp_path: Path) -> None:
    faulty.inject(0, "sleep")
    faulty.inject(1, "freeze")
    parent = ForkedCommand(partial(search, faulty), folder=tmp_path)
    try:
        pids = pids_of(faulty, 0, 1)
        assert not any(is_gone(pid) for pid in pids)
    finally:
        parent.send_signal(signal.SIGKILL)
    assert parent.wait().returncode == -signal.SIGKILL
    until(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize(("parent", "status"), [(os.getpid(), -signal.SIGKILL), (10**9, 1)], ids=["later", "before"])
def test_worker_detects_the_death_of_its_parent(parent: int, status: int) -> None:
    """Without help of the kernel, the closed connection shows it, or a different parent pid at the start."""
    script = Path(process_worker.__file__).with_name("process_worker_main.py")
    connection, other_end = multiprocessing.Pipe()
    with other_end:
        command = [sys.executable, str(script), str(other_end.fileno()), str(parent)]
        started = subprocess.Popen(command, pass_fds=[other_end.fileno()], start_new_session=True)
    connection.close()
    try:
        assert started.wait(timeout=SECONDS) == status
    finally:
        started.kill()
        started.wait()


CUSTOM_MODULE = """
    from nases_env.evaluation import OperatorShareEvaluator
    from nases_env.search_spaces.nasbench201 import NasBench201
    from tests.execution.faulty import FaultyEvaluator

    class CustomSpace(NasBench201):
        name = "custom_space"
"""

CUSTOM_SCRIPT = """
    import sys
    import time
    from pathlib import Path
    import numpy as np
    import custom_module
    from nases_env.errors import InputError
    from nases_env.execution.process_worker import process_workers
    from nases_env.execution.pool import WorkerPoolExecutor
    from nases_env.search_spaces import get_search_space

    folder = Path(sys.argv[1])

    class InTheScript(custom_module.FaultyEvaluator):
        pass

    def workers(evaluator):
        return process_workers(evaluator, 1, log_dir=folder)

    for evaluator in (InTheScript("custom_module:CustomSpace"), custom_module.FaultyEvaluator(folder=open(__file__))):
        try:
            workers(evaluator)
        except InputError as error:
            print(error)

    evaluator = custom_module.FaultyEvaluator("custom_module:CustomSpace", folder=str(folder))
    executor = WorkerPoolExecutor(evaluator, workers(evaluator))
    architecture = get_search_space("custom_module:CustomSpace").sample(np.random.default_rng(0))
    other, sleeping = [executor.submit(architecture, seed) for seed in (1, 0)]
    print(other.result().valid_accuracy == evaluator.evaluate(architecture, 1).valid_accuracy)
    while not (folder / "0.pid").exists():
        time.sleep(0.01)
"""


def test_custom_script_needs_no_main_guard_and_no_shutdown(faulty: FaultyEvaluator, tmp_path: Path) -> None:
    """The script starts workers at import time, uses a search space of a local module, and ends during an evaluation."""
    (tmp_path / "custom_module.py").write_text(textwrap.dedent(CUSTOM_MODULE))
    (tmp_path / "custom_script.py").write_text(textwrap.dedent(CUSTOM_SCRIPT))
    faulty.inject(0, "sleep")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "custom_script.py", faulty.folder]
    script = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert script.stderr == ""
    assert script.returncode == 0
    in_the_script, unpicklable, is_equal = script.stdout.splitlines()
    assert in_the_script == (
        "the evaluator cannot be sent to another process (InTheScript is defined in the script itself); "
        "define its parts in an importable module, or use --executor serial"
    )
    named = r"'(_io\.TextIOWrapper' object|TextIOWrapper' instances)"  # before Python 3.13, and since then
    assert re.match(rf"the evaluator cannot be sent to another process \(cannot pickle {named}", unpicklable)
    assert is_equal == "True"
    (pid,) = pids_of(faulty, 0)
    until(lambda: is_gone(pid))


class MissingEvaluator(OperatorShareEvaluator):
    """An evaluator that workers cannot import."""


def test_evaluator_that_workers_cannot_import_is_an_input_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = type(sys)("elsewhere")
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    monkeypatch.setattr(elsewhere, "MissingEvaluator", MissingEvaluator, raising=False)
    monkeypatch.setattr(MissingEvaluator, "__module__", "elsewhere")
    worker = ProcessWorker(MissingEvaluator("nasbench201", "skip_connect"), environment={}, log_dir=tmp_path)
    with pytest.raises(InputError, match=r"^a worker process cannot load the evaluator \(ModuleNotFoundError.*serial$"):
        worker.evaluate(Task(ARCHITECTURES[0], 0))
    worker.close()


def test_training_in_a_worker_equals_training_in_this_process(make_executor: MakeExecutor) -> None:
    evaluator = TrainingEvaluator("nasbench201", "digits", PRESETS["smoke"], device="cpu")
    future = make_executor(evaluator, 1).submit(ARCHITECTURES[0], 7)
    here = evaluator.evaluate(ARCHITECTURES[0], 7)
    there = future.result(timeout=SECONDS)
    assert there.status is Status.OK
    assert replace(there, seconds=0.0) == replace(here, seconds=0.0)


@dataclass(frozen=True)
class DeviceEvaluator(OperatorShareEvaluator):
    """An evaluator with a device and a number of threads."""

    device: str = "auto"
    num_threads: int = 1


def on_device(device: str, num_threads: int = 1) -> DeviceEvaluator:
    return DeviceEvaluator("nasbench201", "skip_connect", device, num_threads)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def environments(evaluator: Evaluator, num_workers: int, log_dir: Path, workers_per_gpu: int = 1) -> list[dict[str, str]]:
    workers = process_workers(evaluator, num_workers, workers_per_gpu=workers_per_gpu, log_dir=log_dir)
    assert [worker.gpu for worker in workers] == [worker._environment.get("CUDA_VISIBLE_DEVICES", "") for worker in workers]
    return [worker._environment for worker in workers]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("visible", "gpus"), [(None, "01"), ("3,5,7", "35"), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])])
def test_workers_are_distributed_over_the_gpus(
    visible: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for device in ("auto", "cuda"):
        seen = [environment["CUDA_VISIBLE_DEVICES"] for environment in environments(on_device(device), 3, tmp_path, 2)]
        assert seen == [gpus[0], gpus[1], gpus[0]]
    for evaluator in (on_device("cpu"), OperatorShareEvaluator("nasbench201", "skip_connect")):
        assert environments(evaluator, 3, tmp_path) == [{"OMP_NUM_THREADS": "1"}] * 3
    seen = [environment["CUDA_VISIBLE_DEVICES"] for environment in environments(on_device("cuda:1"), 2, tmp_path, 2)]
    assert seen == [",".join(gpus)] * 2, "the second GPU keeps its number"
    with pytest.raises(InputError, match=r"^3 workers need more than 1 GPU with workers_per_gpu = 2; increase"):
        environments(on_device("cuda:1"), 3, tmp_path, 2)
    with pytest.raises(
        InputError, match=r"^5 workers need more than 2 GPUs with workers_per_gpu = 2; increase workers_per_gpu"
    ):
        environments(on_device("auto"), 5, tmp_path, 2)


@pytest.mark.usefixtures("two_gpus")
def test_default_number_of_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nases_env.execution.process_worker.num_cores", lambda: 8)
    assert default_num_workers(on_device("auto"), 16, 3) == 6
    assert default_num_workers(on_device("auto"), 4, 3) == 4
    assert default_num_workers(on_device("cuda:1"), 16, 3) == 3
    assert default_num_workers(on_device("cpu"), 16, 3) == 8
    assert default_num_workers(on_device("cpu", num_threads=3), 16, 3) == 2
    assert default_num_workers(on_device("cpu", num_threads=9), 16, 3) == 1
    assert default_num_workers(OperatorShareEvaluator("nasbench201", "skip_connect"), 1, 1) == 1
    assert environments(on_device("cpu", num_threads=3), 1, tmp_path) == [{"OMP_NUM_THREADS": "3"}]


def test_auto_device_without_a_gpu_assigns_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environments(on_device("auto"), 1, tmp_path) == [{"OMP_NUM_THREADS": "1"}]
