from __future__ import annotations

from typing import Any

import pytest

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells_per_stage": 0},
        {"num_filters": 0},
        {"drop_path_prob": 1.0},
        {"drop_path_prob": -0.5},
        {"drop_path_prob": float("nan")},
    ],
)
def test_numbers_out_of_range_are_input_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        NetworkSettings(**wrong)
