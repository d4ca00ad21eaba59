from __future__ import annotations

import dataclasses

import pytest

from nases_env.embedding import Embedding, PretrainSettings, pretrain
from nases_env.search_spaces.base import SearchSpace
from tests.embedding.spaces import ListSpace

QUICK = PretrainSettings(embedding_size=3, hidden_size=16, num_steps=30, batch_size=32, num_calibration_rounds=5)


@pytest.fixture(scope="session")
def space() -> ListSpace:
    return ListSpace((2, 5, 3, 1, 4, 2, 6), decisions_per_timestep=3)


@pytest.fixture(scope="session", params=["cross_entropy", "least_squares"])
def trained(request: pytest.FixtureRequest, space: SearchSpace) -> Embedding:
    settings = QUICK
    if request.param == "least_squares":
        settings = dataclasses.replace(QUICK, loss="least_squares", num_calibration_rounds=0)
    return pretrain(space, settings, seed=0)[0]
