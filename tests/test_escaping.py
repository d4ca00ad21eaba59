"""What a file contains is shown as it is: in terminals, Markdown and drawings."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.markdown import Markdown
from rich.table import Table

from nases_env.cli import main as cli
from nases_env.cli.store import main as store_main
from nases_env.console import Console
from nases_env.escaping import escape_markdown, printable
from nases_env.model_io import save_model
from nases_env.tables import markdown_table
from tests.commands import ROOT, run_here, script
from tests.drawings import draw_every_time
from tests.model_io.conftest import tiny_model
from tests.training.images import write_image

SEARCH = script(ROOT / "agents" / "random_search.py")
NASTY = "[red]a[/b]\x1b[31m\x9b2J\r\x07\u202e:cat: <b>|`*_c_`&amp;\n# end"
SHOWN = "[red]a[/b]\\x1b[31m\\x9b2J\\r\\x07\\u202e:cat: <b>|`*_c_`&amp;\\n# end"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def is_safe(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_text_of_a_file_is_printed_with_escapes() -> None:
    assert printable(NASTY) == SHOWN
    assert printable("café 猫 ✔ 3") == "café 猫 ✔ 3"
    assert printable("\udc80") == "\\udc80"


def test_console_prints_lines_and_cells_as_they_are() -> None:
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=True, color_system=None)
    table = Table(NASTY, title=NASTY, box=None, pad_edge=False)
    table.add_row(NASTY)
    console.print(NASTY)
    console.print(table)
    assert [line.strip() for line in output.getvalue().splitlines()] == [SHOWN] * 4


def test_markdown_shows_the_text_as_it_is() -> None:
    """Rich renders the table, so an active character would be missing from the text."""
    output = io.StringIO()
    text = markdown_table(["name", "value"], [NASTY, "plain_name"])
    assert len(text.splitlines()) == 3
    assert "<b>" not in text
    assert "plain_name" in text
    Console(file=output, width=200).print(Markdown(text))
    assert SHOWN in output.getvalue()
    output = io.StringIO()
    Console(file=output, width=200).print(Markdown(escape_markdown(NASTY)))
    assert output.getvalue().strip() == SHOWN


@pytest.fixture(scope="module")
def recorded(tiny_children: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a search with a final training."""
    run_dir = tmp_path_factory.mktemp("recorded") / "run"
    few = ("--search-space", "nasbench201", "--preset", "smoke", "--budget", "2", "--num-finalists", "0")
    assert run_here(SEARCH, *few, "--run-dir", str(run_dir)).returncode == 0
    assert run_here(cli.main, "train", str(run_dir), "--child.num-epochs", "1").returncode == 0
    return run_dir


@pytest.fixture
def run_dir(recorded: Path, tmp_path: Path) -> Path:
    """A copy of ``recorded`` whose name contains markup and control characters."""
    path = tmp_path / "[red]run\x1b[31m"
    shutil.copytree(recorded, path)
    return path


def edit(path: Path, **values: Any) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **values}))


def output_of(*options: str) -> str:
    result = run_here(cli.main, *options)
    assert result.returncode in (0, 1), result.stderr
    assert is_safe(result.stdout), ascii(result.stdout)
    assert is_safe(result.stderr.replace("\r", "")), ascii(result.stderr)
    return result.stdout


