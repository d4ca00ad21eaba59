"""Descriptions of configurations: everything that determines results, and the digest by which a store finds them."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import sys
import uuid
import warnings
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import numpy as np

from nases_env.hashing import sha256_hex
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, import_path


def config_digest(description: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal digits, of a configuration that ``Evaluator.describe`` returned."""
    return sha256_hex(json.dumps(description, sort_keys=True, default=str))


def describe_search_space(space: SearchSpace) -> dict[str, Any]:
    """Return everything that determines the networks of ``space``, as JSON values.

    For a custom space, this includes its attributes, as the texts of ``repr``, and its ``source_digest``.
    """
    described: dict[str, Any] = {"name": space.name, "decision_sizes": list(space.decision_sizes)}
    if type(space) not in SEARCH_SPACES.values():
        described["class"] = import_path(space)
        with np.printoptions(threshold=sys.maxsize, floatmode="unique"):  # else the text of an array lacks some numbers
            attributes = {name: repr(value) for name, value in vars(space).items() if not _is_cached(type(space), name)}
        if attributes:
            described["attributes"] = attributes
        described["source"] = source_digest(type(space))
    return described


def _is_cached(cls: type, name: str) -> bool:
    """Return whether an attribute is the value of a ``cached_property``, which appears when it is first read."""
    return isinstance(getattr(cls, name, None), cached_property)


def is_custom(cls: type) -> bool:
    """Return whether a class is not part of this package."""
    return cls.__module__.split(".")[0] != "nases_env"


def source_digest(cls: type) -> str:
    """Return the digest of the source files of a custom class and of its own base classes.

    It excludes the blocks ``if __name__ == "__main__"`` and other modules that these files import. If a source cannot be
    read, the digest is valid in this process only, so that no result of an earlier version of it is used.
    """
    own = [
        each for each in reversed(cls.__mro__) if is_custom(each) and each.__module__ not in ("builtins", "abc", "typing")
    ]
    return sha256_hex("".join(dict.fromkeys(map(_source, own))))  # classes of one module have the same source


def _source(cls: type) -> str:
    """Return the source of the module of a class, in an interactive session that of the class, or ``_unknown_source``."""
    try:
        text = inspect.getsource(inspect.getmodule(cls) or cls)
        with warnings.catch_warnings():  # of the module, which Python has shown when it was imported
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (OSError, TypeError, SyntaxError):
        with contextlib.suppress(OSError, TypeError):
            return inspect.getsource(cls)
        return _unknown_source(cls)
    lines = text.splitlines()
    return "\n".join(
        line for node in body if not _is_main_guard(node) for line in lines[_first_line(node) : node.end_lineno]
    )


@cache
def _unknown_source(cls: type) -> str:
    """Return a text that differs from those of all other classes, also of a class that is defined again."""
    return uuid.uuid4().hex


def _first_line(node: ast.stmt) -> int:
    """Return the index of the first line of a statement, which is that of its first decorator if it has one."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
