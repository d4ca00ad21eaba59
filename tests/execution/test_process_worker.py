"""Real processes: whatever ends one, the child is evaluated all the same, and no process is left over."""

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
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Evaluator, OperatorShareEvaluator, Status, TrainingEvaluator
from nases_env.execution import process_worker
from nases_env.execution.executor import SerialExecutor, Task
from nases_env.execution.pool import AttemptError, WorkerPoolExecutor
from nases_env.execution.process_worker import ProcessWorker, default_num_workers, process_workers
from nases_env.search_spaces import get_search_space
from tests.execution.faulty import FaultyEvaluator

SECONDS = 120.0  # until a test that hangs fails
SPACE = get_search_space("nasbench201")
ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(20)]

Supervise = Callable[..., WorkerPoolExecutor]


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyEvaluator:
    (tmp_path / "tokens").mkdir()
    return FaultyEvaluator(folder=str(tmp_path / "tokens"))


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Makes executors on processes, and sees to it that they leave neither a process nor an open file behind."""
    executors = []
    children, files = set(psutil.Process().children()), psutil.Process().num_fds()

    def make(evaluator: Evaluator, num_workers: int, *, max_retries: int = 1, **limits: float) -> WorkerPoolExecutor:
        workers = process_workers(evaluator, num_workers, log_dir=tmp_path / "logs", **limits)  # type: ignore[arg-type]
        executors.append(WorkerPoolExecutor(evaluator, workers, max_retries=max_retries))
        return executors[-1]

    yield make
    for executor in executors:
        executor.shutdown()
    assert set(psutil.Process().children()) == children  # zombies count too
    assert psutil.Process().num_fds() <= files


@pytest.fixture
def worker(faulty: FaultyEvaluator, tmp_path: Path) -> Iterator[ProcessWorker]:
    worker = ProcessWorker(faulty, environment={"OMP_NUM_THREADS": "1"}, log_dir=tmp_path / "logs")
    yield worker
    worker.close()


def anonymous(evaluation: Evaluation) -> Evaluation:
    """Without what says when and in which process it was made."""
    return replace(evaluation, seconds=0.0, device="")


def serial(evaluator: Evaluator, seed: int) -> Evaluation:
    return anonymous(SerialExecutor(evaluator).submit(ARCHITECTURES[seed], seed).result())


def until(condition: Callable[[], bool]) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < SECONDS
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody reaps has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def pids_of(evaluator: FaultyEvaluator, *seeds: int) -> list[int]:
    """The processes of children that sleep or are frozen, once they are."""
    files = [Path(evaluator.folder) / f"{seed}.pid" for seed in seeds]
    until(lambda: all(file.exists() for file in files))
    return [int(file.read_text()) for file in files]


def test_whatever_ends_a_worker_the_child_is_evaluated_in_the_next(
    supervise: Supervise, faulty: FaultyEvaluator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = {
        "kill": "killed by SIGKILL",
        "crash": "killed by SIGSEGV; see LOG",
        "raise": "raised ValueError: no such thing as this; see LOG",
        "fork": "exited with status 3",
        "cut": "killed by SIGKILL",
    }
    for seed, fault in enumerate(reasons):
        faulty.break_at(seed, fault)
    executor = supervise(faulty, 2)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(len(reasons))]
    for seed, future in enumerate(futures):
        assert anonymous(future.result(timeout=SECONDS)) == serial(faulty, seed)
    logs = [tmp_path / "logs" / f"{Task(ARCHITECTURES[seed], seed).name}.log" for seed in range(len(reasons))]
    assert {record.getMessage() for record in caplog.records if record.name.startswith("nases_env")} == {
        f"child {log.stem}, attempt 1 of 2: {reason.replace('LOG', str(log))}"
        for log, reason in zip(logs, reasons.values(), strict=True)
    }
    assert "Fatal Python error: Segmentation fault" in logs[1].read_text()
    assert logs[2].read_text().endswith("ValueError: no such thing\nas this\n")
    assert set((tmp_path / "logs").iterdir()) == {logs[1], logs[2]}
    assert is_gone(int((Path(faulty.folder) / "grandchild").read_text()))


def test_a_child_that_meets_a_limit_is_ended(supervise: Supervise, faulty: FaultyEvaluator) -> None:
    faulty.break_at(0, "allocate", "mend")
    faulty.break_at(1, "stop")
    executors = supervise(faulty, 1, max_retries=0, memory_limit=1.25), supervise(faulty, 1, max_retries=0, time_limit=3.0)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed, executor in enumerate(executors)]
    allocated, stopped = (future.result(timeout=SECONDS) for future in futures)
    assert (allocated.status, allocated.reason) == (Status.OUT_OF_MEMORY, "occupied more than 1.25 GiB")
    assert (stopped.status, stopped.reason) == (Status.TIMED_OUT, "took longer than 3 s")
    # The next processes: one evaluator wants its input mended, the other has nothing to say against the child.
    mended, evaluated = (executor.submit(ARCHITECTURES[seed], seed) for seed, executor in enumerate(executors))
    assert str(mended.exception(timeout=SECONDS)) == "mend this first"
    assert isinstance(mended.exception(), InputError)
    assert anonymous(evaluated.result(timeout=SECONDS)) == serial(faulty, 1)


def test_workers_that_cannot_run_at_all_stop_the_search(faulty: FaultyEvaluator, tmp_path: Path) -> None:
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
            r"\d children in a row failed .* its log ends: .*no Python frame.*; mend it .*--resume", str(error)
        )
    executor.shutdown()


def test_one_process_serves_children_until_an_evaluator_objects(
    worker: ProcessWorker, faulty: FaultyEvaluator, tmp_path: Path
) -> None:
    first, second = (worker.evaluate(Task(ARCHITECTURES[seed], seed)) for seed in (0, 1))
    assert first.device == second.device != str(os.getpid())
    pid = int(first.device)
    assert os.getpgid(pid) == os.getsid(pid) == pid  # an interrupt from the terminal does not reach it
    assert psutil.Process(pid).environ()["OMP_NUM_THREADS"] == "1"
    assert list((tmp_path / "logs").iterdir()) == []

    faulty.break_at(2, "write")
    task = Task(ARCHITECTURES[2], 2)
    assert worker.evaluate(task).device == first.device
    worker.evaluate(Task(ARCHITECTURES[3], 3))
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name == f"{task.name}.log"
    lines = log.read_text().splitlines()
    assert sorted(lines)[-2:] == ["written by C", "written by print"]
    assert any(line.endswith("INFO some.library: written by logging") for line in lines)

    worker.cancel()  # it sits idle, and is found dead
    with pytest.raises(AttemptError, match=r"^killed by SIGKILL$"):
        worker.evaluate(task)
    assert is_gone(pid)
    faulty.break_at(2, "raise")
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


def test_a_log_that_cannot_be_written_is_one_clear_line(faulty: FaultyEvaluator, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    worker = ProcessWorker(faulty, environment={}, log_dir=tmp_path / "logs")
    with pytest.raises(InputError, match=r"^cannot write .*choose another folder$"):
        worker.evaluate(Task(ARCHITECTURES[0], 0))


def test_shutdown_in_mid_child_leaves_no_process(supervise: Supervise, faulty: FaultyEvaluator) -> None:
    faulty.break_at(0, "sleep")
    faulty.break_at(1, "freeze")
    executor = supervise(faulty, 2)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(4)]
    pids = pids_of(faulty, 0, 1)
    executor.shutdown()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=0)


def test_shutdown_while_workers_start_leaves_no_process(supervise: Supervise, faulty: FaultyEvaluator) -> None:
    before = set(psutil.Process().children())
    executor = supervise(faulty, 2)
    futures = [executor.submit(ARCHITECTURES[seed], seed) for seed in range(2)]
    until(lambda: len(set(psutil.Process().children()) - before) == 2)
    executor.shutdown()
    assert set(psutil.Process().children()) == before
    assert all(isinstance(future.exception(timeout=0), CancelledError) for future in futures)


SEARCH = """
    import sys
    from pathlib import Path
    import numpy as np
    from nases_env.execution.process_worker import process_workers
    from nases_env.execution.pool import WorkerPoolExecutor
    from nases_env.search_spaces import get_search_space
    from tests.execution.faulty import FaultyEvaluator

    evaluator = FaultyEvaluator(folder=sys.argv[1])
    executor = WorkerPoolExecutor(evaluator, process_workers(evaluator, 2, log_dir=Path(sys.argv[1]) / "logs"))
    architecture = get_search_space("nasbench201").sample(np.random.default_rng(0))
    futures = [executor.submit(architecture, seed) for seed in range(2)]
    print(futures[0].result())
