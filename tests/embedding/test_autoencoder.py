from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nases_env.embedding import CategoricalDecoder, Embedding
from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from tests.embedding.spaces import ListSpace


def uniform(num: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).random((num, size), dtype=np.float32)


def test_shapes_of_single_and_batched_inputs(trained: Embedding) -> None:
    assert trained.encode(uniform(5, 7)).shape == (5, 3)
    assert trained.encode(uniform(1, 7)[0]).shape == (3,)
    assert trained.decode(uniform(5, 3)).shape == (5, 7)
    assert trained.decode(uniform(1, 3)[0]).shape == (7,)
    assert trained.encode(uniform(0, 7)).shape == (0, 3)
    assert trained.encode(uniform(2, 7).astype(np.float64)).dtype == np.float32


def test_non_contiguous_and_read_only_arrays_are_accepted(trained: Embedding) -> None:
    vectors = uniform(4, 7)
    expected = trained.encode(vectors)
    np.testing.assert_array_equal(trained.encode(vectors[::-1])[::-1], expected)
    vectors.flags.writeable = False
    np.testing.assert_array_equal(trained.encode(vectors), expected)
    np.testing.assert_array_equal(trained.encode(np.asfortranarray(vectors)), expected)


def test_single_and_batched_results_agree(trained: Embedding) -> None:
    vectors = uniform(20, 7)
    batch = trained.encode(vectors)
    np.testing.assert_allclose([trained.encode(vector) for vector in vectors], batch, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([trained.decode(row) for row in batch], trained.decode(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [np.zeros(6), np.zeros((2, 8)), np.zeros((1, 1, 7)), np.float32(0.5)])
def test_wrong_shape_is_an_input_error(trained: Embedding, bad: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"of shape \(7,\)"):
        trained.encode(bad)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_an_input_error(trained: Embedding, bad: float) -> None:
    with pytest.raises(InputError, match="finite"):
        trained.encode(np.full(7, bad))
    with pytest.raises(InputError, match="finite"):
        trained.decode(np.full(3, bad))


@pytest.mark.parametrize("change", [{"embedding_size": 0}, {"hidden_size": 0}, {"loss": "hinge"}])
def test_invalid_sizes_and_losses_are_input_errors(space: SearchSpace, change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Embedding(space, **{"embedding_size": 2, "hidden_size": 8, "loss": "cross_entropy", **change})


@settings(max_examples=30)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 3, 5, 7, 60]), min_size=1, max_size=7),
    per_step=st.integers(1, 4),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e6]),
    seed=st.integers(0, 100),
)
def test_categorical_decoder_returns_bin_centers(sizes: list[int], per_step: int, scale: float, seed: int) -> None:
    space = ListSpace(tuple(sizes), per_step)
    embedding = Embedding(space, embedding_size=2, hidden_size=8, loss="cross_entropy", seed=seed)
    embeddings = scale * np.random.default_rng(seed).standard_normal((20, 2))
    for vector in embedding.decode(embeddings):
        np.testing.assert_array_equal(vector, space.encode(space.decode(vector)))


@settings(max_examples=30)
@given(num_decisions=st.integers(1, 7), per_step=st.integers(1, 4), scale=st.sampled_from([0.0, 1.0, 30.0, 1e6]))
def test_regression_decoder_stays_in_the_unit_interval(num_decisions: int, per_step: int, scale: float) -> None:
    embedding = Embedding(ListSpace((3,) * num_decisions, per_step), embedding_size=2, hidden_size=8, loss="least_squares")
    with torch.no_grad():
        embedding.decoder.head.weight.mul_(100)
    vectors = embedding.decode(scale * np.random.default_rng(0).standard_normal((20, 2)))
    assert vectors.shape == (20, num_decisions)
    assert (vectors >= 0).all()
    assert (vectors < 1).all()


def test_choices_that_do_not_exist_have_zero_probability(space: SearchSpace) -> None:
    decoder = Embedding(space, embedding_size=2, hidden_size=8, loss="cross_entropy").decoder
    assert isinstance(decoder, CategoricalDecoder)
    possible = torch.isfinite(decoder(torch.randn(4, 2, generator=torch.Generator().manual_seed(0))))
    assert possible.sum(dim=2).tolist() == [list(space.decision_sizes)] * 4


def test_embeddings_of_uniform_vectors_are_standardized(trained: Embedding) -> None:
    embeddings = trained.encode(uniform(20_000, 7))
    np.testing.assert_allclose(embeddings.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(embeddings.std(axis=0), 1, atol=0.05)


def test_controller_copies_the_simulator(trained: Embedding) -> None:
    vectors = torch.from_numpy(uniform(8, 7))
    before = trained.simulator(vectors)
    controller = trained.controller()
    torch.testing.assert_close(controller(vectors), before, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(trained.simulator(vectors), before, rtol=0, atol=0)
    assert not torch.allclose(controller(vectors), before)


def test_random_controller_is_standardized_and_depends_on_its_seed(trained: Embedding) -> None:
    vectors = torch.from_numpy(uniform(20_000, 7))
    with torch.no_grad():
        first, again, other = (trained.controller("random", seed)(vectors) for seed in (1, 1, 2))
        simulated = trained.simulator(vectors)
    torch.testing.assert_close(first.mean(dim=0), torch.zeros(3), rtol=0, atol=0.05)
    torch.testing.assert_close(first.std(dim=0), torch.ones(3), rtol=0, atol=0.05)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)
    assert not torch.allclose(first, simulated, atol=0.1)


def test_unknown_init_is_an_input_error(trained: Embedding) -> None:
    with pytest.raises(InputError, match="simulator or random"):
        trained.controller("zeros")  # type: ignore[arg-type]


def test_only_the_controller_gets_gradients(trained: Embedding) -> None:
    controller = trained.controller()
    embeddings = controller(torch.from_numpy(uniform(8, 7)))
    trained.decoder(embeddings).masked_fill(~torch.isfinite(trained.decoder(embeddings)), 0).square().sum().backward()
    for name, parameter in controller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in trained.parameters())


def test_initialization_does_not_change_the_global_generator(space: SearchSpace) -> None:
    state = torch.random.get_rng_state()
    Embedding(space, embedding_size=2, hidden_size=8, loss="cross_entropy").controller("random")
    assert torch.equal(torch.random.get_rng_state(), state)
