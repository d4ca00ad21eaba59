from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nases_env.embedding import PRESETS, CategoricalDecoder, Embedding, PretrainSettings, pretrain
from nases_env.embedding.pretraining import calibrate
from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from tests.embedding.conftest import QUICK
from tests.embedding.spaces import ListSpace


def test_loss_decreases_and_decisions_are_reconstructed() -> None:
    space = ListSpace((2, 3, 2, 3), decisions_per_timestep=2)
    settings_ = dataclasses.replace(QUICK, embedding_size=4, hidden_size=32, num_steps=300, batch_size=64)
    embedding, history = pretrain(space, settings_, seed=0)
    assert len(history) == 300
    assert np.mean(history[-20:]) < 0.5 * np.mean(history[:20])
    vectors = np.random.default_rng(0).random((500, 4))
    decoded = embedding.decode(embedding.encode(vectors))
    correct = [np.equal(space.decode(a).decisions, space.decode(b).decisions) for a, b in zip(vectors, decoded, strict=True)]
    assert np.mean(correct) > 0.75  # chance: 0.42


def test_weights_depend_on_the_seed(space: SearchSpace) -> None:
    first, again, other = (pretrain(space, QUICK, seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.head.weight"], other["decoder.head.weight"])


def test_pretraining_does_not_change_the_global_generator(space: SearchSpace) -> None:
    state = torch.random.get_rng_state()
    pretrain(space, QUICK, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_paper_preset_matches_the_paper_and_its_loss_decreases(space: SearchSpace) -> None:
    paper = PRESETS["paper"]
    assert (paper.loss, paper.learning_rate, paper.schedule) == ("least_squares", 1e-5, "constant")
    assert (paper.noise_std, paper.num_calibration_rounds, paper.standardize) == (0.0, 0, False)
    embedding, history = pretrain(space, dataclasses.replace(paper, hidden_size=32, num_steps=200, batch_size=64), seed=0)
    assert np.mean(history[-50:]) < np.mean(history[:50])
    with torch.no_grad():
        vectors = torch.rand(5000, 7, generator=torch.Generator().manual_seed(0))
        embeddings = embedding.simulator(vectors)
        error = (embedding.decoder(embeddings) - vectors).square().mean().item()
    torch.testing.assert_close(embeddings.std(dim=0), torch.ones(7), rtol=0, atol=0.05)
    assert error == pytest.approx(np.mean(history[-20:]), rel=0.02)


@settings(max_examples=10)
@given(sizes=st.lists(st.sampled_from([1, 2, 3, 5, 40]), min_size=1, max_size=6), per_step=st.integers(1, 4))
def test_any_decision_sizes_can_be_trained_with_either_loss(sizes: list[int], per_step: int) -> None:
    space = ListSpace(tuple(sizes), per_step)
    short = dataclasses.replace(QUICK, num_steps=3, num_calibration_rounds=2)
    for settings_ in (short, dataclasses.replace(short, loss="least_squares", num_calibration_rounds=0)):
        embedding, history = pretrain(space, settings_, seed=0)
        assert np.isfinite(history).all()
        vectors = embedding.decode(np.random.default_rng(0).standard_normal((50, 3)))
        assert (vectors >= 0).all()
        assert (vectors < 1).all()
        assert all(torch.isfinite(tensor).all() for tensor in embedding.state_dict().values())


@pytest.mark.parametrize(("num_decisions", "embedding_size"), [(1, 1), (6, 6), (20, 20), (21, 20)])
def test_default_embedding_size_is_the_number_of_decisions_up_to_20(num_decisions: int, embedding_size: int) -> None:
    quick = dataclasses.replace(QUICK, embedding_size=None, num_steps=1, num_calibration_rounds=1)
    space = ListSpace((2,) * num_decisions)
    assert pretrain(space, quick, seed=0)[0].embedding_size == quick.embedding_size_for(space) == embedding_size
    assert dataclasses.replace(quick, embedding_size=3).embedding_size_for(space) == 3


def relative_entropy(choices: torch.Tensor, size: int) -> float:
    shares = np.bincount(choices.numpy(), minlength=size) / len(choices)
    return float(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])) / np.log(size))


def test_calibration_makes_decisions_uniform_on_new_samples() -> None:
    space = ListSpace((2, 6, 3))
    decoder = Embedding(space, embedding_size=8, hidden_size=16, loss="cross_entropy").decoder
    assert isinstance(decoder, CategoricalDecoder)
    with torch.no_grad():
        decoder.bias[:, 0] += 1.0
    fresh = torch.randn(5000, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = decoder(fresh).argmax(dim=2)
        calibrate(decoder, 8, 200, torch.Generator().manual_seed(0))
        after = decoder(fresh).argmax(dim=2)
    for index, size in enumerate(space.decision_sizes):
        assert relative_entropy(before[:, index], size) < 0.5
        assert relative_entropy(after[:, index], size) > 0.98


def test_standardization_after_training_does_not_change_reconstructions(space: SearchSpace) -> None:
    embedding = Embedding(space, embedding_size=3, hidden_size=16, loss="cross_entropy")
    vectors = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    before = embedding.decoder(embedding.simulator(vectors))
    embedding.simulator.fit_standardization(torch.Generator().manual_seed(0))
    embedding.decoder.fold_standardization(embedding.simulator.mean, embedding.simulator.std)
    torch.testing.assert_close(embedding.decoder(embedding.simulator(vectors)), before, rtol=1e-4, atol=1e-5)


def test_divergence_is_an_input_error(space: SearchSpace) -> None:
    settings_ = dataclasses.replace(QUICK, loss="least_squares", learning_rate=1e30, num_calibration_rounds=0)
    with pytest.raises(InputError, match="diverged at step"):
        pretrain(space, settings_, seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {"embedding_size": 0},
        {"num_steps": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"noise_std": -0.1},
        {"noise_std": float("inf")},
        {"num_calibration_rounds": -1},
        {"loss": "least_squares", "num_calibration_rounds": 5},
        {"loss": "x"},
        {"schedule": "linear"},
        {"embedding_size": "3"},
        {"num_steps": 2.5},
        {"standardize": "no"},
    ],
)
def test_invalid_settings_are_input_errors(change: dict[str, object]) -> None:
    with pytest.raises(InputError) as error:
        PretrainSettings(**change)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_messages_name_what_is_allowed() -> None:
    with pytest.raises(InputError, match="noise_std must be a finite number of at least 0, not inf"):
        PretrainSettings(noise_std=float("inf"))
    with pytest.raises(InputError, match="schedule must be one of constant, cosine, not 'linear'"):
        PretrainSettings(schedule="linear")  # type: ignore[arg-type]
