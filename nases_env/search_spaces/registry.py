"""The search spaces that ship, by name."""

from __future__ import annotations

from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from nases_env.search_spaces.enas_micro import EnasMicro

_SEARCH_SPACES: dict[str, type[SearchSpace]] = {EnasMicro.name: EnasMicro}


def make_search_space(name: str) -> SearchSpace:
    """The search space called ``name``.

    Raises:
        InputError: if there is none.
    """
    if name not in _SEARCH_SPACES:
        raise InputError(f"unknown search space {name!r}; known: {', '.join(_SEARCH_SPACES)}")
    return _SEARCH_SPACES[name]()