"""


def test_workers_do_not_outlive_a_parent_that_is_killed(faulty: FaultyEvaluator) -> None:
    faulty.break_at(0, "sleep")
    faulty.break_at(1, "freeze")
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(SEARCH), faulty.folder]) as search:
        try:
            pids = pids_of(faulty, 0, 1)
            assert not any(is_gone(pid) for pid in pids)
        finally:
            search.send_signal(signal.SIGKILL)
    until(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize(("parent", "status"), [(os.getpid(), -signal.SIGKILL), (10**9, 1)], ids=["later", "before"])
def test_a_worker_finds_out_itself_that_its_parent_is_gone(parent: int, status: int) -> None:
    """As where no system ends it with its parent: by the connection that closes, and at its start by the parent's number."""
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


OWN_MODULE = """
    from nases_env.evaluation import OperatorShareEvaluator
    from nases_env.search_spaces.nasbench201 import NasBench201
    from tests.execution.faulty import FaultyEvaluator

    class OwnSpace(NasBench201):
        name = "own_space"
"""

OWN_SCRIPT = """
    import sys
    from pathlib import Path
    import numpy as np
    import own_module
    from nases_env.errors import InputError
    from nases_env.execution.process_worker import process_workers
    from nases_env.execution.pool import WorkerPoolExecutor
    from nases_env.search_spaces import get_search_space

    folder = Path(sys.argv[1])

    class InTheScript(own_module.FaultyEvaluator):
        pass

    def workers(evaluator):
        return process_workers(evaluator, 2, log_dir=folder)

    for evaluator in (InTheScript("own_module:OwnSpace"), own_module.FaultyEvaluator(folder=open(__file__))):
        try:
            workers(evaluator)
        except InputError as error:
            print(error)

    evaluator = own_module.FaultyEvaluator("own_module:OwnSpace", folder=str(folder))
    executor = WorkerPoolExecutor(evaluator, workers(evaluator))
    architecture = get_search_space("own_module:OwnSpace").sample(np.random.default_rng(0))
    sleeping, other = [executor.submit(architecture, seed) for seed in range(2)]
    print(other.result().valid_accuracy == evaluator.evaluate(architecture, 1).valid_accuracy)
    while not (folder / "0.pid").exists():
        pass
"""


