from __future__ import annotations

import copy
import dataclasses
import gc
import math
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nases_env.errors import InputError
from nases_env.seeding import torch_generator
from nases_env.training import (
    ImageSet,
    TrainingResult,
    TrainingSettings,
    load_images,
    metrics,
    split_train_valid,
    train_classifier,
)
from nases_env.training import trainer as trainer_module
from nases_env.training.augmentation import channel_statistics, normalize
from nases_env.training.metrics import accuracy, evaluation_batch_size, predict_logits, recalibrate_batch_norm
from nases_env.training.schedule import learning_rate
from nases_env.training.settings import Precision
from nases_env.training.train_step import AUXILIARY_WEIGHT

CPU = torch.device("cpu")
QUICK = TrainingSettings(num_epochs=2, num_cycles=1, batch_size=16, crop_padding=1)


class SmallNet(nn.Module):
    """A convolution, batch norm, dropout and a linear layer."""

    def __init__(self, channels: int = 1, classes: int = 10, dropout: float = 0.0, filters: int = 8) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, filters, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(filters)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4 * filters, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.dropout(F.relu(self.norm(self.convolution(images))))
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(features, 2).flatten(1))
        return logits


def small_net(**sizes: Any) -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNet(**sizes)


def random_set(count: int, shape: tuple[int, int, int] = (3, 8, 8), classes: int = 3, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    return ImageSet(images, labels, tuple(f"class {label}" for label in range(classes)))


def digits(count: int = 200) -> tuple[ImageSet, ImageSet]:
    return split_train_valid(load_images("digits", train=True), seed=0, num_train_images=count)


def train(
    model: nn.Module, sets: tuple[ImageSet, ImageSet], settings: TrainingSettings = QUICK, seed: int = 0, flip: bool = False
) -> TrainingResult:
    return train_classifier(model, *sets, settings, seed=seed, device=CPU, flip=flip)


def without_seconds(result: TrainingResult) -> TrainingResult:
    assert result.seconds > 0
    return dataclasses.replace(result, seconds=0.0)


def test_training_learns_digits() -> None:
    settings = TrainingSettings(num_epochs=6, num_cycles=1, batch_size=32, crop_padding=0)
    result = train(small_net(filters=32), digits(1300), settings)
    assert result.status == "ok"
    assert result.valid_accuracy > 0.85
    assert result.train_accuracy > 0.85
    assert result.num_epochs == 6
    assert [record.epoch for record in result.curve] == [1, 2, 3, 4, 5, 6]
    assert result.curve[-1].train_loss < result.curve[0].train_loss / 2
    assert result.curve[-1].train_accuracy > result.curve[0].train_accuracy
    assert [record.learning_rate for record in result.curve] == [
        learning_rate(settings, 40 * epoch, 240) for epoch in range(6)
    ]


def test_result_depends_only_on_the_seed() -> None:
    results, weights = [], []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        model = small_net(dropout=0.5)
        results.append(without_seconds(train(model, digits())))
        weights.append(model.convolution.weight)
        assert torch.equal(torch.get_rng_state(), state)
    assert results[0] == results[1]
    assert torch.equal(weights[0], weights[1])
    assert without_seconds(train(small_net(dropout=0.5), digits(), seed=1)).curve != results[0].curve


def test_first_steps_are_nesterov_sgd_on_normalized_images() -> None:
    """One batch contains all images, so that their order does not matter."""
    settings = TrainingSettings(num_epochs=2, num_cycles=1, batch_size=24, crop_padding=0, weight_decay=0.01)
    images = random_set(24)
    model = small_net(channels=3, classes=3)
    expected = copy.deepcopy(model)
    train(model, (images, images), settings)

    pixels = images.images / 255
    mean = pixels.mean((0, 2, 3))[:, None, None]
    std = ((pixels - mean) ** 2).mean((0, 2, 3)).sqrt()[:, None, None]
    inputs = (pixels - mean) / std
    velocity = [torch.zeros_like(weight) for weight in expected.parameters()]
    for batch in range(2):
        loss = F.cross_entropy(expected(inputs), images.labels)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        rate = 0.001 + 0.049 * (1 + math.cos(math.pi * batch / 2)) / 2
        with torch.no_grad():
            for weight, gradient, momentum in zip(expected.parameters(), gradients, velocity, strict=True):
                decayed = gradient + 0.01 * weight
                momentum.mul_(0.9).add_(decayed)
                weight.sub_(rate * (decayed + 0.9 * momentum))
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"), [(50, 16, [16] * 3), (7, 16, [7]), (16, 16, [16]), (2, 2, [2])]
)
def test_incomplete_last_batch_is_dropped_unless_it_is_the_only_one(
    count: int, batch_size: int, expected: list[int]
) -> None:
    sizes = []
    model = small_net(channels=3, classes=3)
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if torch.is_grad_enabled() else None)
    result = train(
        model, (random_set(count), random_set(5)), dataclasses.replace(QUICK, num_epochs=1, batch_size=batch_size)
    )
    assert sizes == expected
    assert result.status == "ok"


