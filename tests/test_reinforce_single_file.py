"""The single-file REINFORCE runs as documented and learns."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.commands import ROOT, run_here, script

EXAMPLE = ROOT / "examples" / "reinforce_single_file.py"

Search = Callable[..., list[float]]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    """Run the example with options as keyword arguments and return the rewards."""
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    example = importlib.import_module(EXAMPLE.stem)

    def run_search(**options: Any) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            rewards: list[float] = example.search(example.Args(**options))[0]
        return rewards

    return run_search


def test_mean_reward_rises(search: Search) -> None:
    """With a learning rate of 0, the mean gain over 4 seeds is 0 with a standard deviation of 0.02."""
    gains = []
    for seed in range(4):
        rewards = search(num_children=300, seed=seed)
        gains.append(np.mean(rewards[-75:]) - np.mean(rewards[:75]))
    assert np.mean(gains) > 0.07


def test_seed_determines_the_rewards(search: Search) -> None:
    first, second, other = (search(num_children=10, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize(
    "options",
    [("--env-id", "NASES-Synthetic-v0"), ("--env-id", "NASES-Digits-v0", "--env-kwargs", "preset", "smoke")],
)
def test_command_prints_the_best_genotype_and_logs_rewards(options: tuple[str, ...], tmp_path: Path) -> None:
    result = run_here(script(EXAMPLE), *options, "--num-children", "3", "--log-dir", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rewards = [float(reward) for reward in re.findall(r"^child \d: reward (\S+),", result.stdout, flags=re.MULTILINE)]
    assert len(rewards) == 3
    assert f"best reward: {max(rewards):.4f}" in result.stdout
    genotype = json.loads(result.stdout.splitlines()[-1].removeprefix("best genotype: "))
    assert genotype["search_space"] == "enas_micro"
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("search/reward")] == pytest.approx(rewards, abs=1e-4)


def test_is_short_and_independent_of_the_search_package() -> None:
    source = EXAMPLE.read_text()
    assert len(source.splitlines()) <= 100
    assert "nases_env.search " not in source
