"""Tests of the environment-overhead benchmark."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.env_overhead import Args, Timing, main, make_variants
from nases_env.errors import InputError


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("overhead") / "out" / "metrics.json"
    main(Args(num_envs=(1, 3), num_children=7, num_repeats=2, output=output))
    written: dict[str, Any] = json.loads(output.read_text())
    return written


def test_output_has_every_variant(metrics: dict[str, Any]) -> None:
    assert list(metrics["results"]) == ["single", "vector, K = 1", "sync, K = 1", "vector, K = 3", "sync, K = 3"]
    assert metrics["settings"]["num_envs"] == [1, 3]
    for result in metrics["results"].values():
        for values in result.values():
            assert 0 < values["min"] <= values["median"] <= values["max"]
        assert result["decode_share"]["max"] < 1
    assert metrics["results"]["single"]["times_single"] == {"median": 1.0, "min": 1.0, "max": 1.0}


def test_variants_step_through_new_children_in_full_batches() -> None:
    args = Args(num_envs=(3,), num_children=7)
    for name, variant in make_variants(args).items():
        decoded: list[str] = []
        step = variant.step

        def counted(action: Any, step: Any = step, decoded: list[str] = decoded) -> None:
            info = step(action)[4]
            decoded.extend(np.atleast_1d(info["key"]).tolist())

        variant.step = counted
        num_children = [variant.measure(args, name, str(repeat)).num_children for repeat in range(2)]
        assert num_children == ([7, 7] if name == "single" else [9, 9])
        assert len(set(decoded)) == len(decoded) == sum(num_children)


def test_timing_rates() -> None:
    timing = Timing(num_children=10, seconds=4.0, decode_seconds=1.0)
    assert (timing.steps_per_second, timing.decode_share) == (2.5, 0.25)


@pytest.mark.parametrize("options", [{"num_children": 0}, {"num_repeats": 0}, {"num_envs": ()}])
def test_out_of_range_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
