"""Digests are the SHA-256 of their parts, and every change of a tensor changes them."""

from __future__ import annotations

import hashlib

import torch

from nases_env.hashing import sha256_hex, tensor_digest


def test_sha256_of_text_and_bytes() -> None:
    expected = hashlib.sha256("aé".encode() + b"\x00\x01").hexdigest()
    assert sha256_hex("aé", b"\x00\x01") == sha256_hex("a", "é", memoryview(b"\x00\x01")) == expected


def test_tensor_digest_covers_description_name_dtype_shape_and_values() -> None:
    tensor = torch.arange(6.0)
    digests = {
        tensor_digest({"seed": 1}, {"a": tensor}),
        tensor_digest({"seed": 2}, {"a": tensor}),
        tensor_digest({"seed": 1}, {"b": tensor}),
        tensor_digest({"seed": 1}, {"a": tensor.view(torch.int32)}),
        tensor_digest({"seed": 1}, {"a": tensor.view(2, 3)}),
        tensor_digest({"seed": 1}, {"a": tensor + 1}),
    }
    assert len(digests) == 6
    strided = torch.stack((tensor, tensor), dim=1)[:, 0]
    assert tensor_digest({"seed": 1}, {"a": strided}) in digests
