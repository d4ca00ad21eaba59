"""The sizes of the networks of ``enas_micro_sized``, and parameter counts without building a network."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nases_env.errors import InputError
from nases_env.networks import EnasMicroNetwork, NetworkSettings, count_parameters
from nases_env.networks.enas_micro import Skeleton
from nases_env.networks.enas_micro_sized import (
    SIZE_CHOICES,
    SIZE_LENGTHS,
    Sizes,
    count_enas_micro_parameters,
    has_separable_conv,
    read_sizes,
)
from tests.networks.cells import ENAS_NORMAL, ENAS_REDUCTION, random_cell

VALUES: dict[str, Any] = {"stem_stride": 2, "width": 0.5, "growth": [1, 3], "depth": [3, 1, 2], "expansion": 2}
SIZES = Sizes(2, 0.5, (1, 3), (3, 1, 2), 2)

skeletons = st.builds(
    Skeleton,
    st.tuples(*[st.integers(2, 5)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.integers(1, 2),
    st.integers(1, 3),
)
networks = st.builds(
    NetworkSettings, st.integers(1, 2), st.integers(1, 3), drop_path_prob=st.just(0.0), auxiliary_head=st.booleans()
)


def all_sizes() -> list[Sizes]:
    lists = [
        list(itertools.product(choices, repeat=SIZE_LENGTHS[name])) if name in SIZE_LENGTHS else choices
        for name, choices in SIZE_CHOICES.items()
    ]
    return [Sizes(*values) for values in itertools.product(*lists)]


def test_sizes_are_multiples_of_n_and_f() -> None:
    assert SIZES.skeleton(NetworkSettings(1, 8)) == Skeleton((4, 4, 12), (3, 1, 2), 2, 2)
    assert SIZES.skeleton(NetworkSettings(2, 40)) == Skeleton((20, 20, 60), (6, 2, 4), 2, 2)


def test_channels_are_rounded_up_and_at_least_two() -> None:
    assert Sizes(1, 0.25, (2, 2), (1, 1, 1), 1).skeleton(NetworkSettings(1, 10)).channels == (3, 6, 12)
    assert Sizes(1, 0.25, (1, 1), (1, 1, 1), 1).skeleton(NetworkSettings(1, 1)).channels == (2, 2, 2)


@pytest.mark.parametrize("num_filters", [5, 7, 8, 20, 40])
def test_different_sizes_are_different_skeletons(num_filters: int) -> None:
    sizes = all_sizes()
    assert len(sizes) == 2 * 5 * 3**2 * 3**3 * 2
    assert len({each.skeleton(NetworkSettings(1, num_filters)) for each in sizes}) == len(sizes)


def test_sizes_are_read_with_the_types_of_the_choices() -> None:
    assert read_sizes(VALUES) == SIZES
    assert repr(read_sizes({**VALUES, "stem_stride": 2.0, "depth": (3.0, 1, 2)})) == repr(SIZES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem_stride": 4}, "the stem_stride of a genotype is 4; it must be one of 1, 2"),
        ({"stem_stride": True}, "the stem_stride of a genotype is True"),
        ({"width": "1"}, "the width of a genotype is '1'; it must be one of 0.25, 0.5, 1, 2, 4"),
        ({"width": [1]}, r"the width of a genotype is \[1\]"),
        ({"width": float("nan")}, "the width of a genotype is nan"),
        ({"growth": 2}, "the growth of a genotype is 2; it must be a list of 2 numbers out of 1, 2, 3"),
        ({"growth": [1, 2, 3]}, "the growth of a genotype is"),
        ({"depth": [1, 2]}, r"the depth of a genotype is \[1, 2\]; it must be a list of 3 numbers out of 1, 2, 3"),
        ({"depth": [0, 1, 2]}, "the depth of a genotype is"),
        ({"expansion": None}, "the expansion of a genotype is None"),
    ],
)
def test_unknown_sizes_are_a_one_line_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_sizes({**VALUES, **changes})
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2**32 - 1), skeletons | st.none(), networks, st.integers(1, 5), st.integers(1, 7))
@settings(max_examples=30)
def test_counted_parameters_are_those_of_the_network(
    seed: int, skeleton: Skeleton | None, network: NetworkSettings, channels: int, num_classes: int
) -> None:
    rng = np.random.default_rng(seed)
    arguments: Any = (random_cell(rng), random_cell(rng), network)
    options: Any = {"num_classes": num_classes, "image_shape": (channels, 8, 8), "skeleton": skeleton}
    built = EnasMicroNetwork(*arguments, **options)
    assert count_enas_micro_parameters(*arguments, **options) == count_parameters(built)


def test_separable_convolutions_are_found_in_every_place() -> None:
    plain = tuple((0, 0, 1, 3) for _ in range(5))
    assert not has_separable_conv(plain, plain)
    for operator in (1, 2):
        for node in range(5):
            for changed in ((0, operator, 1, 3), (0, 0, 1, operator)):
                cell = (*plain[:node], changed, *plain[node + 1 :])
                assert has_separable_conv(cell, plain)
                assert has_separable_conv(plain, cell)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (1, 40)])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_stem_and_each_reduction_halve_the_size_rounded_up(size: tuple[int, int], stem_stride: int) -> None:
    network = EnasMicroNetwork(
        ENAS_NORMAL,
        ENAS_REDUCTION,
        NetworkSettings(),
        num_classes=3,
        image_shape=(1, *size),
        skeleton=Skeleton((2, 4, 6), (1, 2, 1), stem_stride, 2),
    )
    shapes = [tuple(network.stem(torch.ones(2, 1, *size)).shape[2:])]
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.concatenated().shape[2:])))
    assert network(torch.rand(2, 1, *size)).shape == (2, 3)
    expected = [size if stem_stride == 1 else halved(size)]
    for is_reduction in (False, True, False, False, True, False):
        expected.append(halved(expected[-1]) if is_reduction else expected[-1])
    assert shapes == expected


def halved(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (5, 7), (1, 1)])
def test_gradient_of_a_strided_stem_is_exact_in_channels_last(channels: int, size: tuple[int, int]) -> None:
    """The gradient of a strided 1x1 convolution is not: https://github.com/uxlfoundation/oneDNN/issues/6035."""
    torch.manual_seed(0)
    skeleton = Skeleton((2, 2, 2), (1, 1, 1), stem_stride=2)
    network = EnasMicroNetwork(
        ENAS_NORMAL, ENAS_REDUCTION, NetworkSettings(), num_classes=3, image_shape=(channels, *size), skeleton=skeleton
    )
    stem = network.stem[0]
    assert isinstance(stem, nn.Conv2d)
    images = torch.randn(16, channels, *size)
    output = stem(images.contiguous(memory_format=torch.channels_last))
    exact = F.conv2d(images.double(), stem.weight.double(), stride=2, padding=1)
    upstream = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, stem.weight, upstream)
    (expected,) = torch.autograd.grad(exact, stem.weight, upstream.double())
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
