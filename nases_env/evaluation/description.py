"""Descriptions of configurations: everything that determines results, and the digest by which a store finds them."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import json
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nases_env.hashing import sha256_hex
from nases_env.search_spaces import SEARCH_SPACES, SearchSpace, importable_name


def config_digest(description: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal digits, of a configuration that ``Evaluator.describe`` returned."""
    return sha256_hex(json.dumps(description, sort_keys=True, default=str))


def describe_search_space(space: SearchSpace) -> dict[str, Any]:
    """Return everything that determines the networks of ``space``, as JSON values.

    For a custom space, this includes its attributes, as the texts of ``repr``, its ``source_digest``, and the contents of
    attributes that ``repr`` abbreviates, such as tensors.
    """
    described: dict[str, Any] = {"name": space.name, "decision_sizes": list(space.decision_sizes)}
    if type(space) not in SEARCH_SPACES.values():
        described["class"] = importable_name(space)
        with np.printoptions(threshold=sys.maxsize, floatmode="unique"):  # else the text of an array lacks some numbers
            values = {name: value for name, value in vars(space).items() if not _is_cached(type(space), name)}
            attributes = {name: repr(_with_sorted_sets(value)) for name, value in values.items()}
        if attributes:
            described["attributes"] = attributes
        described |= _describe_contents(values, _digest_of_abbreviated)
        described["source"] = source_digest(type(space))
    return described


def describe_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an evaluator and the contents of arrays, tensors, pandas objects and modules in them.

    The text of such an attribute is not enough, because it is abbreviated.
    """
    texts = {name: _with_sorted_sets(value) for name, value in attributes.items()}
    described = {name: value if _is_json(value) else repr(value) for name, value in texts.items()}
    return described | _describe_contents(attributes, _digest_of_any)


def _with_sorted_sets(value: Any) -> Any:
    """Return a value in which each set is a sorted list of texts: the order of a set of texts differs between processes."""
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_with_sorted_sets(each)) for each in value)
    if type(value) is dict:
        return {key: _with_sorted_sets(each) for key, each in value.items()}
    return type(value)(map(_with_sorted_sets, value)) if type(value) in (list, tuple) else value


def _is_json(value: Any) -> bool:
    """Return whether ``config_digest`` can write a value; it cannot write some keys of dictionaries, such as tuples."""
    try:
        json.dumps(value, sort_keys=True, default=str)
    except TypeError:
        return False
    return True


def _describe_contents(attributes: Mapping[str, Any], digest_of: Callable[[Any], str | None]) -> dict[str, Any]:
    """Return the entry ``contents``: the digests of what is in each attribute; empty if there are none."""
    found = {name: _digests(value, digest_of) for name, value in attributes.items()}
    contents = {name: digests for name, digests in found.items() if digests}
    return {"contents": contents} if contents else {}


def _digests(value: Any, digest_of: Callable[[Any], str | None]) -> list[str]:
    """Return the digests of a value, or of the values that it contains."""
    digest = digest_of(value)
    if digest is not None:
        return [digest]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value) if hasattr(value, "__dict__") else {}
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return []
    return [each for item in value for each in _digests(item, digest_of)]


def _digest_of_any(value: Any) -> str | None:
    return _digest_of_array(value) if isinstance(value, np.ndarray) else _digest_of_abbreviated(value)


def _digest_of_abbreviated(value: Any) -> str | None:
    """Return the digest of a tensor, a torch module or a pandas object; None for another value."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().to_dense()
        numbers = tensor.double() if tensor.is_floating_point() else tensor  # NumPy has no bfloat16
        return sha256_hex(f"{value.dtype} {_digest_of_array(numbers.numpy())}")
    if isinstance(value, torch.nn.Module):
        return sha256_hex(json.dumps([repr(value), _digests(value.state_dict(), _digest_of_any)]))
    if type(value).__module__.startswith("pandas.") and hasattr(value, "to_csv"):
        return sha256_hex(f"{[str(dtype) for dtype in np.atleast_1d(value.dtypes)]}\n{value.to_csv()}")
    return None


def _digest_of_array(array: NDArray[Any]) -> str:
    content = repr(array.tolist()) if array.dtype.hasobject else array.tobytes().hex()
    return sha256_hex(f"{array.dtype} {array.shape} {content}")


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


@cache  # a file that is edited later is not the code that this process has imported
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