def test_training_lasts_a_minimum_number_of_steps() -> None:
    settings = dataclasses.replace(QUICK, min_steps=7, schedule="triangular")
    curve = train(small_net(), digits(32), settings).curve
    assert len(curve) == 4  # 2 steps per epoch
    assert [record.learning_rate for record in curve] == [learning_rate(settings, 2 * epoch, 8) for epoch in range(4)]


def test_each_epoch_uses_every_image_once_in_a_new_order() -> None:
    shades = torch.arange(48, dtype=torch.uint8).reshape(48, 1, 1, 1).expand(48, 1, 4, 4).contiguous()
    images = ImageSet(shades, torch.zeros(48, dtype=torch.int64), ("a", "b"))
    statistics = channel_statistics(images.images)
    seen: list[int] = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            gray = (inputs[0][:, 0, 0, 0] * statistics.std + statistics.mean) * 255
            seen.extend(gray.round().int().tolist())

    model = small_net(classes=2)
    model.register_forward_pre_hook(record)
    train(model, (images, images), dataclasses.replace(QUICK, crop_padding=0))
    assert sorted(seen[:48]) == sorted(seen[48:]) == list(range(48))
    assert seen[:48] != seen[48:]


def test_augmentation_is_used_only_in_training() -> None:
    images = random_set(32, classes=2)
    batches: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    model = small_net(channels=3, classes=2)
    model.register_forward_pre_hook(lambda module, inputs: batches[torch.is_grad_enabled()].append(inputs[0].clone()))
    train(model, (images, images), dataclasses.replace(QUICK, crop_padding=2, cutout_length=4), flip=True)
    plain = {image.numpy().tobytes() for image in normalize(images.images, channel_statistics(images.images))}
    assert not any(image.contiguous().numpy().tobytes() in plain for batch in batches[True] for image in batch)
    assert all(image.contiguous().numpy().tobytes() in plain for batch in batches[False] for image in batch)


def test_each_batch_has_its_own_augmentation() -> None:
    one = random_set(1, classes=2)
    images = ImageSet(one.images.expand(32, -1, -1, -1).contiguous(), torch.zeros(32, dtype=torch.int64), one.class_names)
    batches: list[torch.Tensor] = []
    model = small_net(channels=3, classes=2)
    model.register_forward_pre_hook(
        lambda module, inputs: batches.append(inputs[0].clone()) if torch.is_grad_enabled() else None
    )
    train(model, (images, images), dataclasses.replace(QUICK, crop_padding=3), flip=True)
    assert len(batches) == 4
    assert len({batch.contiguous().numpy().tobytes() for batch in batches}) == 4


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 7), (3, 5, 9), (1, 28, 28)])
def test_odd_and_non_square_image_sizes(shape: tuple[int, int, int]) -> None:
    settings = dataclasses.replace(QUICK, cutout_length=3)
    result = train(
        small_net(channels=shape[0], classes=3), (random_set(20, shape), random_set(5, shape)), settings, flip=True
    )
    assert result.status == "ok"


