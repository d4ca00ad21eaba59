"""Search spaces by name: a built-in name, or MODULE:CLASS for a custom search space."""

from __future__ import annotations

import contextlib
import json
import re
from functools import lru_cache
from typing import Any, TypeGuard

from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.json_io import parse_json
from nases_env.networks.genotype import NETWORK_KEYS
from nases_env.search_spaces.accel import Accel
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.enas_micro import EnasMicro
from nases_env.search_spaces.enas_micro_sized import EnasMicroSized
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.search_spaces.transnas_micro import TransNASMicro
from nases_env.user_modules import import_user_module

SEARCH_SPACES: dict[str, type[SearchSpace]] = {
    space.name: space for space in (EnasMicro, EnasMicroSized, NasBench201, TransNASMicro, Accel)
}
"""The built-in search spaces by name."""


def get_search_space(space: str | SearchSpace) -> SearchSpace:
    """Return the search space called ``space``.

    Args:
        space: name of a built-in search space; ``MODULE:CLASS`` for a custom one, importable from ``sys.path`` or the
            working directory, as with ``python -m``; or a search space, which is returned.

    Raises:
        InputError: if it does not exist, its module fails, or it is not a valid search space.
    """
    if not isinstance(space, str):
        _check(space, type(space).__name__)
        return space
    return _make(SEARCH_SPACES[space] if space in SEARCH_SPACES else _import(space), space)


def importable_name(space: SearchSpace) -> str:
    """Return the argument of ``get_search_space`` for ``space``: a built-in name, otherwise ``MODULE:CLASS``.

    Arguments of the constructor, such as the order of the operators, are lost.
    """
    cls = type(space)
    return space.name if cls in SEARCH_SPACES.values() else f"{cls.__module__}:{cls.__qualname__}"


@lru_cache
def _make(cls: type[SearchSpace], name: str) -> SearchSpace:
    try:
        space = cls()
    except Exception as error:  # a custom class may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{name} cannot be created without arguments ({reason})") from error
    _check(space, name)
    return space


def _import(name: str) -> type[SearchSpace]:
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise InputError(
            f"unknown search space {name!r}{did_you_mean(name, SEARCH_SPACES)}; known: {', '.join(SEARCH_SPACES)}, or "
            "MODULE:CLASS for a custom one"
        )
    if not all(word.isidentifier() for word in (*module_name.split("."), class_name)):
        raise InputError(f"{name!r} is not MODULE:CLASS; write my_space:MySpace for the class MySpace in my_space.py")
    try:
        module = import_user_module(module_name)
    except Exception as error:  # a custom module may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"no module {module_name!r} ({one_line(error)}); run this in its directory, or install it"
            ) from None
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"the module {module_name!r} fails when it is imported ({reason})") from error
    cls: Any = getattr(module, class_name, None)
    if cls is None:
        spaces = [word for word, value in vars(module).items() if _is_search_space(value)]
        raise InputError(f"the module {module_name!r} has no class {class_name!r}{did_you_mean(class_name, spaces)}")
    if not _is_search_space(cls):
        raise InputError(f"{name} is not a search space; derive it from nases_env.search_spaces.SearchSpace")
    return cls


def _is_search_space(value: Any) -> TypeGuard[type[SearchSpace]]:
    return isinstance(value, type) and issubclass(value, SearchSpace)


def _check(space: SearchSpace, what: str) -> None:
    """Raise ``InputError`` if ``space`` is not a valid search space."""
    if not isinstance(space, SearchSpace):
        if _is_search_space(space):
            raise InputError(f"pass an instance of the search space, {space.__name__}(), not the class")
        raise InputError(f"a search space must be a name or derive from nases_env.search_spaces.SearchSpace, not {space!r}")
    name, sizes = getattr(space, "name", None), space.decision_sizes
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{what} has the name {name!r}; use letters, digits, _, - and .")
    if not isinstance(sizes, tuple) or any(type(size) is not int or size < 1 for size in sizes) or max(sizes, default=1) < 2:
        raise InputError(f"{what} has invalid decision sizes {sizes!r}; use a tuple of positive integers, not all of them 1")
    if type(space.decisions_per_timestep) is not int or space.decisions_per_timestep < 1:
        raise InputError(f"{what} has {space.decisions_per_timestep!r} decisions per time step; use a positive integer")
    _check_names(space, what)


def _check_names(space: SearchSpace, what: str) -> None:
    names, sizes = space.decision_names, space.decision_sizes
    if names and (not isinstance(names, (tuple, list)) or len(names) != len(sizes)):
        raise InputError(f"{what} has {len(sizes)} decisions and the decision_names {names!r}; name each of them")
    if space.choice_names and not isinstance(space.choice_names, (tuple, list)):
        raise InputError(f"{what} has the choice_names {space.choice_names!r}; name each choice of each decision, or none")
    num_names = tuple(len(choices) if isinstance(choices, (tuple, list)) else 0 for choices in space.choice_names or ())
    if num_names not in ((), sizes):
        raise InputError(
            f"{what} has choice_names of the sizes {num_names!r}, not {sizes!r}; name each choice of each decision, or none"
        )


def parse_architecture(text: str, search_space: str | None = None) -> tuple[SearchSpace, Architecture]:
    """Parse the JSON text of an architecture, such as best.json of a search or genotype.json of a model.

    The network settings in genotype.json are ignored.

    Args:
        text: the JSON text.
        search_space: argument of ``get_search_space``; None uses the built-in search space named in the text, otherwise
            enas_micro. A file cannot name MODULE:CLASS, so that reading a file never imports code.

    Returns:
        The search space and the architecture.

    Raises:
        InputError: if it is not an architecture of that search space.
    """
    named = EnasMicro.name
    with contextlib.suppress(ValueError):  # the search space reports the reason
        record = parse_json(text)
        if isinstance(record, dict):
            if record.get("search_space") in list(SEARCH_SPACES):
                named = record["search_space"]
            if set(NETWORK_KEYS) <= record.keys():
                text = json.dumps({name: value for name, value in record.items() if name not in NETWORK_KEYS})
    space = get_search_space(search_space or named)
    return space, space.from_json(text)
