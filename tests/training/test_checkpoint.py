"""A killed and resumed training has the same result as an uninterrupted one."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nases_env.errors import InputError
from nases_env.evaluation import resolve_preset
from nases_env.search_spaces import EnasMicro
from nases_env.training import Checkpoint, ImageSet, TrainingResult, TrainingSettings, train_classifier
from nases_env.training import checkpoint as checkpoint_module
from nases_env.training.checkpoint import CheckpointFile, State, model_tensors, restore, snapshot
from nases_env.training.trainer import _global_generators
from tests.processes import run_forked
from tests.training.test_trainer import CPU, SmallNet, digits, small_net

QUICK = TrainingSettings(num_epochs=4, num_cycles=1, batch_size=32, crop_padding=1, cutout_length=2)
NUM_IMAGES = 96
BATCHES = 3  # per epoch
ALL_CALLS = 4 * BATCHES + 3  # of the network: the batches, the batch-norm re-estimation and both evaluations
_, CHILD_SETTINGS = resolve_preset("smoke", {"num_epochs": 4, "drop_path_prob": 0.4, "auxiliary_head": True})
SPACE = EnasMicro()


class KilledError(Exception):
    """Raised to interrupt a training without a signal."""


def child() -> nn.Module:
    """Build a small child with drop-path, an auxiliary head and fixed initial weights."""
    architecture = SPACE.sample(np.random.default_rng(3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SPACE.build(architecture, CHILD_SETTINGS, num_classes=10, image_shape=(1, 8, 8))


def dropping_net() -> nn.Module:
    return small_net(dropout=0.5)


def few_digits() -> tuple[ImageSet, ImageSet]:
    return digits(NUM_IMAGES)


def other_images() -> tuple[ImageSet, ImageSet]:
    training, validation = few_digits()
    return dataclasses.replace(training, images=255 - training.images), validation


def other_labels() -> tuple[ImageSet, ImageSet]:
    training, validation = few_digits()
    return dataclasses.replace(training, labels=9 - training.labels), validation


def first_layer(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


class Counter:
    """Counts the calls of the first layer of a model, and calls ``act`` before call number ``act_at``, counted from 1."""

    def __init__(self, model: nn.Module, act_at: int | None = None, act: Callable[[], None] | None = None) -> None:
        self.calls = 0
        self.act_at = act_at
        self.act = act
        first_layer(model).register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.calls += 1
        if self.act is not None and self.calls == self.act_at:
            self.act()


def kill() -> None:
    raise KilledError


def train(model: nn.Module, checkpoint: Checkpoint | None, **changes: Any) -> TrainingResult:
    """Train ``model`` on the same digits with the same arguments, except for ``changes``."""
    arguments = {"settings": QUICK if isinstance(model, SmallNet) else CHILD_SETTINGS, "seed": 7, "flip": False, **changes}
    training, validation = arguments.pop("sets", few_digits)()
    return train_classifier(model, training, validation, device=CPU, checkpoint=checkpoint, **arguments)


@lru_cache
def uninterrupted(make: Callable[[], nn.Module]) -> tuple[TrainingResult, dict[str, torch.Tensor]]:
    model = make()
    result = train(model, None)
    return dataclasses.replace(result, seconds=0.0), model.state_dict()


def assert_equals_uninterrupted(make: Callable[[], nn.Module], model: nn.Module, result: TrainingResult) -> None:
    expected, tensors = uninterrupted(make)
    assert dataclasses.replace(result, seconds=0.0) == expected
    ours = model.state_dict()
    assert ours.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].stride() == tensor.stride(), name


def kill_at_call(call: int, checkpoint: Checkpoint, make: Callable[[], nn.Module] = dropping_net) -> int:
    """Kill the training at call number ``call`` of the network; return the number of calls before it."""
    model = make()
    counter = Counter(model, call, kill)
    with pytest.raises(KilledError):
        train(model, checkpoint)
    return counter.calls - 1


def resume_and_check(checkpoint: Checkpoint, make: Callable[[], nn.Module] = dropping_net) -> int:
    """Train to the end, check that the result is that of an uninterrupted run, and return the number of calls."""
    model = make()
    counter = Counter(model)
    assert_equals_uninterrupted(make, model, train(model, checkpoint))
    assert not checkpoint.path.exists()
    return counter.calls


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit the size of files to 1,000 bytes; writing more fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@settings(max_examples=20)
@given(st.lists(st.integers(1, ALL_CALLS), max_size=4))
def test_resume_after_kills_at_any_call(calls: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "state", 0)
        epochs = 0
        for call in calls:
            left = ALL_CALLS - epochs * BATCHES
            epochs += kill_at_call(min(call, left), checkpoint) // BATCHES
            epochs = min(epochs, 4)
        assert resume_and_check(checkpoint) == ALL_CALLS - epochs * BATCHES
        assert not os.listdir(folder)


def test_resume_of_a_child_does_not_depend_on_the_global_generator(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new folder" / "state", 0)
    with torch.random.fork_rng():
        for global_seed, call in enumerate((2 * BATCHES + 2, BATCHES + 1)):
            torch.manual_seed(global_seed)
            kill_at_call(call, checkpoint, child)
        assert resume_and_check(checkpoint, child) == BATCHES + 3


def kill_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(path: str, call: int | None) -> None:
    """Send SIGKILL to this process at a call of the network or, if None, while the second checkpoint is written."""
    torch.set_num_threads(1)
    model = dropping_net()
    Counter(model, call, kill_process)
    if call is None:
        replace = os.replace
        written: list[Any] = []

        def replace_or_kill(source: Any, target: Any) -> None:
            if written:
                kill_process()
            written.append(target)
            replace(source, target)

        os.replace = replace_or_kill  # type: ignore[assignment]
    train(model, Checkpoint(Path(path), 0))


def fork_until_killed(path: str) -> None:
    """Train in two successive forks of this process: one is killed in an epoch, the other while writing a checkpoint."""
    for call in (BATCHES + 2, None):
        pid = os.fork()
        if pid == 0:
            try:
                train_until_killed(path, call)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        assert os.path.exists(path)


def test_resume_after_sigkill_in_training_and_in_writing(tmp_path: Path) -> None:
    path = tmp_path / "state"
    other = tmp_path / ".state.of_another.xxxxxxxx.partial"
    other.touch()
    process = run_forked(partial(fork_until_killed, str(path)), folder=tmp_path)
    assert process.returncode == 0, process.stderr
    leftovers = [entry for entry in tmp_path.iterdir() if entry not in (path, other)]
    assert [entry.name.startswith(".state.") for entry in leftovers] == [True]
    assert resume_and_check(Checkpoint(path, 0)) == ALL_CALLS - 2 * BATCHES
    assert list(tmp_path.iterdir()) == [other]


def test_last_epoch_is_not_repeated_after_a_kill_in_the_evaluation(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", 0)
    kill_at_call(ALL_CALLS, checkpoint)
    assert kill_at_call(2, checkpoint) == 1
    assert resume_and_check(checkpoint) == 3


def test_interval_inf_writes_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", math.inf)
    kill_at_call(ALL_CALLS, checkpoint)
    assert not list(tmp_path.iterdir())
    assert resume_and_check(checkpoint) == ALL_CALLS


def test_interval_starts_at_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake clock a batch takes 10 seconds and an epoch 30, so 50 seconds pass within two epochs."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(checkpoint_module, "time", clock)
    written = []
    save = CheckpointFile.save

    def recorded_save(file: CheckpointFile, state: State) -> None:
        save(file, state)
        written.append(len(state.values["curve"]))

    monkeypatch.setattr(CheckpointFile, "save", recorded_save)

    def tick(module: nn.Module, inputs: Any) -> None:
        clock.now += 10

    model = dropping_net()
    first_layer(model).register_forward_pre_hook(tick)
    train(model, Checkpoint(tmp_path / "state", 50), settings=dataclasses.replace(QUICK, num_epochs=7))
    assert written == [2, 4, 6]


@pytest.mark.parametrize("interval", [-1.0, math.nan])
def test_invalid_interval_is_rejected(interval: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checkpoint interval must be 0 or a positive number"):
        Checkpoint(tmp_path / "state", interval)


def other_weights() -> nn.Module:
    model = dropping_net()
    with torch.no_grad():
        first_layer(model).weight[0, 0, 0, 0] += 1e-3
    return model


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (dropping_net, {"seed": 8}),
        (dropping_net, {"settings": dataclasses.replace(QUICK, weight_decay=0.1)}),
        (dropping_net, {"settings": dataclasses.replace(QUICK, num_epochs=5)}),
        (dropping_net, {"flip": True}),
        (dropping_net, {"sets": lambda: digits(97)}),
        (dropping_net, {"sets": other_images}),
        (dropping_net, {"sets": other_labels}),
        (other_weights, {}),
        (lambda: small_net(filters=9), {}),
        (dropping_net, {"identity": "another"}),
    ],
)
def test_checkpoint_of_a_different_training_is_ignored(
    make: Callable[[], nn.Module], changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    kill_at_call(2 * BATCHES + 1, Checkpoint(path, 0))
    changes = dict(changes)
    model, expected = make(), make()
    counter = Counter(model)
    checkpoint = Checkpoint(path, math.inf, changes.pop("identity", ""))
    result = train(model, checkpoint, **changes)
    assert dataclasses.replace(result, seconds=0.0) == dataclasses.replace(train(expected, None, **changes), seconds=0.0)
    assert counter.calls == changes.get("settings", QUICK).num_epochs * BATCHES + 3
    assert f"{path} belongs to a different training run" in caplog.text


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: whole[:7], lambda whole: b"", lambda whole: b"{" * 999]
)
def test_damaged_checkpoint_is_a_warning_and_restarts(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "state", 0)
    kill_at_call(2 * BATCHES + 1, checkpoint)
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))
    assert resume_and_check(checkpoint) == ALL_CALLS
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert f"{checkpoint.path} is damaged" in warnings[0]
    assert "\n" not in warnings[0]


def test_full_disk_is_an_input_error_and_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", 0)
    kill_at_call(BATCHES + 1, checkpoint)
    before = checkpoint.path.read_bytes()
    with full_disk(), pytest.raises(InputError, match=r"cannot write .*state: .*; choose a different directory") as caught:
        train(dropping_net(), checkpoint)
    assert "\n" not in str(caught.value)
    assert checkpoint.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [checkpoint.path]
    assert resume_and_check(checkpoint) == ALL_CALLS - BATCHES


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), None])
def test_checkpoint_is_removed_if_the_child_fails(error: Exception | None, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", 0)
    kill_at_call(BATCHES + 1, checkpoint)
    model = dropping_net()

    def fail() -> None:
        if error is not None:
            raise error
        with torch.no_grad():
            first_layer(model).weight.fill_(math.nan)

    Counter(model, BATCHES + 1, fail)
    result = train(model, checkpoint)
    assert result.status == ("diverged" if error is None else "out_of_memory")
    assert result.num_epochs == 2
    assert result.curve == uninterrupted(dropping_net)[0].curve[:2]
    assert not list(tmp_path.iterdir())


def test_seconds_include_interrupted_runs(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", 0)
    kill_at_call(BATCHES + 1, checkpoint)
    with safetensors.safe_open(checkpoint.path, framework="pt") as opened:
        description = json.loads(opened.metadata()["checkpoint"])
    file = CheckpointFile(checkpoint, description["fingerprint"])
    state = file.load()
    assert state is not None
    assert 0 < state.values["seconds"] < 1000
    file.save(State({**state.values, "seconds": 1000.0}, state.tensors))
    kill_at_call(BATCHES + 1, checkpoint)
    assert 1000 < train(dropping_net(), checkpoint).seconds < 2000


def test_restore_preserves_memory_layout_and_generators() -> None:
    def started() -> tuple[nn.Module, torch.optim.SGD, torch.Generator]:
        model = child().to(memory_format=torch.channels_last)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True), torch.Generator()

    def layouts(model: nn.Module, optimizer: torch.optim.SGD) -> list[tuple[int, ...]]:
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        return [tensor.stride() for tensor in (*model_tensors(model).values(), *momenta)]

    (model, optimizer, generator), (fresh_model, fresh_optimizer, fresh_generator) = started(), started()
    model(torch.ones(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    torch.randn(3, generator=generator)
    tensors = snapshot(model, optimizer, {"own": generator})
    restore(tensors, fresh_model, fresh_optimizer, {"own": fresh_generator})
    assert layouts(fresh_model, fresh_optimizer) == layouts(model, optimizer)
    assert any(name.startswith("momentum/") for name in tensors)
    assert torch.equal(torch.randn(9, generator=fresh_generator), torch.randn(9, generator=generator))


def test_restore_of_non_persistent_and_shared_tensors(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.tied = self.linear
            self.hidden = nn.Buffer(torch.full((2, 3), value).t(), persistent=False)
            self.seen = nn.Buffer(torch.full((2, 3), value))
            self.register_buffer("none", None)

    source, target = Tied(1.0), Tied(2.0)
    checkpoint = CheckpointFile(Checkpoint(tmp_path / "state", 0), "")
    checkpoint.save(State({}, snapshot(source, torch.optim.SGD(source.parameters()), {})))
    state = checkpoint.load()
    assert state is not None
    restore(state.tensors, target, torch.optim.SGD(target.parameters()), {})
    for ours, theirs in (
        (source.hidden, target.hidden),
        (source.seen, target.seen),
        (source.linear.weight, target.linear.weight),
        (source.linear.bias, target.linear.bias),
    ):
        assert torch.equal(ours, theirs)


NAMES = st.text(max_size=8)
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES
VALUES = st.dictionaries(
    NAMES, st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner))
)
TENSORS = st.dictionaries(
    NAMES,
    st.builds(
        lambda shape, dtype, seed: (
            torch.randint(0, 256, (*shape, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
            .view(dtype)
            .clone()
        ),
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from([torch.uint8, torch.int64, torch.float32, torch.bfloat16, torch.float64]),
        st.integers(0, 99),
    ),
    max_size=4,
)


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        name: (tensor.dtype, tensor.shape, tensor.flatten().view(torch.uint8).tolist()) for name, tensor in tensors.items()
    }


@settings(max_examples=30)
@given(VALUES, TENSORS)
def test_save_and_load_round_trip(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        CheckpointFile(Checkpoint(path, 0), "ours").save(State(values, tensors))
        loaded = CheckpointFile(Checkpoint(path, 0), "ours").load()
        assert loaded is not None
        assert json.dumps(loaded.values, sort_keys=True) == json.dumps(values, sort_keys=True)
        assert bits(loaded.tensors) == bits(tensors)
        assert CheckpointFile(Checkpoint(path, 0), "theirs").load() is None


@settings(max_examples=150)
@given(st.data())
def test_no_damaged_file_is_loaded(data: st.DataObject) -> None:
    state = State({"curve": [0.25]}, {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)})
    with tempfile.TemporaryDirectory() as folder:
        file = CheckpointFile(Checkpoint(Path(folder) / "state", 0), "ours")
        file.save(state)
        content = bytearray(file.path.read_bytes())
        if data.draw(st.booleans()):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        else:
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        file.path.write_bytes(content)
        loaded = file.load()
        assert loaded is None or (loaded.values == state.values and bits(loaded.tensors) == bits(state.tensors))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_generator_is_restored() -> None:
    device = torch.device("cuda")
    model = dropping_net().to(device)
    optimizer = torch.optim.SGD(model.parameters())
    tensors = snapshot(model, optimizer, _global_generators(device))
    expected = torch.rand(100, device=device)
    restore(tensors, model, optimizer, _global_generators(device))
    assert torch.equal(torch.rand(100, device=device), expected)
    assert first_layer(model).weight.is_cuda
