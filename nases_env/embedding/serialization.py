"""Embeddings on disk: safetensors files whose metadata says what they are, and the ones that ship with the package."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.embedding.autoencoder import Embedding
from nases_env.errors import InputError
from nases_env.search_spaces import SearchSpace, import_path

FORMAT_VERSION = 1


def save_embedding(embedding: Embedding, path: str | os.PathLike[str]) -> None:
    """Write an embedding to ``path``, atomically; ``load_embedding`` reads it back exactly.

    The file is safetensors. Its metadata has one entry, ``embedding``: a JSON object with the format version, the search
    space's name, its decision sizes and decisions per step, the embedding size, the hidden size, the decoder's loss and the
    SHA-256 of the weights.

    Raises:
        InputError: if it cannot be written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in embedding.state_dict().items()}
    description = {
        "format_version": FORMAT_VERSION,
        "search_space": embedding.search_space_name,
        "decision_sizes": list(embedding.decision_sizes),
        "decisions_per_step": embedding.decisions_per_timestep,
        "embedding_size": embedding.embedding_size,
        "hidden_size": embedding.hidden_size,
        "loss": embedding.loss,
        "sha256": _digest(tensors),
    }
    # One entry, because safetensors writes several in an order that differs between runs.
    write_atomically(Path(path), safetensors.torch.save(tensors, {"embedding": json.dumps(description)}))


def load_embedding(search_space: SearchSpace, path: str | os.PathLike[str] | None = None) -> Embedding:
    """The embedding in a file, or the one that ships for ``search_space``; frozen, and shared with nobody.

    Args:
        search_space: the space that the embedding must have been trained for.
        path: a file that ``save_embedding`` wrote; ``None`` is the package's own for this space.

    Raises:
        InputError: if there is no such file, or it is not intact, or it was made for another space.
    """
    if path is not None:
        return _load(search_space, Path(path))
    shipped = resources.files("nases_env.embedding") / "weights" / f"{search_space.name}.safetensors"
    if not shipped.is_file():
        raise InputError(
            f"no embedding ships for the search space {search_space.name}; train one with "
            f"{_command(search_space, 'FILE')} and give that file"
        )
    with resources.as_file(shipped) as shipped_path:
        return _load(search_space, shipped_path)


def _load(search_space: SearchSpace, path: Path) -> Embedding:
    description, tensors = _read(search_space, path)
    expected = {
        "format_version": FORMAT_VERSION,
        "search_space": search_space.name,
        "decision_sizes": list(search_space.decision_sizes),
        "decisions_per_step": search_space.decisions_per_timestep,
    }
    for name, value in expected.items():
        if description.get(name) != value:
            raise InputError(
                f"{path} has {name.replace('_', ' ')} {description.get(name)}, but {search_space.name} needs {value}; train "
                f"an embedding for it with {_command(search_space, 'FILE')}"
            )
    try:
        if description["sha256"] != _digest(tensors):
            raise ValueError("its weights have changed")
        sizes = {name: description[name] for name in ("embedding_size", "hidden_size", "loss")}
        embedding = Embedding(search_space, **sizes)
        embedding.load_state_dict(tensors)
    except (InputError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(search_space, path, error) from error
    return embedding.requires_grad_(False)


def _read(search_space: SearchSpace, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}; {_command(search_space, path)} makes one")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads(file.metadata()["embedding"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise _damaged(search_space, path, error) from error
    if not isinstance(description, dict):
        raise _damaged(search_space, path, TypeError("its metadata is no JSON object"))
    return description, tensors


def _damaged(search_space: SearchSpace, path: Path, error: Exception) -> InputError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return InputError(f"{path} is not an intact embedding ({reason}); make it again with {_command(search_space, path)}")


def _command(search_space: SearchSpace, output: Path | str) -> str:
    return f"`nases pretrain --search-space {import_path(search_space)} --output {output}`"


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
