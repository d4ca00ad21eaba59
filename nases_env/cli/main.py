"""The ``nases`` command."""

from __future__ import annotations

import importlib
import sys

from nases_env.command_line import EXIT_STATUSES, run, unknown_command
from nases_env.version import __version__

COMMANDS = {
    "search": "search a good network for a data set",
    "pretrain": "train the embedding of a search space",
    "draw": "draw an architecture",
    "status": "show the progress of a search, a final training or a reproduction",
    "report": "write a report on searches as an HTML page",
    "watch": "show the report on a running search in a browser",
    "validate": "retrain children of a search and compare them with the recorded results",
    "train": "train the best architecture of a search to convergence and test it",
    "reproduce": "run the protocol of the paper: pretrain, search and train for several seeds",
    "export": "convert a trained model to ONNX or torch.export",
    "predict": "classify images with a trained model",
    "store": "inspect, export, merge or verify a result store",
}
"""Subcommands. ``nases NAME`` calls ``main`` of the module ``nases_env.cli.NAME``, which is imported only then."""

HELP = """usage: nases COMMAND [OPTIONS]

NASES: neural architecture search in embedding space.

commands:
{commands}

options:
  -h, --help  show this help
  --version   show the version

exit statuses:
{statuses}

nases COMMAND --help lists the options of a command.""".format(
    commands="\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items()),
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
    elif name in COMMANDS:
        importlib.import_module(f"nases_env.cli.{name}").main(options)
    else:
        raise unknown_command("nases", name, COMMANDS)
