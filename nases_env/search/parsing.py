"""The command line of an agent: parse its options, or read those of the search that it resumes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from nases_env.command_line import given_preset, parse, parse_quietly, run
from nases_env.errors import InputError
from nases_env.escaping import printable
from nases_env.evaluation import ChildSettings, resolve_preset
from nases_env.execution.factory import LIMITS, without_unsupported
from nases_env.search.environment import resolved_preset
from nases_env.search.options import OUTPUT_OPTIONS, Args, SearchArgs
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import is_finished
from nases_env.search.time_budget import UNLIMITED_BUDGET

RESUME_OVERRIDABLE = ("budget", "time", "track", "data_dir", "execution", *OUTPUT_OPTIONS)
"""Options that may change when a search is resumed; of the images in ``data_dir``, it records the digest."""

READ_AGAIN = ("--child", "--help", "-h")
"""Prefixes of options that are read with the defaults of the preset. The others have the same values without them."""

REMOTE_OPTIONS = {"ray": "ray_address", "slurm": "slurm_options"}
"""By executor: the option that selects other machines or what they run, which ``--resume`` does not take from a file."""


def run_search(args_type: type[Args], main: Callable[[Args], None]) -> None:
    """Parse the command line of an agent and call ``main`` with its options, as the main function of this process.

    Args:
        args_type: the options of the agent.
        main: the main function; its docstring begins the help text.
    """
    run(lambda: parse_and_search(args_type, main))


def parse_and_search(
    args_type: type[Args],
    main: Callable[[Args], None],
    *,
    options: Sequence[str] | None = None,
    program: str | None = None,
) -> None:
    """Parse the options of an agent and call ``main`` with them.

    With ``--resume`` the defaults are the options of the resumed search. If it is finished, a message is printed instead.

    Args:
        args_type: as in ``run_search``.
        main: as in ``run_search``.
        options: the options as words; None: those of the command line.
        program: name of the program in the help text; None: that of the command line.

    Raises:
        InputError: if an option is not valid.
    """

    def read(default: Args) -> Args:
        args: Args = parse(
            args_type,
            description=main.__doc__,
            default=default,
            args=options,
            prog=program,
            essential=args_type.essential,
        )
        return args

    options = sys.argv[1:] if options is None else list(options)
    given = parse_quietly(args_type, options, args_type(child=ChildSettings()))
    name = (given_preset(options) or args_type.preset) if given is None else resolved_preset(given)
    _, child = resolve_preset(name)
    budget = args_type.budget if given is None or given.time is None else UNLIMITED_BUDGET
    if given is None or budget != args_type.budget or any(word.startswith(READ_AGAIN) for word in options):
        args = read(args_type(child=child, budget=budget))
    else:
        args = dataclasses.replace(given, child=child)
    run_dir = args.resume
    if run_dir is not None:
        recorded = load_args(args_type, run_dir)
        if budget == UNLIMITED_BUDGET and is_finished(run_dir, recorded.budget):
            recorded = dataclasses.replace(recorded, budget=budget)  # only the time limits how it continues
        without = dataclasses.replace(recorded.execution, ray_address=None, slurm_options=None)
        args = read(dataclasses.replace(recorded, execution=without))
        executor = args.execution.executor
        if executor != recorded.execution.executor:
            args = read(dataclasses.replace(recorded, execution=without_unsupported(without, executor)))
            for name in LIMITS:  # the only ones that can change results
                if getattr(without, name) is not None and getattr(args.execution, name) is None:
                    print(
                        f"note: the executor {executor} does not take {name}; the search continues without it",
                        file=sys.stderr,
                    )
        _reject_changed_options(recorded, args)
        _require_remote_options(recorded, args)
        if is_finished(run_dir, args.budget):
            advice = "to continue, pass a larger --budget, or only --time"
            line = f"{printable(run_dir)} is finished ({recorded.budget} children); {advice}"
            print(line, file=sys.stderr if args.log_json else sys.stdout)
            return
    main(args)


def _reject_changed_options(recorded: SearchArgs, args: SearchArgs) -> None:
    given = _flatten(args.with_absolute_paths())
    for name, value in _flatten(recorded.with_absolute_paths()).items():
        if name.split(".")[0] not in RESUME_OVERRIDABLE and given[name] != value:
            option = f"--{name.removeprefix('limits.').replace('_', '-')}"
            raise InputError(f"{option} is {value} in {args.resume} and cannot be changed with --resume; omit it")


def _require_remote_options(recorded: SearchArgs, args: SearchArgs) -> None:
    name = REMOTE_OPTIONS.get(args.execution.executor)
    if name is not None and getattr(args.execution, name) is None:
        before = getattr(recorded.execution, name)
        if before is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} was {before} in {args.resume}; check it and pass it again, or change --executor")


def _flatten(args: Any, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in dataclasses.fields(args):
        value = getattr(args, option.name)
        name = prefix + option.name
        values |= _flatten(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return values
