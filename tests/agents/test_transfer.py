"""Transfer from earlier searches: the first children are good on related data, and unrelated data cost little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nases_agents import bayesian_optimization, model_assisted, random_search, transfer
from nases_agents.reward_model import RewardModel
from nases_agents.transfer import EarlierSearch, earlier_rewards

from nases_env.errors import InputError
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import CONFIG, TRAJECTORY
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.commands import ROOT, error_of, run_here, script

SPACE = NasBench201()


def options(operator: str, **changes: Any) -> dict[str, Any]:
    """Return the options of a search that is rewarded with the share of an operator in the cell."""
    return {
        "env_id": "NASES-Synthetic-v0",
        "search_space": "nasbench201",
        "env_kwargs": {"operator": operator},
        "quiet": True,
        **changes,
    }


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run directory of a random search for average pooling."""
    return search_at_random("avg_pool_3x3", tmp_path_factory.mktemp("runs") / "pooling")


@pytest.fixture(scope="module")
def convolution(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run directory of a random search for convolutions."""
    return search_at_random("nor_conv_3x3", tmp_path_factory.mktemp("runs") / "convolution")


def search_at_random(operator: str, run_dir: Path, budget: int = 40) -> str:
    random_search.main(random_search.Args(**options(operator, budget=budget, run_dir=run_dir)))
    return str(run_dir)


def rewards(run_dir: Path) -> list[float]:
    return [json.loads(line)["reward"] for line in (run_dir / TRAJECTORY).read_text().splitlines()]


@pytest.mark.parametrize("module", [bayesian_optimization, model_assisted])
def test_first_children_are_good_where_an_earlier_search_is_related(module: Any, pooling: str, tmp_path: Path) -> None:
    """Three of the five are chosen by the earlier search."""
    num_good = []
    for name, earlier in {"transfer": (pooling,), "alone": ()}.items():
        args = module.Args(**options("avg_pool_3x3", budget=5, run_dir=tmp_path / name, transfer_from=earlier))
        module.main(args)
        num_good.append(sum(reward >= 0.5 for reward in rewards(tmp_path / name)))
    assert num_good[0] >= 3 > 1 >= num_good[1]


@pytest.mark.parametrize("module", [bayesian_optimization, model_assisted])
def test_search_overrules_an_earlier_search_that_is_wrong(module: Any, convolution: str, tmp_path: Path) -> None:
    settings = options("avg_pool_3x3", budget=30, run_dir=tmp_path / "run", transfer_from=(convolution,))
    module.main(module.Args(**settings, ask_batch_size=5))
    found = rewards(tmp_path / "run")
    assert max(found[:5]) < 0.5
    assert max(found) > 0.8


def test_scores_are_the_predictions_of_each_earlier_search(
    pooling: str, convolution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = earlier_rewards(SPACE, (pooling, convolution))
    assert scores is not None
    rng = np.random.default_rng(0)
    samples = [SPACE.sample(rng) for _ in range(30)]
    decisions = torch.tensor([sample.decisions for sample in samples])
    models = [EarlierSearch(path).reward_model(SPACE) for path in (pooling, convolution)]
    expected = torch.stack([model.posterior(samples, []).mean for model in models], dim=1)
    torch.testing.assert_close(scores(decisions), expected)
    shares = np.array([sample_share(sample.decisions, "avg_pool_3x3") for sample in samples])
    assert np.corrcoef(expected[:, 0], shares)[0, 1] > 0.8
    monkeypatch.setattr(transfer, "MAX_ENCODED", 10)
    torch.testing.assert_close(scores(decisions.flip(0)), expected.flip(0))
    assert earlier_rewards(SPACE, ()) is None


def sample_share(decisions: tuple[int, ...], operator: str) -> float:
    return decisions.count(SPACE.operators.index(operator)) / len(decisions)


def test_trend_remains_with_many_children_if_it_explains_them(pooling: str) -> None:
    rng = np.random.default_rng(0)
    samples = [SPACE.sample(rng) for _ in range(60)]
    earlier = earlier_rewards(SPACE, (pooling,))
    assert earlier is not None
    variances = []
    for values in (earlier(torch.tensor([sample.decisions for sample in samples]))[:, 0].numpy(), rng.normal(size=60)):
        model = RewardModel(SPACE, earlier=earlier)
        for sample, value in zip(samples, values, strict=True):
            model.add(sample, float(value))
        model.fit()
        variances.append(model.process.kernel.trend_variance)
    assert variances[0] > 0 == variances[1]


def test_rewards_of_an_earlier_search_with_rungs_are_those_of_the_lowest(tmp_path: Path) -> None:
    run_dir = Path(search_at_random("avg_pool_3x3", tmp_path / "run", budget=10))
    lines = [json.loads(line) for line in (run_dir / TRAJECTORY).read_text().splitlines()]
    promoted = {**lines[0], "child": 11, "is_promotion": True, "reward": 1.0}
    failed = {**lines[1], "child": 12, "status": "failed"}
    before = EarlierSearch(str(run_dir)).children
    (run_dir / TRAJECTORY).write_text("".join(f"{json.dumps(line)}\n" for line in (*lines, promoted, failed)))
    assert EarlierSearch(str(run_dir)).children == before
    assert len(before) == sum(line["is_new"] for line in lines)


def test_invalid_earlier_searches_are_one_line(tmp_path: Path, pooling: str) -> None:
    few = search_at_random("avg_pool_3x3", tmp_path / "few", budget=4)
    for path, message in [
        (str(tmp_path / "missing"), r"^\S*missing is not a run directory"),
        (few, r"^\S*few has 4 evaluated children, but --transfer-from needs at least 5; omit it"),
    ]:
        args = model_assisted.Args(**options("avg_pool_3x3", run_dir=tmp_path / "run", transfer_from=(path,)))
        with pytest.raises(InputError, match=message):
            model_assisted.main(args)
        assert not (tmp_path / "run").exists()
    args = model_assisted.Args(env_id="NASES-Synthetic-v0", run_dir=tmp_path / "run", transfer_from=(pooling,), quiet=True)
    with pytest.raises(InputError, match=r"pooling is not a search in enas_micro but in nasbench201; omit it"):
        model_assisted.main(args)
    assert not (tmp_path / "run").exists()
    result = run_here(script(ROOT / "agents" / "model_assisted.py"), "--transfer-from")
    assert "--transfer-from needs one or more run directories" in error_of(result)


def test_resumed_search_repeats_the_transfer_and_refuses_a_changed_earlier_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    earlier = search_at_random("avg_pool_3x3", tmp_path / "earlier", budget=20)
    whole = tmp_path / "whole"
    bayesian_optimization.main(
        bayesian_optimization.Args(**options("avg_pool_3x3", budget=20, run_dir=whole, transfer_from=(earlier,)))
    )
    part = tmp_path / "part"
    bayesian_optimization.main(
        bayesian_optimization.Args(**options("avg_pool_3x3", budget=10, run_dir=part, transfer_from=("earlier",)))
    )
    resumed = load_args(bayesian_optimization.Args, part)
    assert resumed.transfer_from == (earlier,)
    resumed.budget, resumed.quiet = 20, True
    resumed.transfer_from = ("../part/../earlier",)  # earlier versions recorded the path as it was given
    monkeypatch.chdir(part)
    trajectory = Path(earlier, TRAJECTORY)
    content = trajectory.read_text()
    trajectory.write_text("".join(content.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"part cannot be resumed: --transfer-from .*earlier has changed; restore it"):
        bayesian_optimization.main(resumed)
    trajectory.write_text(content)
    bayesian_optimization.main(resumed)
    assert rewards(part) == rewards(whole)


def test_run_directory_of_an_earlier_version_can_be_resumed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    bayesian_optimization.main(bayesian_optimization.Args(**options("avg_pool_3x3", budget=6, run_dir=run_dir)))
    config = json.loads((run_dir / CONFIG).read_text())
    del config["arguments"]["transfer_from"], config["inputs"]
    (run_dir / CONFIG).write_text(json.dumps(config))
    resumed = load_args(bayesian_optimization.Args, run_dir)
    assert resumed.transfer_from == ()
    resumed.budget, resumed.quiet = 12, True
    bayesian_optimization.main(resumed)
    assert len(rewards(run_dir)) == 12


def test_command_takes_several_run_directories(pooling: str, convolution: str, tmp_path: Path) -> None:
    common = ("--env-id", "NASES-Synthetic-v0", "--search-space", "nasbench201", "--budget", "6", "--env-kwargs", "operator")
    run_dir = tmp_path / "run"
    command = script(ROOT / "agents" / "model_assisted.py")
    result = run_here(command, *common, "avg_pool_3x3", "--transfer-from", pooling, convolution, "--run-dir", str(run_dir))
    assert result.returncode == 0, result.stderr
    config = json.loads((run_dir / CONFIG).read_text())
    assert config["arguments"]["transfer_from"] == [pooling, convolution]
    assert list(config["inputs"]) == [f"--transfer-from {path}" for path in (pooling, convolution)]
    result = run_here(command, "--resume", str(run_dir), "--budget", "8")
    assert result.returncode == 0, result.stderr
    result = run_here(command, "--resume", str(run_dir), "--budget", "9", "--transfer-from", pooling)
    assert "--transfer-from is" in error_of(result)
