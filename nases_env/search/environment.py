"""The environment that the options of a search describe."""

from __future__ import annotations

import ast
import contextlib
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym

from nases_env.envs import NASESEnv, unwrap
from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.evaluation import auto_preset, resolve_preset, settings_overrides
from nases_env.json_io import require_type
from nases_env.paths import absolute_path
from nases_env.registration import ENV_IDS, MO_ENV_IDS
from nases_env.search.options import SearchArgs
from nases_env.user_modules import import_recorded_module, import_user_module

ENV_OPTIONS = ("preset", "data_dir", "device", "num_threads", "search_space", "embedding", "rungs", "objectives")
"""Options that are passed to the environment if they differ from their defaults."""


def resolved_preset(args: SearchArgs) -> str:
    """Return the preset of ``args``; "auto" depends on the data set and the device."""
    if args.preset != "auto":
        return args.preset
    module, _, env_id = args.env_id.rpartition(":")
    with contextlib.suppress(gym.error.Error, ImportError):  # raised again by ``make_env``
        if module:
            import_user_module(module)
        return auto_preset(gym.spec(env_id).kwargs.get("dataset"), args.data_dir, args.device)
    return auto_preset(device=args.device)


def make_env(args: SearchArgs) -> NASESEnv:
    """Create the environment that ``args`` describe: any registered ``NASESEnv``.

    Modules that a resumed search names are imported by ``import_recorded_module``.

    Raises:
        InputError: if there is no such environment, it has a wrapper, or it does not take an option that was given.
    """
    module, _, env_id = args.env_id.rpartition(":")
    if args.resume is not None:
        space_module, colon, _ = (args.search_space or "").partition(":")
        for name in (module, space_module if colon else ""):
            if name:
                import_recorded_module(name, args.resume)
    try:
        if module:
            import_user_module(module)
        spec = gym.spec(env_id)
        entry_point: Any = spec.entry_point
        env_class: Any = entry_point if callable(entry_point) else gym.envs.registration.load_env_creator(entry_point)
    except (gym.error.Error, ImportError) as error:
        raise InputError(
            f"unknown environment {args.env_id!r} ({one_line(error)}); known: {', '.join((*ENV_IDS, *MO_ENV_IDS))}, or "
            "MODULE:ID for one that MODULE registers"
        ) from None
    if not (isinstance(env_class, type) and issubclass(env_class, NASESEnv)):
        raise InputError(f"{args.env_id} is not an environment for architecture search: it must be a NASESEnv")
    parameters = _parameters(env_class)
    given = {name: getattr(args, name) for name in ENV_OPTIONS if getattr(args, name) != getattr(SearchArgs, name)}
    given |= {name: limit for name, limit in vars(args.limits).items() if limit is not None}
    child = settings_overrides(args.child, resolve_preset(resolved_preset(args))[1])
    rejected = [name for name in given if name not in parameters]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        rejected += [f"child.{name}" for name in child]
    if rejected:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in rejected)
        raise InputError(f"{args.env_id} does not take {options}; omit it, or choose a different environment with --env-id")
    kwargs = _convert_env_kwargs(args, env_class, spec.kwargs)
    if "split_seed" in parameters:
        kwargs["split_seed"] = args.seed
    # The environment checker would load the embedding, which not every agent needs.
    return unwrap(gym.make(spec, disable_env_checker=True, **given, **child, **kwargs))


def _convert_env_kwargs(args: SearchArgs, env_class: type[NASESEnv], set_by_id: dict[str, Any]) -> dict[str, Any]:
    """Check ``args.env_kwargs`` against the signature of ``env_class`` and convert the values to the annotated types."""
    set_elsewhere = ("split_seed", "evaluator", "execution", "render_mode", "info_text")
    reserved = {*ENV_OPTIONS, *vars(args.limits), *set_by_id, *set_elsewhere}
    known = [
        name
        for name, parameter in _parameters(env_class).items()
        if name not in reserved and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    hints = _hints(env_class) if args.env_kwargs else {}
    kwargs = {}
    for name, value in args.env_kwargs.items():
        if name not in known:
            raise InputError(
                f"{args.env_id} does not take --env-kwargs {name}{did_you_mean(name, known)}; "
                f"known: {', '.join(known) or 'none'}"
            )
        kwargs[name] = _convert(name, value, hints.get(name, Any))
    return kwargs


def absolute_env_kwargs(args: SearchArgs, env_class: type[NASESEnv]) -> dict[str, str]:
    """Return ``args.env_kwargs`` with absolute paths in place of those for parameters whose annotation contains ``Path``."""
    absolute = dict(args.env_kwargs)
    hints = _hints(env_class) if args.env_kwargs else {}
    for name, value in args.env_kwargs.items():
        hint = hints.get(name)
        if Path in typing.get_args(hint) and isinstance(path := _convert(name, value, hint), str):
            absolute[name] = str(absolute_path(path))
    return absolute


def _constructors(env_class: type[NASESEnv]) -> Iterator[Any]:
    """Yield the constructor of ``env_class``, and those of base classes to which it passes ``**options``."""
    for each in env_class.__mro__:
        if "__init__" in vars(each):
            constructor = vars(each)["__init__"]
            yield constructor
            if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(constructor).parameters.values()):
                return


def _parameters(env_class: type[NASESEnv]) -> dict[str, inspect.Parameter]:
    """Return the parameters of the constructor of ``env_class`` by name."""
    found: dict[str, inspect.Parameter] = {}
    for constructor in _constructors(env_class):
        _, *parameters = inspect.signature(constructor).parameters.values()  # without self
        for parameter in parameters:
            found.setdefault(parameter.name, parameter)
    return found


def _hints(env_class: type[NASESEnv]) -> dict[str, Any]:
    """Return the types of the parameters of the constructor of ``env_class`` by name."""
    hints: dict[str, Any] = {}
    for constructor in _constructors(env_class):
        hints = {**typing.get_type_hints(constructor), **hints}
    return hints


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Convert a value from the command line to the type ``hint``."""
    literal = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deeply
            literal = ast.literal_eval(value)
    for candidate in (literal, value):
        with contextlib.suppress(ValueError):
            require_type(name, candidate, hint, allow_infinity=True)
            return candidate
    raise InputError(f"--env-kwargs {name} must be {inspect.formatannotation(hint)}, not {value!r}")
