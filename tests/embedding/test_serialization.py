from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nases_env.embedding import Embedding, load_embedding, save_embedding
from nases_env.errors import InputError
from nases_env.safetensors_file import load_tensors, save_tensors
from nases_env.search_spaces import SearchSpace, get_search_space
from tests.embedding.spaces import DefaultSpace, ListSpace


@pytest.fixture
def path(trained: Embedding, tmp_path: Path) -> Path:
    save_embedding(trained, tmp_path / "embedding.safetensors")
    return tmp_path / "embedding.safetensors"


def rewrite(path: Path, **changes: object) -> None:
    """Change entries of the record of an intact file; None removes an entry."""
    record, tensors = load_tensors(path, "embedding")
    save_tensors(path, "embedding", {k: v for k, v in {**record, **changes}.items() if v is not None}, tensors)


def assert_rejected(space: SearchSpace, path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        load_embedding(space, path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def assert_same(first: Embedding, second: Embedding) -> None:
    assert first.loss == second.loss
    assert first.decision_sizes == second.decision_sizes
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_saved_embedding_is_restored_exactly_and_frozen(trained: Embedding, space: SearchSpace, path: Path) -> None:
    loaded = load_embedding(space, path)
    assert_same(loaded, trained)
    embeddings = np.random.default_rng(0).standard_normal((100, 3))
    np.testing.assert_array_equal(loaded.decode(embeddings), trained.decode(embeddings))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    per_step=st.integers(1, 4),
    embedding_size=st.integers(1, 5),
    loss=st.sampled_from(["cross_entropy", "least_squares"]),
)
def test_round_trip_of_any_embedding(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], per_step: int, embedding_size: int, loss: str
) -> None:
    space = ListSpace(tuple(sizes), per_step)
    embedding = Embedding(space, embedding_size=embedding_size, hidden_size=4, loss=loss)  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("weights") / "embedding.safetensors"
    save_embedding(embedding, path)
    assert_same(load_embedding(space, path), embedding)


def test_file_is_deterministic(trained: Embedding, path: Path, tmp_path: Path) -> None:
    save_embedding(trained, tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_loaded_embeddings_share_no_memory(space: SearchSpace, path: Path) -> None:
    first, second = load_embedding(space, path), load_embedding(space, path)
    with torch.no_grad():
        first.decoder.bias.add_(1.0)
    assert not torch.equal(first.decoder.bias, second.decoder.bias)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated_file_is_an_input_error(space: SearchSpace, path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:cut])
    assert_rejected(space, path, "is damaged or not an embedding")


def test_flipped_bit_is_an_input_error(space: SearchSpace, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    assert_rejected(space, path, "its content does not match its SHA-256")


@pytest.mark.parametrize("content", [b"PK\x03\x04 zip archive", b"\xff" * 64, b"{}"])
def test_other_file_format_is_an_input_error(space: SearchSpace, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert_rejected(space, path, "is damaged or not an embedding")


@pytest.mark.parametrize("metadata", [None, {}, {"embedding": "no json"}, {"embedding": "[]"}, {"other": "{}"}])
def test_other_safetensors_file_is_an_input_error(space: SearchSpace, path: Path, metadata: dict[str, str] | None) -> None:
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}, metadata))
    assert_rejected(space, path, "is damaged or not an embedding")


@pytest.mark.parametrize("name", ["embedding_size", "hidden_size", "loss"])
@pytest.mark.parametrize("value", [None, "hinge", 0, 5, -1, [1]])
def test_record_that_does_not_match_the_weights_is_an_input_error(
    space: SearchSpace, path: Path, name: str, value: object
) -> None:
    rewrite(path, **{name: value})
    assert_rejected(space, path, "is damaged or not an embedding")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"search_space": "enas_macro"}, "search space enas_macro"),
        ({"decision_sizes": [2, 5]}, r"decision sizes \[2, 5\]"),
        ({"decisions_per_timestep": 4}, "decisions per timestep 4"),
        ({"format_version": 1}, "format version 1"),
        ({"search_space": None}, "search space None"),
    ],
)
def test_embedding_of_another_search_space_is_an_input_error(
    space: SearchSpace, path: Path, change: dict[str, object], match: str
) -> None:
    rewrite(path, **change)
    assert_rejected(space, path, match)


def test_embedding_in_place_of_its_file_is_an_input_error(space: SearchSpace, trained: Embedding) -> None:
    with pytest.raises(InputError, match="pass the path of an embedding that save_embedding wrote, not Embedding"):
        load_embedding(space, trained)  # type: ignore[arg-type]


def test_missing_file_is_an_input_error(space: SearchSpace, tmp_path: Path) -> None:
    assert_rejected(space, tmp_path / "absent.safetensors", "there is no file")
    assert_rejected(space, tmp_path, "there is no file")


def test_search_space_without_built_in_embedding_is_an_input_error(space: SearchSpace) -> None:
    with pytest.raises(InputError, match="there is no built-in embedding for the search space list"):
        load_embedding(space)


def test_error_shows_the_pretrain_command(tmp_path: Path) -> None:
    command = r"`nases pretrain --search-space tests\.embedding\.spaces:DefaultSpace --output "
    for path in (None, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match=command):
            load_embedding(DefaultSpace(), path)
    with pytest.raises(InputError, match="`nases pretrain --search-space enas_micro --output "):
        load_embedding(get_search_space("enas_micro"), tmp_path / "absent.safetensors")


def test_error_shows_no_command_that_cannot_create_the_search_space(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(DefaultSpace):
        pass

    class InScript(DefaultSpace):
        __module__ = "__main__"
        __qualname__ = "InScript"

    monkeypatch.setattr(sys.modules["__main__"], "InScript", InScript, raising=False)
    for space in (ListSpace((2, 3)), DefaultSpace((2, 3, 4)), Local(), InScript()):
        with pytest.raises(InputError, match="train one with `pretrain` and `save_embedding` of nases_env"):
            load_embedding(space)


def test_failed_write_is_an_input_error(trained: Embedding, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        save_embedding(trained, tmp_path / "file" / "x.safetensors")
