"""Tests of the throughput benchmark: both implementations compute the same function, and the measurements are consistent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.throughput.__main__ import Args, summarize
from benchmarks.throughput.children import CONFIGURATIONS, compare_losses, make_network, random_architecture, read_images
from benchmarks.throughput.first_step import FirstStepEvaluator
from benchmarks.throughput.plain_network import PlainNetwork
from benchmarks.throughput.plain_training import PlainTraining
from nases_env.errors import InputError
from nases_env.training import TrainingSettings
from tests.commands import run_benchmark

SMOKE = CONFIGURATIONS["smoke"][0]
SETTINGS = TrainingSettings(batch_size=8, lr_max=0.01)
CPU = torch.device("cpu")


@pytest.mark.parametrize("index", range(2))
def test_plain_network_computes_the_same_function(index: int) -> None:
    network = make_network(random_architecture(1, index), SMOKE, 12, seed=0)
    plain = PlainNetwork(network)
    assert {name: tensor.shape for name, tensor in plain.state_dict().items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }
    losses = compare_losses(network, read_images("synthetic", 16, 12, 0), SETTINGS, CPU, num_steps=3, seed=0)
    assert losses["largest_difference"]["float64"] < 1e-9
    assert len(set(losses["float64"]["plain"])) == len(losses["float32"]["ours"]) == 3
    assert losses["largest_rounding"]["ours"] > 0


def test_plain_epoch_uses_full_batches_of_standardized_images() -> None:
    torch.manual_seed(0)
    images = read_images("synthetic", 19, 8, 0)
    network = PlainNetwork(make_network(random_architecture(0, 0), SMOKE, 8, seed=0))
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    training = PlainTraining(network, images, SETTINGS, CPU, num_workers=0)
    assert len(list(training.steps())) == 2
    assert all(not torch.equal(weight, before[name]) for name, weight in network.named_parameters())
    batch, labels = next(iter(training.loader))
    assert batch.shape == (8, 3, 8, 8)
    assert labels.max() < 10
    assert abs(batch.mean()) < 0.5
    assert 0.5 < batch.std() < 1.5


def test_synthetic_images_are_determined_by_the_seed() -> None:
    images, again, others = (read_images("synthetic", 4, 8, seed).images for seed in (0, 0, 1))
    assert torch.equal(images, again)
    assert not torch.equal(images, others)


def test_missing_cifar10_raises_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="CIFAR-10 is not in"):
        read_images("cifar10", 4, 32, 0)


def test_first_step_evaluator_stops_after_the_first_step() -> None:
    architecture = random_architecture(0, 0)
    evaluation = FirstStepEvaluator(SMOKE, 4, 8, "cpu", 1).evaluate(architecture, 0)
    assert (evaluation.key, evaluation.num_epochs) == (architecture.key, 0)


def test_children_are_summarized_by_the_medians_of_their_turns() -> None:
    children = [
        {"images_per_second": {"plain": [10, 20, 90], "ours": [60, 40, 50]}, "ratios": [2, 3, 9], "flops_per_image": 2},
        {"images_per_second": {"plain": [30], "ours": [100]}, "ratios": [5], "flops_per_image": 1},
    ]
    assert summarize(children, peak=1000.0) == {
        "plain": {"median": 25.0, "min": 20.0, "max": 30.0},
        "ours": {"median": 75.0, "min": 50.0, "max": 100.0},
        "ratio": {"median": 4.0, "min": 3.0, "max": 5.0},
        "share_of_peak": {"median": 0.3, "min": 0.3, "max": 0.3},
    }


@pytest.mark.usefixtures("forked_workers")
def test_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.throughput.peak.PEAK_SIDE", {"cpu": 64})
    options = (
        *("--configurations", "smoke", "--device", "cpu", "--num-architectures", "1", "--num-repeats", "1"),
        *("--num-images", "20", "--batch-size", "8", "--image-size", "8", "--num-steps", "1"),
    )
    printed = run_benchmark("throughput", (*options, "--output", "out/metrics.json"), tmp_path).stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    (child,) = metrics["children"]
    assert child["architecture"] == random_architecture(0, 0).key
    rates = child["images_per_second"]
    assert len(rates["plain"]) == len(rates["ours"]) == 1
    assert child["ratios"] == [ours / plain for plain, ours in zip(rates["plain"], rates["ours"], strict=True)]
    assert metrics["summary"] == {"N=1 F=2": summarize([child], metrics["peak_flops_per_second"])}
    latency = metrics["seconds_to_first_step"]["N=1 F=2"]
    assert list(latency) == ["serial", "warm worker", "cold worker"]
    assert all(seconds["min"] > 0 for seconds in latency.values())
    assert "N=1 F=2: training images per second" in printed
    assert f"ours / plain: {child['ratios'][0]:.2f}" in printed


@pytest.mark.parametrize(
    "options",
    [
        {"num_architectures": 0},
        {"num_repeats": 0},
        {"num_steps": 0},
        {"batch_size": 1},
        {"num_images": 3},
        {"image_size": 6},
    ],
)
def test_out_of_range_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
