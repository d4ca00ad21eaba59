"""``nases report``."""

from __future__ import annotations

from pathlib import Path

import pytest

from nases_env.cli.main import main
from nases_env.search import SearchArgs, SearchRun
from tests.commands import error_of, run_here
from tests.search.acting import RandomActions


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("searches") / f"run-{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        with SearchRun(SearchArgs("NASES-Synthetic-v0", budget=4, seed=seed, run_dir=path), agent="random_search") as run:
            run.search(RandomActions(run.env, seed))
    return paths


def test_report_is_written_to_the_run_directory(runs: list[Path]) -> None:
    (runs[0] / "report.html").unlink()
    result = run_here(main, "report", str(runs[0]))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{runs[0] / 'report.html'}\n"
    assert "random_search in NASES-Synthetic-v0" in (runs[0] / "report.html").read_text()


def test_several_searches_are_compared(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_here(main, "report", *map(str, runs))
    assert result.stdout == "comparison.html\n"
    assert "2 searches in NASES-Synthetic-v0" in (tmp_path / "comparison.html").read_text()
    result = run_here(main, "report", *map(str, runs), "--output", "pages/both.html")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "pages" / "both.html").read_bytes() == (tmp_path / "comparison.html").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no run directory is given"),
        (["missing"], "is not a run directory"),
        (["missing", "--data-dir", "images"], "--data-dir is only for --latency; add --latency, or omit it"),
        (["missing", "--output", "store.sqlite"], "--output must end in .html or .htm, not store.sqlite"),
    ],
)
def test_invalid_input_is_a_one_line_error(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(run_here(main, "report", *options))
    assert not list(tmp_path.iterdir())


def test_same_search_is_not_compared_with_itself(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(runs[0])
    error = error_of(run_here(main, "report", str(runs[0]), str(tmp_path / "link"), "--output", str(tmp_path / "both.html")))
    assert error == "error: a run directory is given more than once; pass each one once"
    assert not (tmp_path / "both.html").exists()
