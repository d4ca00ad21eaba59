"""``nases watch``."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nases_env.cli import watch
from nases_env.cli.main import main
from nases_env.cli.watch import ReportServer
from nases_env.search import SearchArgs, SearchRun
from tests.commands import error_of, run_here
from tests.processes import ForkedCommand
from tests.redirections import to_file
from tests.search.acting import RandomActions


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "run"
    with SearchRun(SearchArgs("NASES-Synthetic-v0", budget=3, run_dir=path), agent="random_search") as run:
        run.search(RandomActions(run.env, 0))
    return path


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of a search of which only the first two children are recorded."""
    shutil.copytree(finished, tmp_path / "run")
    lines = (finished / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "evaluations.jsonl").write_text("".join(lines[:2]))
    return tmp_path / "run"


@pytest.fixture
def server(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReportServer]:
    monkeypatch.setattr(watch, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(watch, "MAX_SHARE", float("inf"))
    with ReportServer(run_dir, 0) as started:
        thread = threading.Thread(target=started.serve_forever, args=(0.01,))
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def get(server: ReportServer, path: str = "", **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers), timeout=30) as answer:
        return str(answer.read().decode())


def test_page_and_version_change_with_the_trajectory(server: ReportServer, run_dir: Path, finished: Path) -> None:
    page, version = get(server), get(server, "version")
    assert "2 of 3 children" in page
    assert f'data-version="{version}"' in page
    assert get(server, "version") == version
    shutil.copy(finished / "evaluations.jsonl", run_dir)
    assert get(server, "version") != version
    assert "3 of 3 children" in get(server)


def test_page_remains_while_the_files_cannot_be_read(
    server: ReportServer, run_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    version = get(server, "version")
    (run_dir / "evaluations.jsonl").write_text("{}\n")
    assert get(server, "version") == version
    assert "2 of 3 children" in get(server)


def test_updates_take_a_tenth_of_the_time_at_most(run_dir: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("nases_env.cli.watch.time.monotonic", lambda: now[0])

    def slow(*_: object, version: str) -> str:
        now[0] += 5.0
        return version

    monkeypatch.setattr(watch, "render", slow)
    page = watch.LivePage(run_dir)
    first, _ = page.current()
    lines = (run_dir / "evaluations.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "evaluations.jsonl").write_text(lines[0])
    now[0] += watch.MIN_SECONDS  # the first page includes imports, so its time does not count
    second, _ = page.current()
    assert second != first
    shutil.copy(finished / "evaluations.jsonl", run_dir)
    now[0] += 49.0
    assert page.current()[0] == second
    now[0] += 1.0
    assert page.current()[0] != second


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1"])
def test_page_is_served_through_a_tunnel_with_another_port(host: str, server: ReportServer) -> None:
    assert "<html" in get(server, "?page=1", Host=host)


@pytest.mark.parametrize(
    ("path", "host", "status"), [("config.json", "", 404), ("", "evil.example", 403), ("", "localhost.evil.example:80", 403)]
)
def test_nothing_else_is_served(path: str, host: str, status: int, server: ReportServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(server, path, **({"Host": host} if host else {}))
    assert raised.value.code == status
    raised.value.close()


def test_server_listens_on_this_machine_only(server: ReportServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_used_port_and_wrong_directory_are_one_line(server: ReportServer, run_dir: Path, tmp_path: Path) -> None:
    port = str(server.server_address[1])
    message = error_of(run_here(main, "watch", str(run_dir), "--port", port))
    assert f"cannot use port {port} (Address already in use); pass another --port" in message
    assert "--port must be between 0 and 65535" in error_of(run_here(main, "watch", str(run_dir), "--port", "70000"))
    assert "pass a run directory" in error_of(run_here(main, "watch", str(tmp_path)))


def test_interrupt_ends_it_without_a_message(run_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.touch()
    command = ForkedCommand(
        main, "watch", str(run_dir), "--port", "0", folder=tmp_path, prepare=partial(to_file, str(output))
    )
    while command.is_running() and not output.read_text().endswith("\n"):
        time.sleep(0.01)
    before = output.read_text()
    assert re.search(r"http://127\.0\.0\.1:\d+/", before), before
    command.send_signal(signal.SIGINT)
    result = command.wait()
    assert (result.returncode, output.read_text(), result.stderr) == (0, before, "")