def test_single_training_image_is_rejected() -> None:
    with pytest.raises(InputError, match="at least 2 images"):
        train(small_net(channels=3, classes=3), (random_set(1), random_set(5)))


@pytest.mark.parametrize("schedule", ["cosine", "triangular"])
def test_divergence_stops_the_training(schedule: Any) -> None:
    settings = dataclasses.replace(QUICK, num_epochs=50, lr_max=1e6, lr_min=1e6, schedule=schedule)
    result = train(small_net(), digits(), settings)
    assert result.status == "diverged"
    assert (result.valid_accuracy, result.train_accuracy) == (0.0, 0.0)
    assert result.num_epochs == len(result.curve) < 50
    assert all(math.isfinite(record.train_loss) for record in result.curve)


def test_nan_loss_stops_the_training_immediately() -> None:
    calls = []

    class Broken(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            return super().forward(images) * math.nan

    result = train(Broken(), digits(1200), dataclasses.replace(QUICK, batch_size=4))
    assert result.status == "diverged"
    assert len(calls) == 1
    assert result.curve == ()


def test_divergence_in_the_last_step_is_detected() -> None:
    settings = TrainingSettings(num_epochs=1, num_cycles=1, batch_size=200, lr_max=1e38, lr_min=1e38)
    result = train(small_net(), digits(), settings)
    assert result.status == "diverged"
    assert result.valid_accuracy == 0.0


@pytest.mark.parametrize("kind", [torch.cuda.OutOfMemoryError, torch.AcceleratorError])
def test_out_of_memory_is_a_status(kind: type[RuntimeError]) -> None:
    class OutOfMemory(SmallNet):
        num_batches = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.num_batches += 1
            if self.num_batches > 15:
                error = kind("CUDA error: out of memory")
                error.__cause__ = error  # a reference cycle, as of errors during a capture
                self.batch = weakref.ref(images)
                raise error
            return super().forward(images)

    model = OutOfMemory()
    state = torch.get_rng_state()
    gc.disable()
    try:
        result = train(model, digits())
        assert model.batch() is None, "the frames of the error are not freed"
    finally:
        gc.enable()
    assert result.status == "out_of_memory"
    assert (result.valid_accuracy, result.train_accuracy) == (0.0, 0.0)
    assert result.num_epochs == len(result.curve) == 1
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_other_errors_are_raised() -> None:
    with pytest.raises(RuntimeError, match=r"mat1 and mat2|shape"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(3, 3)), digits())


def test_recalibration_of_a_single_batch() -> None:
    images = random_set(64).images
    statistics = channel_statistics(images)
    model = small_net(channels=3, classes=3, dropout=0.5)
    norm = model.norm
    norm.running_mean = torch.full((8,), 100.0)
    recalibrate_batch_norm(model, images, statistics=statistics, device=CPU)
    with torch.no_grad():
        activations = model.convolution(normalize(images, statistics))
    torch.testing.assert_close(norm.running_mean, activations.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, activations.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_recalibration_averages_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "EVALUATION_BATCH_SIZE", 20)
    images = random_set(60).images
    statistics = channel_statistics(images)
    model = small_net(channels=3, classes=3)
    recalibrate_batch_norm(model, images, statistics=statistics, device=CPU)
    with torch.no_grad():
        activations = model.convolution(normalize(images, statistics))
    variances = torch.stack([batch.var((0, 2, 3)) for batch in activations.split(20)])
    norm = model.norm
    torch.testing.assert_close(norm.running_mean, activations.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variances.mean(0), rtol=1e-4, atol=1e-5)


def test_batch_norm_is_recalibrated_after_training() -> None:
    model = small_net()
    sets = digits()
    train(model, sets)
    norm = model.norm
    assert norm.running_mean is not None
    after_training = norm.running_mean.clone()
    recalibrate_batch_norm(model, sets[0].images, statistics=channel_statistics(sets[0].images), device=CPU)
    torch.testing.assert_close(norm.running_mean, after_training)
    assert norm.momentum == 0.1


