"""Reading a run directory for the report, and the report at the end of a search."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nases_agents.random_search import RandomSearch

from nases_env.errors import InputError
from nases_env.report import are_comparable, render
from nases_env.report.comparison import summarize
from nases_env.search import SearchArgs, SearchRun
from nases_env.search.run_report import evaluation_digest, read_run, write_report
from tests.evaluation.latency_table import write_latency_table
from tests.search.acting import RandomActions

pytestmark = pytest.mark.usefixtures("tiny_children")


def search(run_dir: Path, **options: Any) -> None:
    args = SearchArgs(**{"env_id": "NASES-Synthetic-v0", "budget": 3, "run_dir": run_dir, **options})
    with SearchRun(args, agent="random_search") as run:
        run.search(RandomActions(run.env, args.seed))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "run"
    search(path, env_id="NASES-Digits-v0", preset="smoke", num_finalists=2)
    return path


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]


def write_records(run_dir: Path, values: list[dict[str, Any]]) -> None:
    (run_dir / "evaluations.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))


def copy_with(trained: Path, folder: Path, **changes: Any) -> Path:
    """Copy a run directory and replace entries of all its records."""
    shutil.copytree(trained, folder / "run")
    write_records(folder / "run", [{**record, **changes} for record in records(trained)])
    return folder / "run"


def test_digests_separate_the_validation_split_from_other_differences(trained: Path) -> None:
    configuration = json.loads((trained / "config.json").read_text())["configuration"]
    other_split = {**configuration, "split_seed": 1, "images": "other"}
    digests = [evaluation_digest(each) for each in (configuration, other_split, {**other_split, "device": "cuda"})]
    assert are_comparable(digests[:2])
    assert not are_comparable(digests[1:])


def test_search_is_read(trained: Path) -> None:
    run = read_run(trained)
    lines = records(trained)
    finalists = json.loads((trained / "finalists.json").read_text())
    assert (run.agent, run.env_id, run.budget, run.state) == ("random_search", "NASES-Digits-v0", 3, "finished")
    assert [child.reward for child in run.children] == [line["reward"] for line in lines]
    assert [child.num_params for child in run.children] == [line["num_params"] for line in lines]
    assert [finalist.number for finalist in run.finalists] == [finalist["child"] for finalist in finalists]
    assert run.best == finalists[0]["child"]
    assert run.best_reward == finalists[0]["mean_reward"]
    assert run.is_embedded
    assert run.vectors is not None
    np.testing.assert_array_equal(run.vectors, [line["action"] for line in lines])
    assert [curve.number for curve in run.curves] == [child.number for child in run.ranking()]
    assert [graph.name for graph in run.designs[0].graphs] == ["normal cell", "reduction cell"]
    seconds = sum(line["seconds"] for line in lines) + sum(finalist["second"]["seconds"] for finalist in finalists)
    assert run.seconds_by_device == {"cpu": pytest.approx(seconds)}


def test_search_ends_with_a_report(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert page == render([read_run(trained)])
    assert "3 of 3 children · finished" in page


def test_failure_of_the_report_does_not_lose_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> Path:
        raise RuntimeError("a bug")

    monkeypatch.setattr("nases_env.search.run_report.write_report", fail)
    run_dir = tmp_path / "my run"
    search(run_dir)
    assert "finished" in json.loads((run_dir / "config.json").read_text())
    assert f"the report was not written (a bug); try: nases report '{run_dir}'" in capsys.readouterr().err


def test_interrupted_search_has_a_report(tmp_path: Path) -> None:
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=5, run_dir=tmp_path / "run")
    run = SearchRun(args, agent="random_search").__enter__()
    run.loop.evaluate_all([run.env.search_space.sample(np.random.default_rng(0))])
    run.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "1 of 5 children · stopped" in page
    assert "--resume" in page


def test_running_search_is_read(tmp_path: Path) -> None:
    args = SearchArgs(env_id="NASES-Synthetic-v0", budget=5, run_dir=tmp_path / "run")
    with SearchRun(args, agent="random_search") as run:
        assert "has no children yet" in render([read_run(tmp_path / "run")])
        run.loop.evaluate_all([run.env.search_space.sample(np.random.default_rng(0))])
        read = read_run(tmp_path / "run")
        assert (read.state, len(read.children)) == ("running", 1)
        assert not read.is_embedded  # no action was recorded
        assert read.vectors is not None
        assert read.vectors.shape == (1, run.env.search_space.num_decisions)


def test_custom_search_space_is_not_imported(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy_with(trained, tmp_path, genotype={"decisions": ["</script>\"'"]})
    config = json.loads((path / "config.json").read_text())
    config["configuration"]["search_space"] |= {"name": "enas_micro", "class": "report_bomb:Bomb"}
    config["arguments"]["search_space"] = "report_bomb:Bomb"
    (path / "config.json").write_text(json.dumps(config))
    (tmp_path / "report_bomb.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    run = read_run(path)
    assert not run.designs[0].graphs
    assert "report_bomb" not in sys.modules
    page = render([run])
    assert "<pre>{&#34;decisions&#34;: [&#34;&lt;/script&gt;" in page


def test_cells_operators_and_map_of_a_search_in_a_table_are_shown(tmp_path: Path) -> None:
    table = write_latency_table(tmp_path / "table.csv")
    options: dict[str, Any] = {"objectives": "accuracy,ms_phone", "env_kwargs": {"table": table}}
    args = SearchArgs(env_id="NASES-MO-NASBench201-v0", budget=50, run_dir=tmp_path / "run", **options)
    with SearchRun(args, agent="random_search") as search:
        search.search(RandomSearch(search.env, args))
    run = read_run(tmp_path / "run")
    assert run.designs[0].graphs
    assert run.operators
    assert run.vectors is not None
    assert run.vectors.shape == (50, 6)
    assert "Operator" in render([run])


@pytest.mark.parametrize(("prefix", "is_drawn"), [("enas_micro", True), ("widths", False)])
def test_keys_name_a_search_space_that_is_not_described(prefix: str, is_drawn: bool, trained: Path, tmp_path: Path) -> None:
    """As in tables, also custom ones."""
    key = records(trained)[0]["key"].replace("enas_micro", prefix)
    path = copy_with(trained, tmp_path, key=key)
    config = json.loads((path / "config.json").read_text())
    del config["configuration"]["search_space"]
    (path / "config.json").write_text(json.dumps(config))
    assert bool(read_run(path).designs[0].graphs) == is_drawn


def test_genotype_of_another_version_is_shown_as_text(trained: Path, tmp_path: Path) -> None:
    run = read_run(copy_with(trained, tmp_path, genotype={"cells": []}))
    assert run.designs[0].genotype == '{"cells": []}'
    assert not run.operators


@pytest.mark.parametrize("action", ["text", [None], [1e300], [10**400], [[1.0]], {}, []])
def test_invalid_actions_are_replaced_by_architecture_vectors(action: Any, trained: Path, tmp_path: Path) -> None:
    run = read_run(copy_with(trained, tmp_path, action=action))
    assert not run.is_embedded
    assert run.vectors is not None
    assert ((run.vectors > 0) & (run.vectors < 1)).all()


@pytest.mark.parametrize("key", ["", "enas_micro:1-2", "enas_micro:a-b", "x" * 1000])
def test_keys_of_another_form_give_no_map(key: str, trained: Path, tmp_path: Path) -> None:
    assert read_run(copy_with(trained, tmp_path, key=key, action=None)).vectors is None


def test_missing_store_is_a_note(trained: Path, tmp_path: Path) -> None:
    path = copy_with(trained, tmp_path)
    (path / "store.sqlite").unlink()
    run = read_run(path)
    assert not run.curves
    assert "Learning curves are missing: " in render([run])


def test_unusual_values_in_the_configuration_are_read(trained: Path, tmp_path: Path) -> None:
    path = copy_with(trained, tmp_path)
    config = json.loads((path / "config.json").read_text())
    config |= {"finished": 7, "versions": [1], "command": None}
    config["arguments"] |= {"child": 3, "preset": None}
    (path / "config.json").write_text(json.dumps(config))
    run = read_run(path)
    assert run.state == "stopped"
    assert "python " in render([run])


def test_damaged_trajectory_is_a_one_line_error_and_keeps_the_report(trained: Path, tmp_path: Path) -> None:
    path = copy_with(trained, tmp_path)
    before = (path / "report.html").read_bytes()
    write_records(path, [{}])
    with pytest.raises(InputError, match=r"line 1 of .* is not a valid trial"):
        write_report(path)
    assert (path / "report.html").read_bytes() == before


def test_rewards_that_are_scores_are_not_shown_as_accuracies(trained: Path, tmp_path: Path) -> None:
    assert read_run(trained).has_metric_rewards
    run = read_run(copy_with(trained, tmp_path, valid_accuracy=0.85, score=0.085, reward=0.085))
    assert not run.has_metric_rewards
    page = render([run])
    assert "Best reward" in page
    assert "85.00%" in page


def test_report_of_a_search_with_rungs(tmp_path: Path) -> None:
    search(tmp_path / "run", env_id="NASES-Digits-v0", preset="smoke", budget=4, rungs=(1, 2), num_finalists=0)
    run = read_run(tmp_path / "run")
    assert any(child.is_promotion for child in run.children)
    assert max(len(curve.epochs) for curve in run.curves) == 2
    page = render([run])
    assert "Larger points were promoted" in page
    assert ">rung</th>" in page


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a search of 150 children, of which some failed; the others have sizes and times."""
    path = tmp_path_factory.mktemp("search") / "long"
    search(path, budget=150)
    rng = np.random.default_rng(0)
    lines = records(path)
    for line in lines:
        line |= {"num_params": int(rng.integers(1, 10**6)), "seconds": float(rng.integers(1, 99)), "device": "cuda:0"}
        if rng.random() < 0.3:
            failed = {"reward": 0.0, "valid_accuracy": 0.0, "train_accuracy": 0.0, "reason": f"reason {line['child']}"}
            line |= {"status": "timed_out" if line["child"] % 2 else "out_of_memory", **failed}
    write_records(path, lines)
    best = max(lines, key=lambda line: line["valid_accuracy"])
    finalists = [
        {"child": each["child"], "mean_reward": each["reward"] / 2, "second": {**each, "valid_accuracy": 0.0}}
        for each in (lines[98], best)
        if each["status"] == "ok"
    ]
    (path / "finalists.json").write_text(json.dumps(finalists))
    return path


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nases_env.search.run_report.MAX_CHILDREN", 20)
    monkeypatch.setattr("nases_env.report.sample.NUM_BEST", 10)


