"""The ``nases`` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

from nases_env.command_line import EXIT_STATUSES, parse, run, unknown_command
from nases_env.errors import InputError
from nases_env.version import __version__

COMMANDS = {
    "search": "search for a good network for a data set",
    "pretrain": "train the embedding of a search space",
    "draw": "draw an architecture",
    "status": "show the progress of a search, a final training or a reproduction",
    "report": "write a report on searches as an HTML page",
    "watch": "show the report on a running search in a browser",
    "pareto": "show the Pareto front of accuracy and a cost",
    "validate": "retrain children of a search and compare them with the recorded results",
    "train": "train the best architecture of a search to convergence and test it",
    "reproduce": "run the protocol of the paper: pretrain, search and train for several seeds",
    "export": "convert a trained model to ONNX, torch.export or a Python file",
    "predict": "classify images with a trained model",
    "store": "inspect, export, merge or verify a result store",
}
"""Subcommands. ``nases NAME`` calls ``main`` of the module ``nases_env.cli.NAME``, which is imported only then. ``ARGS`` in
that module is the type of its arguments."""

COMPLETION, SHELLS = "--tyro-print-completion", ("bash", "fish", "zsh")

HELP = """usage: nases COMMAND [OPTIONS]

NASES: neural architecture search in embedding space.

commands:
{commands}

options:
  -h, --help  show this help
  --version   show the version
  {completion} SHELL
              print the completion script of a shell: {shells}

exit statuses:
{statuses}

nases COMMAND --help lists the options of a command.""".format(
    commands="\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items()),
    completion=COMPLETION,
    shells=", ".join(SHELLS),
    statuses="\n".join(f"  {status:<10} {meaning}" for status, meaning in EXIT_STATUSES.items()),
)


def main() -> None:
    """Run the ``nases`` command."""
    run(_main)


def _main() -> None:
    name, *options = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(HELP)
    elif name == "--version":
        print(f"nases {__version__}")
    elif name == COMPLETION:
        _print_completion(options)
    elif name in COMMANDS:
        importlib.import_module(f"nases_env.cli.{name}").main(options)
    else:
        raise unknown_command("nases", name, COMMANDS)


def _print_completion(shells: Sequence[str]) -> None:
    """Print the completion script of all commands for one of ``SHELLS``; this imports the modules of all commands."""
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise InputError(f"{COMPLETION} takes one of {', '.join(SHELLS)}, such as nases {COMPLETION} bash")
    import tyro

    modules = {name: importlib.import_module(f"nases_env.cli.{name}") for name in COMMANDS}
    args_types: Any = tuple(Annotated[module.ARGS, tyro.conf.subcommand(name)] for name, module in modules.items())
    parse(Union[args_types], prog="nases", args=[COMPLETION, *shells])  # noqa: UP007 - not known before
