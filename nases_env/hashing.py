"""SHA-256 digests of text, bytes and tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def sha256_hex(*parts: str | bytes | memoryview) -> str:
    """Return the SHA-256 of the concatenated ``parts`` (text as UTF-8) in hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        # Names of files may contain bytes that are not UTF-8, which Python represents as surrogates.
        digest.update(part.encode(errors="surrogatepass") if isinstance(part, str) else part)
    return digest.hexdigest()


def tensor_digest(description: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a JSON value and of the names, dtypes, shapes and values of ``tensors``."""
    parts: list[str | bytes | memoryview] = [json.dumps(description, sort_keys=True)]
    for name, tensor in sorted(tensors.items()):
        parts.append(json.dumps([name, str(tensor.dtype), list(tensor.shape)]))
        parts.append(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha256_hex(*parts)
