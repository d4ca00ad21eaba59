"""Safetensors files that contain a JSON record and a digest of their content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.errors import one_line
from nases_env.hashing import tensor_digest
from nases_env.json_io import parse_json


class InvalidFileError(Exception):
    """A file that is not safetensors, has no record of the expected kind, or is damaged. ``str(error)`` is one line."""


def save_tensors(path: Path, kind: str, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` and ``record`` to ``path``, atomically; the same content gives the same bytes.

    The metadata of the file has one entry, because safetensors writes several in no fixed order.

    Args:
        path: the file.
        kind: name of the metadata entry that holds the record.
        record: JSON values. ``sha256``, the ``tensor_digest`` of the record and the tensors, is added.
        tensors: contiguous tensors on the CPU that share no memory.

    Raises:
        InputError: if the file cannot be written.
    """
    record = json.loads(json.dumps(record))  # the digest is of the values that are read back
    content = {**record, "sha256": tensor_digest(record, tensors)}
    write_atomically(path, safetensors.torch.save(dict(tensors), {kind: json.dumps(content)}))


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the record and the tensors that ``save_tensors`` wrote.

    Raises:
        FileNotFoundError: if there is no file.
        InvalidFileError: if the file is damaged or contains a different kind of content.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        record = parse_json(metadata[kind], allow_infinity=True) if kind in metadata else None
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InvalidFileError(one_line(f"{type(error).__name__}: {error}")) from error
    if not isinstance(record, dict):
        raise InvalidFileError(f"its metadata has no entry {kind!r} with a JSON object")
    if record.pop("sha256", None) != tensor_digest(record, tensors):
        raise InvalidFileError("its content does not match its SHA-256")
    return record, tensors
