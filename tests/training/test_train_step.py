from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError, FakeTensorMode

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings
from nases_env.optimizers import SGD
from nases_env.search_spaces import get_search_space
from nases_env.training import ImageSet, TrainingSettings, train_classifier
from nases_env.training.augmentation import ChannelStatistics, channel_statistics, draw_augmentation
from nases_env.training.train_step import GraphedStep, TrainingStep, side_stream
from tests.training.test_trainer import CPU, SmallNet, digits, random_set, small_net

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


SIZES = {
    "enas_micro": NetworkSettings(cells_per_stage=1, num_filters=4, drop_path_prob=0.4, auxiliary_head=True),
    "nasbench201": NetworkSettings(cells_per_stage=1, num_filters=4),
}


def network(space: str, settings: NetworkSettings, image_shape: tuple[int, int, int], num_classes: int) -> torch.nn.Module:
    search_space = get_search_space(space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        architecture = search_space.sample(np.random.default_rng(0))
        return search_space.build(architecture, settings, num_classes=num_classes, image_shape=image_shape)


def make_step(model: torch.nn.Module, images: ImageSet, settings: TrainingSettings, device: torch.device) -> TrainingStep:
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainingStep(
        model.train(),
        images.images.to(device),
        images.labels.to(device),
        channel_statistics(images.images).to(device),
        settings,
        batch_size=8,
        crop_padding=1,
    )


def begin(step: TrainingStep, num_images: int) -> None:
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(num_images, generator=generator)
    params = draw_augmentation(num_images, (8, 8), crop_padding=1, flip=True, generator=generator)
    step.begin_epoch(order, params, [0.05, 0.04, 0.03, 0.02], [0.0, 0.25, 0.5, 0.75])


def fake_step(make_model: Callable[[], torch.nn.Module], device: torch.device = CPU) -> None:
    """Run two steps on fake tensors, which raise an error if their value is read, or if tensors are on several devices."""
    with FakeTensorMode():
        with device:
            model = make_model()
            statistics = ChannelStatistics(torch.zeros(3), torch.ones(3))
            images, labels = torch.zeros(32, 3, 8, 8, dtype=torch.uint8), torch.zeros(32, dtype=torch.int64)
        settings = TrainingSettings(cutout_length=3)
        step = TrainingStep(model.train(), images, labels, statistics, settings, batch_size=8, crop_padding=1)
        begin(step, 32)
        step()
        step()


@pytest.mark.parametrize("space", SIZES)
def test_step_reads_no_values(space: str) -> None:
    """Reading a value would synchronize with the GPU and prevent the capture as a CUDA graph."""
    fake_step(lambda: network(space, SIZES[space], (3, 8, 8), 3))


@pytest.mark.parametrize("space", SIZES)
def test_step_keeps_its_tensors_on_the_gpu(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors need no GPU, but the backward pass and the optimizer are kernels of CUDA."""
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    monkeypatch.setattr(SGD, "step", lambda optimizer: None)
    fake_step(lambda: network(space, SIZES[space], (3, 8, 8), 3), torch.device("cuda"))


def test_network_with_a_tensor_on_the_cpu_is_detected() -> None:
    class Mixed(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * torch.ones(3, device="cpu")

    with pytest.raises(FakeTensorDeviceMismatchError):
        fake_step(lambda: Mixed(channels=3, classes=3), torch.device("cuda"))


def test_network_that_reads_a_value_is_detected() -> None:
    class ValueReader(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return logits * 2 if bool(logits.sum() > 0) else logits

    with pytest.raises(DataDependentOutputException):
        fake_step(lambda: ValueReader(channels=3, classes=3))


def test_step_reads_its_data_from_fixed_tensors() -> None:
    """A captured step replays memory addresses, not Python values."""
    images = random_set(32)
    models = [small_net(channels=3, classes=3) for _ in range(2)]
    steps = [make_step(model, images, TrainingSettings(cutout_length=3), CPU) for model in models]
    for step in steps:
        begin(step, 32)
    addresses = {name: value.data_ptr() for name, value in vars(steps[0]).items() if isinstance(value, torch.Tensor)}
    for _ in range(4):
        steps[0]()
    assert {name: value.data_ptr() for name, value in vars(steps[0]).items() if isinstance(value, torch.Tensor)} == addresses
    # The same batches, selected by setting the index.
    for batch in (0, 1, 2, 3):
        steps[1]._index.fill_(batch)
        steps[1]()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert steps[0].num_correct == steps[1].num_correct
    assert torch.equal(steps[0].loss_sum, steps[1].loss_sum)


def test_loss_is_finite_detects_nan() -> None:
    step = make_step(small_net(channels=3, classes=3), random_set(32), TrainingSettings(), CPU)
    begin(step, 32)
    assert step.loss_is_finite()
    step.loss_sum.fill_(float("nan"))
    assert not step.loss_is_finite()


def test_side_stream_has_no_effect_on_a_cpu() -> None:
    with side_stream(CPU):
        assert torch.ones(1).item() == 1


@needs_gpu
@pytest.mark.parametrize("drop_path_prob", [0.0, 0.4])
def test_graphed_and_eager_training_agree(drop_path_prob: float) -> None:
    settings = NetworkSettings(cells_per_stage=1, num_filters=8, drop_path_prob=drop_path_prob)
    training, validation = digits(1200)
    curves = []
    for cuda_graphs in (False, True):
        result = train_classifier(
            network("enas_micro", settings, (1, 8, 8), 10),
            training,
            validation,
            TrainingSettings(num_epochs=2, num_cycles=1, batch_size=32, cuda_graphs=cuda_graphs),
            seed=0,
            device=torch.device("cuda"),
            flip=False,
        )
        assert result.status == "ok"
        curves.append([record.train_loss for record in result.curve])
    assert curves[0] == pytest.approx(curves[1], rel=0.05)  # bfloat16 and nondeterministic summation


@needs_gpu
def test_graphed_step_trains_on_the_current_batch() -> None:
    device = torch.device("cuda")
    images = random_set(32)
    losses = []
    for graphed in (False, True):
        with side_stream(device):
            step = make_step(small_net(channels=3, classes=3), images, TrainingSettings(precision="float32"), device)
            run = GraphedStep(step) if graphed else step
            for _ in range(3):
                begin(step, 32)
                for _ in range(step.num_batches):
                    run()
            losses.append(step.loss_sum.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


CAPTURED = "CUDA error: operation failed due to a previous error during capture"


@pytest.mark.parametrize(
    ("errors", "expected", "message"),
    [
        (["CUDA error: out of memory"], torch.AcceleratorError, "out of memory"),
        (["CUDA error: out of memory", CAPTURED], torch.AcceleratorError, "out of memory"),
        (["CUDA error: unspecified launch failure"] * 2, torch.AcceleratorError, "unspecified launch failure"),
        (["CUDA error: operation not permitted when stream is capturing"], InputError, "set cuda_graphs to False"),
        (["a library failed", CAPTURED], InputError, "set cuda_graphs to False"),
    ],
)
def test_only_an_error_of_the_capture_is_an_input_error(
    errors: list[str], expected: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any call of CUDA may fail, also the one that ends the capture, because the GPU is full or has failed."""

    @contextlib.contextmanager
    def graph(*args: object, **options: object) -> Iterator[None]:
        try:
            yield
            raise torch.AcceleratorError(errors[0])
        finally:
            if len(errors) == 2:
                raise torch.AcceleratorError(errors[1])

    monkeypatch.setattr("torch.cuda.CUDAGraph", object)
    monkeypatch.setattr("torch.cuda.current_stream", lambda: None)
    monkeypatch.setattr("torch.cuda.graph", graph)
    step = make_step(small_net(channels=3, classes=3), random_set(32), TrainingSettings(), CPU)
    begin(step, 32)
    run = GraphedStep(step)
    for _ in range(3):
        run()
    with pytest.raises(expected, match=message):
        run()


@needs_gpu
def test_network_that_cannot_be_captured_is_an_input_error() -> None:
    class ValueReader(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return logits * 2 if bool(logits.sum() > 0) else logits

    def run(cuda_graphs: bool) -> str:
        settings = TrainingSettings(num_epochs=1, num_cycles=1, batch_size=16, cuda_graphs=cuda_graphs)
        return train_classifier(ValueReader(), *digits(), settings, seed=0, device=torch.device("cuda"), flip=False).status

    with pytest.raises(InputError, match="set cuda_graphs to False"):
        run(True)
    assert run(False) == "ok"
