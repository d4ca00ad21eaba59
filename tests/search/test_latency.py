"""The latency of the best children of a search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nases_env.cli.main import main
from nases_env.evaluation import measure_latencies
from nases_env.report import rank
from nases_env.search import SearchArgs, SearchRun
from nases_env.search.latency import with_latencies
from nases_env.search.run_report import read_run
from tests.commands import error_of, run_here
from tests.search.acting import RandomActions

pytestmark = pytest.mark.usefixtures("tiny_children")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "run"
    small: dict[str, Any] = {"preset": "smoke", "search_space": "nasbench201"}
    args = SearchArgs("NASES-Digits-v0", **small, budget=7, num_finalists=2, run_dir=path)
    with SearchRun(args, agent="random_search") as run:
        run.search(RandomActions(run.env, 0))
    return path


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = measure_latencies.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "round_seconds", 0.0)


def test_best_children_are_measured_and_finalists_are_first(trained: Path) -> None:
    run = with_latencies(read_run(trained), trained)
    measured = [each.number for each in run.latencies]
    assert measured == [child.number for child in rank(run.children, run.finalists)[:5]]
    assert measured[:2] == [finalist.number for finalist in run.finalists]
    assert run.processor


def test_page_has_the_latencies_only_if_they_are_measured(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run_here(main, "report", str(trained), "--output", str(page)).returncode == 0
    assert f"nases report {trained} --latency" in page.read_text()
    assert "Accuracy and latency" not in page.read_text()
    assert run_here(main, "report", str(trained), "--latency", "--output", str(page)).returncode == 0
    assert "Accuracy and latency" in page.read_text()
    assert "median (ms)" in page.read_text()


def test_search_without_networks_is_a_one_line_error(tmp_path: Path) -> None:
    with SearchRun(SearchArgs("NASES-Synthetic-v0", budget=2, run_dir=tmp_path / "run"), agent="random_search") as run:
        run.search(RandomActions(run.env, 0))
    before = (tmp_path / "run" / "report.html").read_bytes()
    message = error_of(run_here(main, "report", str(tmp_path / "run"), "--latency"))
    assert "--latency is for searches that train networks" in message
    assert (tmp_path / "run" / "report.html").read_bytes() == before


def test_search_without_a_result_is_a_one_line_error(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "evaluations.jsonl").write_text("")
    (tmp_path / "run" / "finalists.json").unlink()
    assert "has a result, so --latency has nothing to measure" in error_of(
        run_here(main, "report", str(tmp_path / "run"), "--latency")
    )


def test_changed_settings_are_a_one_line_error(trained: Path, tmp_path: Path) -> None:
    """The networks would be others than those of the search; another machine's device does not change them."""
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["configuration"] |= {"device": "cuda", "num_threads": None}
    config["arguments"]["device"] = "cuda:99"
    path.write_text(json.dumps(config))
    assert run_here(main, "report", str(tmp_path / "run"), "--latency").returncode == 0
    config["configuration"]["images"] = "other"
    path.write_text(json.dumps(config))
    assert "these settings differ from those of" in error_of(run_here(main, "report", str(tmp_path / "run"), "--latency"))
