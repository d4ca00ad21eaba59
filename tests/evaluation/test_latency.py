"""The latency of networks is measured with one image and one thread."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from nases_env.cpu import torch_threads
from nases_env.evaluation import latency, measure_latencies


@dataclass
class Call:
    shape: tuple[int, ...]
    num_threads: int
    is_training: bool
    has_gradient: bool


@dataclass(eq=False)
class Recorder(nn.Module):
    """A network that records how it is called."""

    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(Call(tuple(images.shape), torch.get_num_threads(), self.training, torch.is_grad_enabled()))
        return images


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure_latencies.__kwdefaults__ or {}, "round_seconds", 0.01)


def test_one_image_passes_in_evaluation_mode_with_one_thread() -> None:
    recorder = Recorder()
    with torch_threads(2):
        (measured,) = measure_latencies([recorder], (3, 8, 8))
        assert torch.get_num_threads() == 2
    assert all(call == Call((1, 3, 8, 8), 1, False, False) for call in recorder.calls)
    assert len(recorder.calls) == measured.num_passes + latency.NUM_ROUNDS * latency.NUM_WARM_UP_PASSES
    assert measured.num_passes >= latency.NUM_ROUNDS * latency.MIN_PASSES
    assert 0 < measured.low <= measured.median <= measured.high
    assert 0 < measured.best_round <= measured.median


def test_larger_network_takes_longer() -> None:
    small, large = (nn.Sequential(nn.Conv2d(3, 8, 3), *[nn.Conv2d(8, 8, 3, padding=1)] * depth) for depth in (1, 50))
    quick, slow = measure_latencies([small, large], (3, 32, 32))
    assert slow.median > 3 * quick.median


def test_slow_rounds_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([[5.0, 5.0, 5.0], [1.0, 2.0, 9.0], [8.0, 8.0, 8.0]])
    monkeypatch.setattr(latency, "_passes", lambda *_: next(rounds))
    (measured,) = measure_latencies([torch.nn.Identity()], (3, 8, 8), num_rounds=3)
    assert measured == latency.Latency(low=5.0, median=5.0, high=8.0, best_round=2.0, num_passes=9)
