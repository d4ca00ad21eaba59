from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nases_env.errors import InputError
from nases_env.training import ImageSet, split_train_valid


def numbered(count: int) -> ImageSet:
    """Images that contain their index."""
    numbers = torch.arange(count)
    images = torch.stack((numbers // 256, numbers % 256), dim=1).to(torch.uint8).reshape(count, 2, 1, 1)
    return ImageSet(images, numbers % 3, ("a", "b", "c"))


def numbers_of(image_set: ImageSet) -> list[int]:
    high, low = image_set.images.flatten(1).long().unbind(1)
    return (high * 256 + low).tolist()


@given(count=st.integers(2, 300), seed=st.integers(0, 2**63 - 1), fraction=st.floats(0.001, 0.999))
def test_splits_are_a_partition_and_not_empty(count: int, seed: int, fraction: float) -> None:
    train, valid = split_train_valid(numbered(count), seed=seed, valid_fraction=fraction)
    assert sorted(numbers_of(train) + numbers_of(valid)) == list(range(count))
    assert abs(len(valid) - count * fraction) <= 1
    assert min(len(train), len(valid)) >= 1
    assert train.labels.tolist() == [number % 3 for number in numbers_of(train)]


def test_default_split_matches_the_paper() -> None:
    train, valid = split_train_valid(numbered(50_000), seed=0)
    assert (len(train), len(valid)) == (45_000, 5_000)


def test_split_depends_only_on_the_seed() -> None:
    first = numbers_of(split_train_valid(numbered(100), seed=1)[1])
    torch.manual_seed(99)
    assert numbers_of(split_train_valid(numbered(100), seed=1)[1]) == first
    assert numbers_of(split_train_valid(numbered(100), seed=2)[1]) != first


def test_smaller_split_is_a_prefix_of_a_larger_one() -> None:
    train, valid = split_train_valid(numbered(100), seed=0)
    few_train, few_valid = split_train_valid(numbered(100), seed=0, num_train_images=7, num_valid_images=3)
    assert numbers_of(few_train) == numbers_of(train)[:7]
    assert numbers_of(few_valid) == numbers_of(valid)[:3]


def test_numbers_of_images_are_maxima() -> None:
    train, valid = split_train_valid(numbered(20), seed=0, num_train_images=1000, num_valid_images=1000)
    assert (len(train), len(valid)) == (18, 2)


@pytest.mark.parametrize("name", ["num_train_images", "num_valid_images"])
@pytest.mark.parametrize("count", [0, -1])
def test_number_of_images_below_1_is_rejected(name: str, count: int) -> None:
    with pytest.raises(InputError, match=f"^{name} must be at least 1, not {count}"):
        split_train_valid(numbered(20), seed=0, **{name: count})


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_2_images_are_rejected(count: int) -> None:
    with pytest.raises(InputError, match="at least 2 images"):
        split_train_valid(numbered(count), seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_valid_fraction_out_of_range_is_rejected(fraction: float) -> None:
    with pytest.raises(InputError, match="valid_fraction"):
        split_train_valid(numbered(20), seed=0, valid_fraction=fraction)