def test_report_of_a_long_search_keeps_few_children_and_all_totals(long: Path, request: pytest.FixtureRequest) -> None:
    every = read_run(long)
    request.getfixturevalue("small_limits")
    some = read_run(long)
    assert (every.stride, some.stride) == (1, 8)
    assert len(every.children) == 150
    assert 19 <= len(some.children) < 80
    assert set(some.children) < set(every.children)
    assert some.totals == every.totals
    np.testing.assert_array_equal(some.totals.rewards, every.totals.rewards)
    assert some.seconds_by_device == every.seconds_by_device
    assert some.ranking()[:10] == every.ranking()[:10]
    assert every.finalists
    assert (some.finalists, some.best, some.best_reward) == (every.finalists, every.best, every.best_reward)
    assert (some.designs, some.curves) == (every.designs, every.curves)
    assert some.failures[-20:] == every.failures[-20:]
    assert some.vectors is not None
    assert every.vectors is not None
    for child in some.children:
        np.testing.assert_array_equal(some.vectors[some.index[child.number]], every.vectors[every.index[child.number]])
    for name, (share, _) in some.operators.items():
        assert share == pytest.approx(every.operators[name][0], abs=0.2)


def test_page_on_a_long_search_says_which_children_it_shows(long: Path, request: pytest.FixtureRequest) -> None:
    before = render([read_run(long)])
    request.getfixturevalue("small_limits")
    run = read_run(long)
    page = render([run])
    text = f"{len(run.children)} of 150 trials: 1 of every 8, and in addition all that were the best so far"
    assert page.count(text) == 2
    assert "trials: 1 of every" not in before
    assert "<h2>All children</h2>" in before
    assert "<h2>All children</h2>" not in page
    rows = json.loads(page.partition('id="children-data">')[2].partition("</script>")[0])["rows"]
    assert [row[0] for row in rows[:5]] == [child.number for child in run.ranking()[:5]]
    assert len(rows) == len(run.children)
    for part in (
        r'<dl class="stats">.*?</dl>',
        r"was reached after \d+ of 150\.",
        r"<p class=\"note\">\d+ timed out.*?</ul>",
    ):
        assert re.findall(part, page, re.DOTALL) == re.findall(part, before, re.DOTALL) != []


def test_long_searches_are_compared(long: Path, trained: Path, request: pytest.FixtureRequest) -> None:
    expected = summarize([read_run(long)])
    request.getfixturevalue("small_limits")
    runs = [read_run(long), read_run(trained)]
    assert [each.final for each in summarize(runs[:1])] == [each.final for each in expected]
    page = render(runs)
    assert page.count("trials: 1 of every 8") == 1
    assert "Best reward so far, by agent" in page
