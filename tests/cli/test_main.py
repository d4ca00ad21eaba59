"""``nases`` dispatches to its subcommands."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import nases_env.cli
from nases_env.cli.main import COMMANDS, COMPLETION, main
from tests.commands import error_of, run, run_here


def test_every_module_is_a_command() -> None:
    assert {module.name for module in pkgutil.iter_modules(nases_env.cli.__path__)} == {
        *COMMANDS,
        "agents",
        "main",
        "search_plan",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_rejects_unknown_options_in_one_line(name: str) -> None:
    shown = run_here(main, name, "--help")
    assert shown.returncode == 0
    assert f"usage: nases {name}" in shown.stdout
    words = {
        "status": ["run"],
        "pareto": ["run"],
        "validate": ["run"],
        "draw": ["file"],
        "pretrain": ["--output", "x"],
        "reproduce": [],
    }
    words |= {
        "search": ["digits"],
        "report": ["run"],
        "watch": ["run"],
        "train": ["file"],
        "export": ["run"],
        "predict": ["run", "image"],
        "store": ["ls", "file"],
    }
    assert "unknown option '--typo'" in error_of(run_here(main, name, *words[name], "--typo"))


def test_help_lists_all_commands_and_imports_none() -> None:
    code = "import sys; sys.argv = ['nases', '--help']; from nases_env.cli.main import main; main(); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    *lines, modules = shown.splitlines()
    for name, summary in COMMANDS.items():
        assert any(line.split() == [name, *summary.split()] for line in lines)
        assert importlib.import_module(f"nases_env.cli.{name}").main
    assert "torch" not in modules.split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], f"no command given; the commands of nases are {', '.join(COMMANDS)}"),
        (["trian"], "unknown command 'trian' (did you mean 'train'?); the commands of nases are search, pretrain, "),
        (["store"], "no command given; the commands of nases store are ls, show, export, merge, verify"),
        (["store", "lss", "x"], "unknown command 'lss' (did you mean 'ls'?); the commands of nases store are ls, "),
    ],
)
def test_invalid_command_is_a_one_line_error(options: list[str], message: str) -> None:
    assert message in error_of(run_here(main, *options))


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(run_here(main, COMPLETION, "bash").stdout)
    script = """
source completion
complete_words() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  _tyro_nases
  echo "${COMPREPLY[*]}"
}
complete_words nases va
complete_words nases store ver
complete_words nases train --see
complete_words nases search --dry
"""
    completed = run("bash", "-c", script, folder=tmp_path).stdout.splitlines()
    assert [set(line.split()) for line in completed[:3]] == [{"validate"}, {"verify"}, {"--seed", "--seeds"}]
    assert "--dry-run" in completed[3]
    assert "takes one of bash, fish, zsh" in error_of(run_here(main, COMPLETION, "ksh"))