def test_a_script_of_ones_own_needs_no_main_guard_and_no_shutdown(faulty: FaultyEvaluator, tmp_path: Path) -> None:
    """It starts workers as it is read, names a search space of a module beside it, and ends with a child under way."""
    (tmp_path / "own_module.py").write_text(textwrap.dedent(OWN_MODULE))
    (tmp_path / "own_script.py").write_text(textwrap.dedent(OWN_SCRIPT))
    faulty.break_at(0, "sleep")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "own_script.py", faulty.folder]
    script = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert script.stderr == ""
    assert script.returncode == 0
    in_the_script, unpicklable, is_equal = script.stdout.splitlines()
    assert in_the_script == (
        "the evaluator cannot be sent to another process (InTheScript is defined in the script itself); "
        "put what it is made of into a module of its own, or use --executor serial"
    )
    named = r"'(_io\.TextIOWrapper' object|TextIOWrapper' instances)"  # before Python 3.13, and since
    assert re.match(rf"the evaluator cannot be sent to another process \(cannot pickle {named}", unpicklable)
    assert is_equal == "True"
    (pid,) = pids_of(faulty, 0)
    until(lambda: is_gone(pid))


class Vanishing(OperatorShareEvaluator):
    """An evaluator whose class a worker looks for where it is not."""


