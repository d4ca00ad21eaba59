"""Descriptions of configurations: everything that determines results, and the digest by which a store finds them."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import warnings
from collections.abc import Mapping
from typing import Any

from nases_env.hashing import sha256_hex
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, import_path


def config_digest(description: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal digits, of a configuration that ``Evaluator.describe`` returned."""
    return sha256_hex(json.dumps(description, sort_keys=True, default=str))


def describe_search_space(space: SearchSpace) -> dict[str, Any]:
    """Return everything that determines the networks of ``space``, as JSON values.

    For a custom space, this includes the source files of its class and of its own base classes, without the part that runs
    only if such a file is executed. It does not include other modules that they import.
    """
    described: dict[str, Any] = {"name": space.name, "decision_sizes": list(space.decision_sizes)}
    if type(space) not in SEARCH_SPACES.values():
        described["class"] = import_path(space)
        if source := "".join(map(_source, _own_classes(type(space)))):
            described["source"] = sha256_hex(source)
    return described


def _own_classes(cls: type) -> list[type]:
    """Return the first class of each module among a class and its base classes that are not part of this package."""
    by_module = {each.__module__: each for each in reversed(cls.__mro__)}
    return [each for name, each in by_module.items() if name.split(".")[0] not in ("nases_env", "builtins", "abc", "typing")]


def _source(cls: type) -> str:
    """Return the source of the module of a class, in an interactive session that of the class; empty if there is none."""
    try:
        text = inspect.getsource(inspect.getmodule(cls) or cls)
        with warnings.catch_warnings():  # of the module, which Python has shown when it was imported
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (OSError, TypeError, SyntaxError):
        with contextlib.suppress(OSError, TypeError):
            return inspect.getsource(cls)
        return ""
    lines = text.splitlines()
    return "\n".join(
        line for node in body if not _is_main_guard(node) for line in lines[_first_line(node) : node.end_lineno]
    )


def _first_line(node: ast.stmt) -> int:
    """Return the index of the first line of a statement, which is that of its first decorator if it has one."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)}
