"""Ray workers on clusters of one and two nodes, and faults of evaluations, nodes and the head node."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, Evaluation, Evaluator, OperatorShareEvaluator, Status, TrainingEvaluator
from nases_env.execution import SerialExecutor, Task
from nases_env.execution.attempts import AttemptError
from nases_env.execution.pool import WorkerPoolExecutor
from nases_env.search_spaces import Architecture
from tests.execution.faulty import FaultyEvaluator, children
from tests.processes import run_forked

ray: Any = pytest.importorskip("ray")
ray_cluster: Any = importlib.import_module("nases_env.execution.ray_cluster")  # requires Ray
ray_worker: Any = importlib.import_module("nases_env.execution.ray_worker")
ray_worker_main: Any = importlib.import_module("nases_env.execution.ray_worker_main")

ROOT = Path(__file__).parents[2]
SECONDS = 120.0  # timeout of a test that hangs

pytestmark = [
    # Ray does not close the pipes and sockets of the processes that it starts.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("collected_garbage"),
    # Ray announces that one of its defaults will change.
    pytest.mark.filterwarnings("ignore:Tip.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning"),
]


CHILDREN = children(24)


def without_origin(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation without the fields that depend on the process and the time."""
    return dataclasses.replace(evaluation, seconds=0.0, device="")


def make_workers(evaluator: Evaluator, log_dir: Path, num_workers: int = 1, **options: Any) -> list[Any]:
    workers: list[Any] = ray_worker.ray_workers(evaluator, num_workers, log_dir=log_dir, **{"address": None, **options})
    return workers


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set a temporary home folder for Ray, and one token for all clusters, so that Ray does not write one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RAY_AUTH_MODE", raising=False)  # set by Ray
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        yield
    gc.collect()  # collects objects of Ray while its warnings are ignored


