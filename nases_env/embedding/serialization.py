"""Saving and loading embeddings, including the built-in ones."""

from __future__ import annotations

import contextlib
import os
from importlib import resources
from pathlib import Path
from typing import Any

from nases_env.embedding.autoencoder import Embedding
from nases_env.errors import InputError, one_line
from nases_env.escaping import quoted
from nases_env.safetensors_file import InvalidFileError, load_tensors, save_tensors
from nases_env.search_spaces import SearchSpace, get_search_space, importable_name

FORMAT_VERSION = 2


def save_embedding(embedding: Embedding, path: str | os.PathLike[str]) -> None:
    """Write ``embedding`` to ``path``, atomically; ``load_embedding`` restores it exactly.

    The file is safetensors. Its metadata has one entry, ``embedding``: a JSON object with the format version, the search
    space's name, decision sizes and decisions per time step, the embedding size, the hidden size, the decoder's loss and the
    SHA-256 of the content.

    Raises:
        InputError: if the file cannot be written.
    """
    record = {
        "format_version": FORMAT_VERSION,
        "search_space": embedding.search_space_name,
        "decision_sizes": list(embedding.decision_sizes),
        "decisions_per_timestep": embedding.decisions_per_timestep,
        "embedding_size": embedding.embedding_size,
        "hidden_size": embedding.hidden_size,
        "loss": embedding.loss,
    }
    tensors = {name: tensor.contiguous() for name, tensor in embedding.state_dict().items()}
    save_tensors(Path(path), "embedding", record, tensors)


def load_embedding(search_space: SearchSpace, path: str | os.PathLike[str] | None = None) -> Embedding:
    """Load a frozen embedding from a file, or the built-in embedding of ``search_space``. Every call returns a new object.

    Args:
        search_space: the search space that the embedding was trained for.
        path: a file written by ``save_embedding``; None: the built-in embedding.

    Raises:
        InputError: if the file does not exist, is damaged, or belongs to a different search space.
    """
    if path is not None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"pass the path of an embedding that save_embedding wrote, not {type(path).__name__}")
        return _load(search_space, Path(path))
    built_in = resources.files("nases_env.embedding") / "weights" / f"{search_space.name}.safetensors"
    if not built_in.is_file():
        raise InputError(
            f"there is no built-in embedding for the search space {search_space.name}; train one with "
            f"{_command(search_space, 'FILE')} and pass that file"
        )
    with resources.as_file(built_in) as built_in_path:
        return _load(search_space, built_in_path)


def _load(search_space: SearchSpace, path: Path) -> Embedding:
    if not path.is_file():
        raise InputError(f"there is no file {path}; create it with {_command(search_space, path)}")
    try:
        record, tensors = load_tensors(path, "embedding")
    except InvalidFileError as error:
        raise _invalid(search_space, path, str(error)) from error
    for name, value in {"format_version": FORMAT_VERSION, **_requirements(search_space)}.items():
        if record.get(name) != value:
            raise InputError(
                f"{path} has {name.replace('_', ' ')} {record.get(name)}, but {search_space.name} requires {value}; train "
                f"an embedding for it with {_command(search_space, 'FILE')}"
            )
    try:
        sizes = {name: record[name] for name in ("embedding_size", "hidden_size", "loss")}
        embedding = Embedding(search_space, **sizes)
        embedding.load_state_dict(tensors)
    except (InputError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _invalid(search_space, path, one_line(f"{type(error).__name__}: {error}")) from error
    return embedding.requires_grad_(False)


def _requirements(search_space: SearchSpace) -> dict[str, Any]:
    """Return what the record of an embedding of ``search_space`` must contain."""
    return {
        "search_space": search_space.name,
        "decision_sizes": list(search_space.decision_sizes),
        "decisions_per_timestep": search_space.decisions_per_timestep,
    }


def _invalid(search_space: SearchSpace, path: Path, reason: str) -> InputError:
    return InputError(f"{path} is damaged or not an embedding ({reason}); recreate it with {_command(search_space, path)}")


def _command(search_space: SearchSpace, output: Path | str) -> str:
    """Return the command that pretrains an embedding, or the functions if the command cannot create ``search_space``."""
    name = importable_name(search_space)
    with contextlib.suppress(InputError):
        if not name.startswith("__main__:") and _requirements(get_search_space(name)) == _requirements(search_space):
            return f"`nases pretrain --search-space {name} --output {quoted(output)}`"
    return "`pretrain` and `save_embedding` of nases_env.embedding"
