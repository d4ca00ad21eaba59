"""Search spaces by what a person calls them: the name of one that ships, or MODULE:CLASS for one of their own."""

from __future__ import annotations

import contextlib
import json
import re
from functools import lru_cache
from typing import Any

from nases_env.errors import InputError, did_you_mean, one_line
from nases_env.networks.genotype import NETWORK_KEYS
from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.enas_micro import EnasMicro
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.user_modules import import_user_module

SEARCH_SPACES: dict[str, type[SearchSpace]] = {EnasMicro.name: EnasMicro, NasBench201.name: NasBench201}
"""Those that ship, by name."""


def get_search_space(space: str | SearchSpace) -> SearchSpace:
    """The search space that is called ``space``.

    Args:
        space: the name of one that ships; ``MODULE:CLASS`` for one of your own, a module that can be imported, be it from
            the working folder, as with ``python -m``; or a search space, which is given back as it is.

    Raises:
        InputError: if there is none, its module fails, or it is no search space that can be searched.
    """
    if not isinstance(space, str):
        _check(space, type(space).__name__)
        return space
    return _make(SEARCH_SPACES[space] if space in SEARCH_SPACES else _import(space), space)


def import_path(space: SearchSpace) -> str:
    """What ``get_search_space`` makes ``space`` from: the name of one that ships, else ``MODULE:CLASS``."""
    cls = type(space)
    return space.name if cls in SEARCH_SPACES.values() else f"{cls.__module__}:{cls.__qualname__}"


@lru_cache
def _make(cls: type[SearchSpace], name: str) -> SearchSpace:
    try:
        space = cls()
    except TypeError as error:
        raise InputError(f"{name} cannot be made without arguments ({one_line(error)})") from error
    _check(space, name)
    return space


def _import(name: str) -> type[SearchSpace]:
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise InputError(
            f"unknown search space {name!r}{did_you_mean(name, SEARCH_SPACES)}; known: {', '.join(SEARCH_SPACES)}, and "
            "MODULE:CLASS is one of your own"
        )
    if not all(word.isidentifier() for word in (*module_name.split("."), class_name)):
        raise InputError(f"{name!r} is not MODULE:CLASS, which for the class MySpace in my_space.py is my_space:MySpace")
    try:
        module = import_user_module(module_name)
    except Exception as error:  # whatever a person's own module may raise
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"no module {module_name!r} ({one_line(error)}); run this in the folder that it lies in, or install it"
            ) from None
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"the module {module_name!r} fails when it is imported ({reason})") from error
    cls: Any = getattr(module, class_name, None)
    if cls is None:
        spaces = [word for word, value in vars(module).items() if _is_search_space(value)]
        raise InputError(f"the module {module_name!r} has no class {class_name!r}{did_you_mean(class_name, spaces)}")
    if not _is_search_space(cls):
        raise InputError(f"{name} is no search space; derive it from nases_env.search_spaces.SearchSpace")
    return cls  # type: ignore[no-any-return]


def _is_search_space(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, SearchSpace)


def _check(space: SearchSpace, what: str) -> None:
    """Refuses what cannot be searched, before anything is made for it."""
    if not isinstance(space, SearchSpace):
        raise InputError(f"a search space is a name or derives from nases_env.search_spaces.SearchSpace, not {space!r}")
    name, sizes = getattr(space, "name", None), space.decision_sizes
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{what} has the name {name!r}; give it one of letters, digits, _, - and .")
    if not isinstance(sizes, tuple) or any(type(size) is not int or size < 1 for size in sizes) or max(sizes, default=1) < 2:
        raise InputError(f"{what} has the decision sizes {sizes!r}; give a tuple of integers from 1 on, not all of them 1")
    if type(space.decisions_per_timestep) is not int or space.decisions_per_timestep < 1:
        raise InputError(f"{what} has {space.decisions_per_timestep!r} decisions per step; give an integer from 1 on")


def parse_architecture(text: str, search_space: str | None = None) -> tuple[SearchSpace, Architecture]:
    """The architecture in a JSON file, such as a search's best.json or a model's genotype.json, and its search space.

    What a genotype.json says of the network that is built from it is left aside.

    Args:
        text: what is in the file.
        search_space: what ``get_search_space`` makes it from; None: the one that the file names, or enas_micro where it
            names none that ships. A file does not decide what is imported, so that it cannot name MODULE:CLASS.

    Raises:
        InputError: if it is no architecture of that search space.
    """
    named = EnasMicro.name
    with contextlib.suppress(json.JSONDecodeError):  # which the search space refuses with a reason
        record = json.loads(text)
        if isinstance(record, dict):
            if record.get("search_space") in list(SEARCH_SPACES):
                named = record["search_space"]
            if set(NETWORK_KEYS) <= record.keys():
                text = json.dumps({name: value for name, value in record.items() if name not in NETWORK_KEYS})
    space = get_search_space(search_space or named)
    return space, space.from_json(text)