def test_status_and_validate_escape_a_run(run_dir: Path) -> None:
    lines = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
    lines[0] |= {"status": "failed", "reason": NASTY, "valid_accuracy": 0.0, "train_accuracy": 0.0, "reward": 0.0}
    lines[1]["key"] = NASTY
    (run_dir / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit(run_dir / "config.json", agent=NASTY)
    shown = output_of("status", str(run_dir))
    assert shown.startswith(printable(run_dir))
    assert f": {SHOWN} in NASES-Digits-v0" in shown
    assert f"child 1: failed {SHOWN}\n" in shown
    assert f"✘ child 2: key {SHOWN} is now " in output_of("validate", str(run_dir))


def test_status_escapes_a_final_training_and_a_reproduction(run_dir: Path) -> None:
    configuration = json.loads((run_dir / "final" / "config.json").read_text())["configuration"]
    edit(run_dir / "final" / "config.json", configuration={**configuration, "dataset": NASTY})
    assert f"final training on {SHOWN}, 1 epoch" in output_of("status", str(run_dir / "final"))
    (run_dir / "config.json").write_text(json.dumps({"preset": NASTY, "agents": [NASTY], "env_id": NASTY}))
    (run_dir / "seed-\x1b").mkdir()
    shown = output_of("status", str(run_dir))
    assert f"reproduction in {SHOWN}, preset {SHOWN}\n" in shown
    assert f"seed-\\x1b, {SHOWN}: search not started" in shown


def test_store_commands_escape_its_rows(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.sqlite"
    shutil.copy(run_dir / "store.sqlite", other)
    for path, accuracy in ((run_dir / "store.sqlite", 0.5), (other, 0.25)):
        database = sqlite3.connect(path)
        database.execute(
            "UPDATE evaluations SET key = ?, valid_accuracy = ?, created = ?", (NASTY[:20], accuracy, NASTY[:9])
        )
        database.execute("UPDATE evaluations SET status = ?, genotype = ?", (NASTY, json.dumps({"name": NASTY})))
        lease = {
            "key": NASTY[:20],
            "digest": "d",
            "seed": 0,
            "owner": "o",
            "host": NASTY.replace("/", ""),
            "pid": 1,
            "heartbeat": 1,
        }
        lease |= {"process_start_time": "", "started": "2026-01-01T00:00:00+00:00"}
        database.execute(
            f"INSERT INTO leases ({', '.join(lease)}) VALUES ({', '.join('?' * len(lease))})", tuple(lease.values())
        )
        database.commit()
        database.close()
    store = str(run_dir / "store.sqlite")
    shown = output_of("store", "ls", store)
    assert printable(NASTY[:20]) in shown
    assert f"process 1 on {SHOWN.replace('/', '')}, for" in shown
    assert SHOWN in output_of("store", "verify", store)
    assert f"{SHOWN} 0.25; {printable(store)} keeps {SHOWN} 0.5" in output_of("store", "merge", store, str(other))
    assert json.loads(output_of("store", "show", store, "[red]"))[0]["genotype"] == {"name": NASTY}
    assert "\x1b" in run_here(cli.main, "store", "export", store).stdout  # a file or a pipe gets the values
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    store_main(["export", store])
    assert SHOWN in terminal.getvalue()
    assert is_safe(terminal.getvalue())


def test_predict_escapes_class_names_and_file_names(tmp_path: Path) -> None:
    model = tiny_model()
    model.class_names = (NASTY, "dog", "eel")
    save_model(model, tmp_path / "model.safetensors")
    image = tmp_path / "[red]image\x1b[2J.png"
    write_image(image)
    shown = output_of("predict", str(tmp_path / "model.safetensors"), str(image))
    assert shown.startswith(f"{printable(image)}:\n")
    assert f"%  {SHOWN}\n" in shown


def test_drawings_show_the_name_of_a_file_as_it_is(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_every_time(monkeypatch)
    file = tmp_path / "$\\frac$ <b>\x1b.json"
    shutil.copy(run_dir / "best.json", file)
    output_of("draw", str(file), "--output", str(tmp_path / "best.svg"))
    assert "$\\frac$ &lt;b&gt;\\x1b.json" in (tmp_path / "best.svg").read_text()


def test_search_prints_the_name_of_its_run_directory_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a[/b]\x1b[31m:cat:"
    result = run_here(SEARCH, "--env-id", "NASES-Synthetic-v0", "--budget", "1", "--run-dir", name)
    assert result.returncode == 0, result.stderr
    assert f"run directory: {printable(name)}\n" in result.stdout
    assert is_safe(result.stdout)
    result = run_here(SEARCH, "--resume", name)
    assert result.stdout.startswith(f"{printable(name)} is finished (1 children); to continue, pass")
    assert result.stdout.count("\n") == 1


def test_report_escapes_the_device_and_the_agent(run_dir: Path) -> None:
    edit(run_dir / "config.json", agent=NASTY)
    result = run_dir / "final" / "seed-0" / "result.json"
    edit(result, device=NASTY)
    assert run_here(cli.main, "train", str(run_dir), "--child.num-epochs", "1").returncode == 0
    text = (run_dir / "final" / "report.md").read_text()
    assert is_safe(text)
    assert "<b>" not in text
    assert f"on {escape_markdown(NASTY)}; tested once" in text
    assert f"children of {escape_markdown(NASTY)} by validation accuracy" in text
    assert json.loads((run_dir / "final" / "report.json").read_text())["search"]["agent"] == NASTY
    output = io.StringIO()
    Console(file=output, width=1000).print(Markdown(text))
    assert f"on {SHOWN}; tested once" in output.getvalue()
