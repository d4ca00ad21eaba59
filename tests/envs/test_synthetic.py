"""The rewarded operator of the environment with a synthetic reward."""

from __future__ import annotations

import pytest

from nases_env.envs import SyntheticEnv
from nases_env.errors import InputError


def test_search_space_without_the_default_operator_needs_an_operator_or_a_landscape() -> None:
    message = "nasbench201 has no operator 'sep_conv_3x3'; pass landscape_seed, or one of its operators: none, skip"
    with pytest.raises(InputError, match=message):
        SyntheticEnv(search_space="nasbench201")
    for env in (
        SyntheticEnv(search_space="nasbench201", landscape_seed=0),
        SyntheticEnv(search_space="nasbench201", operator="skip_connect"),
    ):
        env.reset(seed=0)
        env.close()