def test_recalibration_uses_random_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are sorted by class, and the statistics of the first class differ from those of all images."""
    monkeypatch.setattr(trainer_module, "NUM_RECALIBRATION_IMAGES", 100)
    monkeypatch.setattr(metrics, "EVALUATION_BATCH_SIZE", 50)
    generator = torch.Generator().manual_seed(0)
    dark, bright = (torch.randint(*shades, (200, 1, 4, 4), generator=generator) for shades in ((0, 60), (190, 256)))
    shades = torch.cat((dark, bright))
    images = ImageSet(shades.to(torch.uint8), torch.arange(2).repeat_interleave(200), ("dark", "bright"))
    model = small_net(classes=2)
    result = train(model, (images, images.subset(torch.arange(0, 400, 10))), dataclasses.replace(QUICK, crop_padding=0))
    assert model.norm.running_mean is not None
    assert model.norm.running_var is not None
    with torch.no_grad():
        activations = model.convolution(normalize(images.images, channel_statistics(images.images)))
    deviation = activations.var((0, 2, 3)).sqrt()
    assert ((model.norm.running_mean - activations.mean((0, 2, 3))).abs() < 0.4 * deviation).all()
    assert ((model.norm.running_var.sqrt() / deviation - 1).abs() < 0.2).all()
    assert result.valid_accuracy == result.train_accuracy == 1.0


def test_accuracies_are_of_the_trained_model_without_augmentation() -> None:
    model = small_net(dropout=0.9)
    training, validation = digits(300)
    result = train(model, (training, validation))
    model.train()
    statistics = channel_statistics(training.images)
    order = torch.randperm(len(training), generator=torch_generator(0, "measured images"))
    measured = training.subset(order[: len(validation)])
    valid, again = (predict_logits(model, each.images, statistics, CPU, "auto") for each in (validation, measured))
    assert (result.valid_accuracy, result.train_accuracy) == (accuracy(valid, validation), accuracy(again, measured))


def test_accuracy_is_the_fraction_of_correct_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Brightness(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack((-images.mean((1, 2, 3)), images.mean((1, 2, 3))), dim=1)

    monkeypatch.setattr(metrics, "EVALUATION_BATCH_SIZE", 3)
    shades = torch.tensor([0, 255, 0, 255, 0, 255, 255], dtype=torch.uint8)[:, None, None, None].expand(7, 1, 2, 2)
    image_set = ImageSet(shades, torch.tensor([0, 1, 0, 1, 0, 0, 0]), ("dark", "bright"))
    logits = predict_logits(Brightness(), shades, channel_statistics(shades), CPU, "auto")
    assert accuracy(logits, image_set) == pytest.approx(5 / 7)


def test_large_images_are_measured_in_small_batches() -> None:
    """Otherwise measuring needs more memory than training with small batches."""
    batch_sizes = []

    class Recorder(SmallNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            batch_sizes.append(len(images))
            return super().forward(images)

    images = torch.zeros(150, 1, 128, 128, dtype=torch.uint8)
    statistics = channel_statistics(images)
    recalibrate_batch_norm(Recorder(), images, statistics=statistics, device=CPU)
    predict_logits(Recorder(), images, statistics, CPU, "auto")
    assert batch_sizes == [150, 125, 25]
    assert evaluation_batch_size(torch.zeros(1, 3, 64, 64)) == 500
    assert evaluation_batch_size(torch.zeros(1, 3, 3000, 3000)) == 1


def test_auxiliary_loss_has_weight_0_4() -> None:
    class TwoHeads(SmallNet):
        def __init__(self, weight: float) -> None:
            super().__init__()
            self.weight = weight

        def forward_with_auxiliary(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            logits = self(images)
            return logits, logits if self.weight else None

    def first_step(model: nn.Module, lr_max: float) -> tuple[torch.Tensor, float]:
        before = copy.deepcopy(model)
        settings = TrainingSettings(
            num_epochs=1, num_cycles=1, batch_size=200, weight_decay=0.0, lr_max=lr_max, momentum=0.0
        )
        result = train(model, digits(), settings)
        moved = [new - old for new, old in zip(model.parameters(), before.parameters(), strict=True)]
        return torch.cat([step.flatten() for step in moved]), result.curve[0].train_loss

    assert AUXILIARY_WEIGHT == 0.4
    state = small_net().state_dict()
    one_head, two_heads = TwoHeads(0.0), TwoHeads(1.0)
    one_head.load_state_dict(state)
    two_heads.load_state_dict(state)
    step, loss = first_step(one_head, lr_max=0.014)
    auxiliary_step, auxiliary_loss = first_step(two_heads, lr_max=0.01)
    torch.testing.assert_close(step, auxiliary_step, rtol=1e-3, atol=1e-6)
    assert loss == auxiliary_loss


def test_criterion_replaces_the_cross_entropy_of_both_heads() -> None:
    inputs: list[torch.Tensor] = []
    num_calls = 0

    class TwoHeads(SmallNet):
        def forward_with_auxiliary(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            inputs.append(images)
            logits = self(images)
            return logits, logits.flip(1)

    def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        assert images is inputs[-1]
        return F.cross_entropy(logits, labels)

    def smoothed(logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    def only_the_first_head(logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        nonlocal num_calls
        num_calls += 1
        return F.cross_entropy(logits, labels) * (num_calls % 2)

    def train_with(**options: Any) -> tuple[TrainingResult, torch.Tensor]:
        model = TwoHeads()
        model.load_state_dict(small_net().state_dict())
        result = train_classifier(model, *digits(64), QUICK, seed=0, device=CPU, flip=False, **options)
        return without_seconds(result), model.linear.weight.detach()

    default, weight = train_with()
    explicit, explicit_weight = train_with(criterion=cross_entropy)
    assert default == explicit
    assert torch.equal(weight, explicit_weight)
    changed = [train_with(criterion=criterion) for criterion in (smoothed, only_the_first_head)]
    assert all(not torch.equal(weight, other) for _, other in changed)
    assert num_calls == 2 * 2 * 4


def test_set_drop_path_progress_is_called_before_each_batch() -> None:
    class Scheduled(SmallNet):
        def __init__(self) -> None:
            super().__init__()
            self.progress: list[float] = []

        def set_drop_path_progress(self, fraction: torch.Tensor) -> None:
            assert fraction.shape == ()
            self.progress.append(fraction.item())

    model = Scheduled()
    train(model, digits(64))
    assert model.progress == [batch / 8 for batch in range(8)]


def test_precision_selects_bfloat16() -> None:
    def dtypes(settings: TrainingSettings) -> set[torch.dtype]:
        seen = set()
        model = small_net()
        model.convolution.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
        result = train(model, digits(), settings)
        assert result.status == "ok"
        assert all(weight.dtype == torch.float32 for weight in model.parameters())
        return seen

    assert dtypes(QUICK) == {torch.float32}
    assert dtypes(dataclasses.replace(QUICK, precision="float32")) == {torch.float32}
    assert dtypes(dataclasses.replace(QUICK, precision="bfloat16")) == {torch.bfloat16}


def test_training_uses_channels_last() -> None:
    seen = []
    model = small_net(channels=3, classes=3)
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    train(model, (random_set(40), random_set(8)), dataclasses.replace(QUICK, cutout_length=3))
    assert len(seen) > 4
    assert all(seen)
    assert model.convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_number_of_threads_is_unchanged() -> None:
    torch.set_num_threads(2)
    train(small_net(), digits(32))
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_in_both_precisions() -> None:
    settings = TrainingSettings(num_epochs=6, num_cycles=1, batch_size=32, crop_padding=0)
    precisions: tuple[Precision, ...] = ("float32", "auto")
    for precision in precisions:
        model = small_net(filters=32)
        training, validation = digits(1300)
        result = train_classifier(
            model,
            training,
            validation,
            dataclasses.replace(settings, precision=precision),
            seed=0,
            device=torch.device("cuda"),
            flip=False,
        )
        assert result.status == "ok"
        assert result.valid_accuracy > 0.85
