"""How the command of an agent reads its arguments: those of a new search, or those of a run that it goes on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from nases_env.command_line import parse, run
from nases_env.errors import InputError
from nases_env.search.options import SearchArgs
from nases_env.search.run_dir import is_finished, load_args

Args = TypeVar("Args", bound=SearchArgs)

GIVEN_ANEW = ("budget", "execution")
"""The options that a search may be gone on with differently."""


def run_search(
    args_type: type[Args], main: Callable[[Args], None], preset: Callable[[Args], Args | None] = lambda args: None
) -> None:
    """Parses the command line into ``args_type`` and runs ``main``, as ``nases_env.command_line.run_command``.

    With ``--resume`` the options are those of the run. A run that is finished is said to be so.

    Args:
        args_type: the agent's options.
        main: its docstring is what ``--help`` begins with.
        preset: what options that were not given should be, by those that were; None: what ``args_type`` says.
    """

    def read(**options: Any) -> Args:
        args: Args = parse(args_type, description=main.__doc__, **options)
        return args

    def parse_and_run() -> None:
        args = read()
        run_dir = args.resume
        if run_dir is not None:
            known = load_args(args_type, run_dir)
            args = read(default=known)
            _refuse_changes(known, args)
            if is_finished(run_dir, args.budget):
                print(f"{run_dir} is finished: it has its {known.budget} children; --budget goes on with it")
                return
        elif (default := preset(args)) is not None:
            args = read(default=default)
        main(args)

    run(parse_and_run)


def _refuse_changes(known: SearchArgs, args: SearchArgs) -> None:
    for field in dataclasses.fields(known):
        before, now = getattr(known, field.name), getattr(args, field.name)
        if field.name not in GIVEN_ANEW and before != now:
            option = f"--{field.name.replace('_', '-')}"
            raise InputError(f"{option} is {before} in {args.resume} and cannot be changed with --resume; leave it out")
