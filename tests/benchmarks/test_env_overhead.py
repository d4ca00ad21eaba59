"""The benchmark of overhead: all variants step through as many new children, and shares and ratios are what they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.env_overhead import Args, Timing, main, make_variants
from nases_env.errors import InputError


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("overhead") / "out" / "figures.json"
    main(Args(num_envs=(1, 3), num_children=7, num_repeats=2, output=output))
    written: dict[str, Any] = json.loads(output.read_text())
    return written


def test_figures_of_every_variant(figures: dict[str, Any]) -> None:
    assert list(figures["results"]) == ["single", "vector, K = 1", "sync, K = 1", "vector, K = 3", "sync, K = 3"]
    assert figures["settings"]["num_envs"] == [1, 3]
    for result in figures["results"].values():
        for values in result.values():
            assert 0 < values["least"] <= values["median"] <= values["most"]
        assert result["decode_share"]["most"] < 1
    assert figures["results"]["single"]["times_single"] == {"median": 1.0, "least": 1.0, "most": 1.0}


def test_every_variant_steps_through_new_children_in_whole_batches() -> None:
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


def test_a_timings_rates() -> None:
    timing = Timing(num_children=10, seconds=4.0, decode_seconds=1.0)
    assert (timing.steps_per_second, timing.decode_share) == (2.5, 0.25)


@pytest.mark.parametrize("options", [{"num_children": 0}, {"num_repeats": 0}, {"num_envs": ()}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')} must"):
        Args(**options)