def test_an_evaluator_that_a_worker_cannot_load_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = type(sys)("elsewhere")
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    monkeypatch.setattr(elsewhere, "Vanishing", Vanishing, raising=False)
    monkeypatch.setattr(Vanishing, "__module__", "elsewhere")
    worker = ProcessWorker(Vanishing("nasbench201", "skip_connect"), environment={}, log_dir=tmp_path)
    with pytest.raises(InputError, match=r"^a worker process cannot load the evaluator \(ModuleNotFoundError.*serial$"):
        worker.evaluate(Task(ARCHITECTURES[0], 0))
    worker.close()


def test_training_in_a_process_gives_what_it_gives_here(supervise: Supervise) -> None:
    evaluator = TrainingEvaluator("nasbench201", "digits", PRESETS["smoke"], device="cpu")
    future = supervise(evaluator, 1).submit(ARCHITECTURES[0], 7)
    here = evaluator.evaluate(ARCHITECTURES[0], 7)
    there = future.result(timeout=SECONDS)
    assert there.status is Status.OK
    assert replace(there, seconds=0.0) == replace(here, seconds=0.0)


@dataclass(frozen=True)
class Placed(OperatorShareEvaluator):
    """Evaluates on a device, with threads."""

    device: str = "auto"
    num_threads: int = 1


def placed(device: str, num_threads: int = 1) -> Placed:
    return Placed("nasbench201", "skip_connect", device, num_threads)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def environments(evaluator: Evaluator, num_workers: int, log_dir: Path, workers_per_gpu: int = 1) -> list[dict[str, str]]:
    workers = process_workers(evaluator, num_workers, workers_per_gpu=workers_per_gpu, log_dir=log_dir)
    return [worker._environment for worker in workers]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("visible", "gpus"), [(None, "01"), ("3,5,7", "35"), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])])
def test_workers_share_out_the_gpus(
    visible: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for device in ("auto", "cuda"):
        seen = [environment["CUDA_VISIBLE_DEVICES"] for environment in environments(placed(device), 3, tmp_path, 2)]
        assert seen == [gpus[0], gpus[1], gpus[0]]
    for evaluator in (placed("cpu"), placed("cuda:1"), OperatorShareEvaluator("nasbench201", "skip_connect")):
        assert environments(evaluator, 3, tmp_path) == [{"OMP_NUM_THREADS": "1"}] * 3
    with pytest.raises(InputError, match=r"^5 workers are more than 2 GPUs take with workers_per_gpu = 2; raise that"):
        environments(placed("auto"), 5, tmp_path, 2)


@pytest.mark.usefixtures("two_gpus")
def test_as_many_workers_as_there_are_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert default_num_workers(placed("auto"), 16, 3) == 6
    assert default_num_workers(placed("auto"), 4, 3) == 4
    assert default_num_workers(placed("cpu"), 16, 3) == 8
    assert default_num_workers(placed("cpu", num_threads=3), 16, 3) == 2
    assert default_num_workers(placed("cpu", num_threads=9), 16, 3) == 1
    assert default_num_workers(OperatorShareEvaluator("nasbench201", "skip_connect"), 1, 1) == 1
    assert environments(placed("cpu", num_threads=3), 1, tmp_path) == [{"OMP_NUM_THREADS": "3"}]


def test_auto_without_a_gpu_maps_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environments(placed("auto"), 1, tmp_path) == [{"OMP_NUM_THREADS": "1"}]