def test_unreachable_address_is_an_input_error(tmp_path: Path) -> None:  # must run before this process starts a cluster
    assert not ray.is_initialized()
    for address in ("127.0.0.1:1", "nonsense", "ray://127.0.0.1:10001"):
        with pytest.raises(InputError, match=address) as caught:
            make_workers(FaultyEvaluator(), tmp_path, address=address)
        assert "\n" not in str(caught.value)
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def cluster(home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a cluster on this machine with a worker that is closed at the end, which shuts the cluster down."""
    called: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    assert not ray.is_initialized()
    (first,) = make_workers(OperatorShareEvaluator("nasbench201", "skip_connect"), tmp_path_factory.mktemp("logs"))
    os.kill(os.getpid(), signal.SIGTERM)
    assert called == [signal.SIGTERM]  # Ray replaces the handler, and it was restored
    signal.signal(signal.SIGTERM, before)
    yield
    assert ray.is_initialized()
    folder = Path(ray_cluster.connection._folder.name)
    first.close()
    first.close()
    assert not ray.is_initialized()
    assert not folder.exists()


def test_results_equal_those_of_the_serial_executor(cluster: None, tmp_path: Path) -> None:
    evaluator = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu")
    evaluator.prepare()
    here = SerialExecutor(evaluator)
    executor = WorkerPoolExecutor(evaluator, make_workers(evaluator, tmp_path, 2))
    architectures = children(3, "enas_micro")
    futures = [executor.submit(child, seed) for seed, child in enumerate(architectures)]
    for seed, (child, future) in enumerate(zip(architectures, futures, strict=True)):
        evaluation = future.result(timeout=SECONDS)
        assert evaluation.status is Status.OK
        assert without_origin(evaluation) == without_origin(here.submit(child, seed).result())
    executor.shutdown()
    assert list(tmp_path.iterdir()) == []  # a child without output has no log
    assert ray.is_initialized()  # the worker of the fixture is still open


def test_own_cluster_listens_on_the_loopback_interface_only_and_has_private_files(cluster: None) -> None:
    process = psutil.Process()
    processes = [process, *process.children(recursive=True)]
    listening = [
        (" ".join(each.cmdline()), connection.laddr.ip)
        for each in processes
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3  # of the head node, the raylet and the workers
    assert {address.removeprefix("::ffff:") for _, address in listening} == {"127.0.0.1"}
    assert not any("dashboard.py" in command for command, _ in listening)
    folder = Path(ray_cluster.connection._folder.name)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ray").is_dir()
    assert any(str(folder) in word for each in processes for word in each.cmdline())


@dataclasses.dataclass(frozen=True)
class SharingEvaluator(OperatorShareEvaluator):
    """Returns the pid, the received data, the number of threads and the working directory as ``device``."""

    search_space: str = "nasbench201"
    operator: str = "skip_connect"

    def export_data(self) -> Any:
        return np.arange(1000)

    def import_data(self, shared: Any) -> None:
        RECEIVED.append(int(shared.sum()))

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        report = f"{os.getpid()} {RECEIVED} {os.environ['OMP_NUM_THREADS']} {os.getcwd()}"
        return dataclasses.replace(super().evaluate(architecture, seed), device=report)


RECEIVED: list[int] = []


def test_data_is_received_once_per_process(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (worker,) = make_workers(SharingEvaluator(), tmp_path)
    reports = [worker.evaluate(Task(CHILDREN[seed], seed)).device.split(" ", 1) for seed in range(4)]
    assert {rest for _, rest in reports} == {f"[499500] 1 {tmp_path}"}
    assert len({pid for pid, _ in reports}) < 4
    # Lost data is sent again.
    lost = worker._evaluator.data_reference()
    worker._evaluator.forget(lost)
    assert worker._evaluator.data_reference() != lost
    assert worker.evaluate(Task(CHILDREN[0], 0)).status is Status.OK
    worker.close()


def test_failed_attempt_has_a_reason_and_the_next_attempt_works(cluster: None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    (worker,) = make_workers(evaluator, tmp_path / "logs", time_limit=2.0)
    reasons: dict[str, AttemptError] = {}
    for seed, fault in enumerate(("raise", "kill", "crash", "sleep", "freeze")):
        evaluator.inject(seed, fault)
        with pytest.raises(AttemptError) as caught:
            worker.evaluate(Task(CHILDREN[seed], seed))
        reasons[fault] = caught.value
        assert without_origin(worker.evaluate(Task(CHILDREN[seed], seed))) == without_origin(
            OperatorShareEvaluator.evaluate(evaluator, CHILDREN[seed], seed)
        )
    log = tmp_path / "logs" / f"{Task(CHILDREN[0], 0).name}.log"
    assert reasons["raise"].reason == f"raised ValueError: no such thing as this; see {log}"
    assert "no such thing" in reasons["raise"].log
    assert "Traceback" in log.read_text()
    assert reasons["kill"].reason == "its process died"
    # The log was fetched from the node after the process had died.
    assert reasons["crash"].reason.startswith("its process died; see ")
    assert "SIGSEGV" in (tmp_path / "logs" / f"{Task(CHILDREN[2], 2).name}.log").read_text()
    for fault in ("sleep", "freeze"):
        assert (reasons[fault].reason, reasons[fault].status) == ("took longer than 2 s", Status.TIMED_OUT)
    worker.close()


def test_log_that_cannot_be_fetched_is_mentioned(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, "crash")
    (worker,) = make_workers(evaluator, tmp_path / "logs")
    monkeypatch.setattr(ray_worker, "_LOG_SECONDS", 0.0)
    with pytest.raises(AttemptError, match=r"^its process died; its log could not be fetched$"):
        worker.evaluate(Task(CHILDREN[0], 0))
    worker.close()


def test_input_error_is_not_retried(cluster: None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, "input_error", "input_error")
    executor = WorkerPoolExecutor(evaluator, make_workers(evaluator, tmp_path))
    with pytest.raises(InputError, match=r"^fix this first$"):
        executor.submit(CHILDREN[0], 0).result(timeout=SECONDS)
    executor.shutdown()
    assert len(list(tmp_path.glob("*.input_error"))) == 1


def test_output_is_written_to_the_log(cluster: None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, "write")
    (worker,) = make_workers(evaluator, tmp_path / "logs")
    assert worker.evaluate(Task(CHILDREN[0], 0)).status is Status.OK
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name == f"{Task(CHILDREN[0], 0).name}.log"
    for written in ("written by print", "written by C", "written by logging"):
        assert written in log.read_text()
    worker.close()


def test_shutdown_stops_a_running_child_and_removes_its_log(cluster: None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    evaluator.inject(0, "sleep")
    executor = WorkerPoolExecutor(evaluator, make_workers(evaluator, tmp_path / "logs"))
    future = executor.submit(CHILDREN[0], 0)
    pid_file = tmp_path / "0.pid"
    wait_until(pid_file.exists)
    log = Path("/proc", pid_file.read_text(), "fd/1").readlink()
    assert log.name.startswith("nases-")
    executor.shutdown()
    assert future.done()
    wait_until(lambda: not Path("/proc", pid_file.read_text()).exists())
    assert not log.exists()


def test_time_limit_does_not_include_the_time_in_the_queue(cluster: None, tmp_path: Path) -> None:
    evaluator = FaultyEvaluator(folder=str(tmp_path))
    num_cpus = int(ray.cluster_resources()["CPU"])
    for seed in range(num_cpus):
        evaluator.inject(seed, "sleep")
    first = WorkerPoolExecutor(evaluator, make_workers(evaluator, tmp_path, num_cpus, time_limit=4.0), max_retries=0)
    timed_out = [first.submit(CHILDREN[seed], seed) for seed in range(num_cpus)]
    for seed in range(num_cpus):
        wait_until((tmp_path / f"{seed}.pid").exists)
    (second,) = make_workers(evaluator, tmp_path, time_limit=3.0)  # is queued for longer than that
    assert second.evaluate(Task(CHILDREN[20], 20)).status is Status.OK
    assert [future.result(timeout=SECONDS).status for future in timed_out] == [Status.TIMED_OUT] * num_cpus
    first.shutdown()
    second.close()


def test_node_without_memory_is_not_a_property_of_the_child() -> None:
    """Other programs use the memory too. A real error would require filling the memory of the machine."""
    failure = ray_worker._failure(ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory"))
    assert (failure.status, failure.reason) == (Status.FAILED, "killed by Ray because its node ran out of memory")


def test_invalid_arguments_are_input_errors(cluster: None, tmp_path: Path) -> None:
    demanding = TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device="cpu", num_threads=1000)
    on_gpu = dataclasses.replace(demanding, device="cuda")
    unpicklable = FaultyEvaluator(folder=str(tmp_path))
    object.__setattr__(unpicklable, "lock", socket.socket())
    invalid: list[tuple[Evaluator, dict[str, Any], str]] = [
        (demanding, {}, "no node of the Ray cluster has the 1000 CPUs \\(num_threads\\)"),
        (on_gpu, {}, "no node of the Ray cluster has the 1000 CPUs \\(num_threads\\) and a GPU that a child requires"),
        (unpicklable, {}, "cannot be sent to a Ray cluster"),
        (FaultyEvaluator(), {"address": "127.0.0.1:1"}, "is already connected to the Ray cluster at "),
    ]
    for evaluator, options, message in invalid:
        with pytest.raises(InputError, match=message) as caught:
            make_workers(evaluator, tmp_path, **options)
        assert "\n" not in str(caught.value)
    unpicklable.__dict__["lock"].close()
    assert ray.is_initialized()


def test_task_with_a_gpu_that_pytorch_does_not_find_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_worker_main.ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kind, reason = ray_worker_main._outcome(b"", None, b"")
    assert kind == "input_error"
    assert reason.startswith(f"PyTorch {torch.__version__} finds no GPU on the node ")


def test_evaluator_that_no_node_can_import_is_an_input_error(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "custom_module.py").write_text(
        "from tests.execution.faulty import FaultyEvaluator\nclass CustomEvaluator(FaultyEvaluator): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    custom = importlib.import_module("custom_module").CustomEvaluator()
    (worker,) = make_workers(custom, tmp_path / "logs")
    assert worker.evaluate(Task(CHILDREN[0], 0)).status is Status.OK  # the import path was sent with the task
    worker.close()
    monkeypatch.setattr(type(custom), "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", sys.modules["custom_module"])
    (worker,) = make_workers(custom, tmp_path / "logs")
    with pytest.raises(InputError, match=r"a Ray worker cannot load the evaluator .*No module named 'nowhere'"):
        worker.evaluate(Task(CHILDREN[0], 0))
    worker.close()


def test_missing_ray_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nases_env.execution.ray_worker")
    monkeypatch.delitem(sys.modules, "nases_env.execution.ray_cluster")
    with pytest.raises(InputError, match=r"pip install 'nases-env\[ray\]'"):
        importlib.import_module("nases_env.execution.ray_worker")


@dataclasses.dataclass(frozen=True)
class NodeEvaluator(OperatorShareEvaluator):
    """Takes 0.2 s and returns the id of its node as ``device``."""

    search_space: str = "nasbench201"
    operator: str = "skip_connect"

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        time.sleep(0.2)
        return dataclasses.replace(super().evaluate(architecture, seed), device=ray.get_runtime_context().get_node_id())


def on_two_nodes(log_dir: Path) -> None:
    """Kill one node, then the head node. Needs a separate process, because Ray ends a process that has lost its cluster."""
    # Instead of 3000 ms and five failed checks, so that the cluster soon knows that a node is dead.
    config = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}
    nodes: Any = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": config}
    )
    second, address = nodes.add_node(num_cpus=1), nodes.address
    evaluator = NodeEvaluator()
    executor = WorkerPoolExecutor(evaluator, make_workers(evaluator, log_dir, 2, address=address))
    futures = [executor.submit(child, 0) for child in CHILDREN]
    wait_until(lambda: len({future.result().device for future in futures if future.done()}) == 2)
    nodes.remove_node(second, allow_graceful=False)
    evaluations = [future.result(timeout=SECONDS) for future in futures]
    assert len({evaluation.device for evaluation in evaluations}) == 2
    here = SerialExecutor(OperatorShareEvaluator("nasbench201", "skip_connect"))
    assert [without_origin(evaluation) for evaluation in evaluations] == [
        without_origin(here.submit(child, 0).result()) for child in CHILDREN
    ]
    executor.shutdown()
    assert not ray.is_initialized()

    ray.init(address, log_to_driver=False)  # the cluster was disconnected, not shut down
    ray_cluster._LOST_SECONDS = 2.0
    faulty = FaultyEvaluator(folder=str(log_dir))
    faulty.inject(0, "sleep")
    executor = WorkerPoolExecutor(faulty, make_workers(faulty, log_dir))
    future = executor.submit(CHILDREN[0], 0)
    wait_until((log_dir / "0.pid").exists)
    nodes.head_node.kill_gcs_server(check_alive=False)
    error = future.exception(timeout=SECONDS)
    assert isinstance(error, InputError)
    hint = "restart it, then start again, or resume the search with --resume"
    assert str(error) == f"the Ray cluster at {address} is unreachable; {hint}"
    executor.shutdown()
    assert ray.is_initialized()  # it was connected before
    ray.shutdown()
    nodes.shutdown()


def test_children_of_a_dead_node_are_retried(tmp_path: Path) -> None:
    done = run_forked(partial(on_two_nodes, tmp_path), folder=ROOT)
    assert done.returncode == 0, done.stderr


SCRIPT = """
    from dataclasses import dataclass, replace
    import sys
    from pathlib import Path
    from nases_env.evaluation import OperatorShareEvaluator
    from nases_env.execution.executor import Task
    from nases_env.execution.ray_worker import ray_workers
    from nases_env.search_spaces import get_search_space
    import numpy as np, ray

    class CustomEvaluator(OperatorShareEvaluator):
        def evaluate(self, architecture, seed):
            return replace(super().evaluate(architecture, seed), device="custom")

    if __name__ == "__main__":
        evaluator = CustomEvaluator("nasbench201", "skip_connect")
        worker, = ray_workers(evaluator, 1, address=sys.argv[1], log_dir=Path("logs"))
        print(worker.evaluate(Task(get_search_space("nasbench201").sample(np.random.default_rng(0)), 0)).device)
        worker.close()
        assert not ray.is_initialized()
"""


def test_evaluator_can_be_defined_in_the_script(cluster: None, tmp_path: Path) -> None:
    """The script joins the cluster of the other tests, which saves the start of another one."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), ray_cluster._CLUSTER_VARIABLE: "0", "RAY_AUTH_MODE": "token"}
    done = subprocess.run(
        [sys.executable, "script.py", ray_cluster._gcs_address()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.stdout.splitlines() == ["custom"], done.stderr


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
