"""Mean ranks over finished comparisons of agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mean_ranks import Args, Comparison, analyze, main, read_comparison
from nases_env.errors import InputError
from tests.commands import error_of, module, run_benchmark, run_here

Values = dict[str, dict[int, list[float]]]

ONE: Values = {
    "a": {5: [0.9, 0.5, 0.5], 10: [0.9, 0.9, 0.9]},
    "b": {5: [0.8, 0.5, 0.6], 10: [0.8, 0.9, 0.9]},
    "c": {5: [0.7, 0.1, 0.7], 10: [0.7, 0.1, 0.9]},
}
OTHER: Values = {
    "c": {5: [0.3, 0.3, 0.3], 10: [0.4, 0.4, 0.4]},
    "b": {5: [0.2, 0.2, 0.2], 10: [0.3, 0.3, 0.3]},
    "a": {5: [0.1, 0.1, 0.1], 10: [0.2, 0.2, 0.2]},
}


def write_report(path: Path, values: Values, first_seed: int = 0) -> Path:
    """Write the parts of a report that are read."""
    at = next(iter(values.values()))
    settings = {"env_id": "Own-v0", "env_kwargs": {"task": path.stem}, "budgets": [*at][::-1], "first_seed": first_seed}
    content = {
        "benchmark": "search_quality",
        "settings": {**settings, "num_seeds": len(next(iter(at.values())))},
        "measure": "test_accuracy",
        "agents": {
            agent: {"at": {str(budget): {"test_accuracy": {"values": each}} for budget, each in at.items()}}
            for agent, at in values.items()
        },
    }
    path.write_text(json.dumps(content))
    return path


def without(values: Values, *, agent: str = "", budget: int = 0) -> Values:
    return {
        name: {number: each for number, each in at.items() if number != budget}
        for name, at in values.items()
        if name != agent
    }


def comparisons(folder: Path) -> list[Comparison]:
    return [read_comparison(write_report(folder / f"{name}.json", each)) for name, each in (("one", ONE), ("other", OTHER))]


def test_equal_agents_share_the_mean_of_their_ranks(tmp_path: Path) -> None:
    ranks = comparisons(tmp_path)[0].ranks(["a", "b", "c"])
    assert ranks[:, :, 0].T.tolist() == [[1, 2, 3], [1.5, 1.5, 3], [3, 2, 1]]
    assert ranks[:, :, 1].T.tolist() == [[1, 2, 3], [1.5, 1.5, 3], [2, 2, 2]]


def test_ranks_are_averaged_over_environments_and_seeds(tmp_path: Path) -> None:
    report = analyze(comparisons(tmp_path))
    at_five = {agent: at["5"]["value"] for agent, at in report["mean_rank"].items()}
    assert at_five == pytest.approx({"a": (5.5 / 3 + 3) / 2, "b": (5.5 / 3 + 2) / 2, "c": (7 / 3 + 1) / 2})
    environment = report["environments"]["other"]
    assert environment["env_kwargs"] == {"task": "other"}
    assert {agent: at["10"]["value"] for agent, at in environment["mean_rank"].items()} == {"a": 3, "b": 2, "c": 1}


def test_interval_is_over_seeds(tmp_path: Path) -> None:
    report = analyze(comparisons(tmp_path))
    assert report["environments"]["other"]["mean_rank"]["a"]["10"] == {"value": 3, "low": 3, "high": 3}
    interval = report["mean_rank"]["a"]["5"]
    # The ranks of the seeds, averaged over environments, are 2, 2.25 and 3.
    assert (interval["low"], interval["high"]) == (2.0, 3.0)


def test_tables_have_the_best_agent_of_the_largest_budget_first(tmp_path: Path) -> None:
    reports = [comparison.path for comparison in comparisons(tmp_path)]
    options = ["--reports", *(path.name for path in reports), "--output", "ranks.json"]
    result = run_benchmark("mean_ranks", options, tmp_path)
    text = (tmp_path / "ranks.md").read_text()
    assert "### mean rank of 3 agents, environments: 2, seeds: 3" in text
    assert "| agent | at 5 (95%) | at 10 (95%) |" in text
    assert "| agent | one | other |\n| --- | ---: | ---: |\n| c | 2.67 | 1.00 |" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith(("| a |", "| b |", "| c |"))]
    assert rows == ["c", "b", "a"] * 3
    assert "1.83 (" in result.stdout
    assert json.loads((tmp_path / "ranks.json").read_text())["mean_rank"]["c"]["10"]["value"] == pytest.approx(11 / 6)


@pytest.mark.parametrize(
    ("values", "first_seed", "message"),
    [
        (without(OTHER, agent="c"), 0, "compare different agents; run one of the comparisons again with the agents"),
        (without(OTHER, budget=10), 0, "compare different budgets"),
        (OTHER, 1, "compare different seeds"),
    ],
)
def test_comparisons_must_be_equal_except_for_the_environment(
    values: Values, first_seed: int, message: str, tmp_path: Path
) -> None:
    one, other = (
        write_report(tmp_path / "one.json", ONE),
        write_report(tmp_path / "other.json", values, first_seed=first_seed),
    )
    with pytest.raises(InputError, match=rf"one\.json and .*other\.json {message}"):
        main(Args(reports=(one, other), output=tmp_path / "ranks.json"))
    assert not (tmp_path / "ranks.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"settings": 1, "measure": "a", "agents": {}}', "null"])
def test_file_that_is_not_a_report_is_rejected_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(InputError, match=r"other\.json is not a report of benchmarks\.search_quality; pass"):
        read_comparison(tmp_path / "other.json")


def test_report_with_another_number_of_seeds_than_in_its_settings_is_rejected(tmp_path: Path) -> None:
    path = write_report(tmp_path / "one.json", ONE)
    content = json.loads(path.read_text())
    content["settings"]["num_seeds"] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not a report"):
        read_comparison(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reports"], "pass at least one report"),
        (["--reports", "absent.json"], "cannot read absent.json (No such file or directory); pass a report"),
        (
            ["--reports", "a/one.json", "b/one.json"],
            "a/one.json and b/one.json name the same environment; pass each report once",
        ),
        (
            ["--reports", "one.json", "--output", "one.json"],
            "--output one.json would replace the file that is read; choose a different file",
        ),
        (["--reports", "one.json", "--output", "ranks"], "--output must end in .json"),
    ],
)
def test_invalid_options_are_rejected_in_one_line(options: list[str], message: str) -> None:
    assert message in error_of(run_here(module("benchmarks.mean_ranks"), *options))


def test_ranks_of_real_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nases_env.visualization.save", lambda figure, path: None)  # slower than the searches
    common: list[Any] = ["--num-seeds", "2", "--budgets", "4", "--num-processes", "1", "--env-id", "NASES-Synthetic-v0"]
    common += ["--agents", "random_search", "regularized_evolution"]
    run_benchmark("search_quality", [*common, "--output", "share.json"], tmp_path)
    run_benchmark("search_quality", [*common, "--random-landscapes", "--output", "landscapes.json"], tmp_path)
    run_benchmark("mean_ranks", ["--reports", "share.json", "landscapes.json"], tmp_path)
    ranks = json.loads((tmp_path / "mean_ranks.json").read_text())
    assert ranks["environments"]["landscapes"]["random_landscapes"]
    assert sum(at["4"]["value"] for at in ranks["mean_rank"].values()) == pytest.approx(3)
