from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from nases_env.training.augmentation import (
    ChannelStatistics,
    Draws,
    augment,
    channel_statistics,
    crop_and_flip,
    cut_out,
    draw_augmentation,
    normalize,
)


def random_images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        256, (count, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(7)
    )


def drawn(images: torch.Tensor, crop_padding: int = 4, flip: bool = True, seed: int = 0) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[2:]
    return draw_augmentation(len(images), (height, width), crop_padding=crop_padding, flip=flip, generator=generator)


SHAPES = [(3, 32, 32), (1, 8, 8), (3, 7, 7), (2, 5, 9), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("crop_padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("cutout", [0, 3, 4, 50])
def test_a_batch_equals_torchvision_image_by_image(
    shape: tuple[int, int, int], crop_padding: int, flip: bool, cutout: int
) -> None:
    images = random_images(16, *shape)
    draws = drawn(images, crop_padding, flip)
    statistics = ChannelStatistics(torch.rand(shape[0]) * 0.5, torch.rand(shape[0]) + 0.1)
    batch = augment(
        images.contiguous(memory_format=torch.channels_last), draws, statistics, crop_padding=crop_padding, cutout=cutout
    )
    _, height, width = shape
    for index, image in enumerate(images):
        top, left = draws.crop[index].tolist()
        expected = TF.crop(TF.pad(image, [crop_padding]), top, left, height, width)
        if draws.mirrored[index]:
            expected = TF.horizontal_flip(expected)
        assert torch.equal(crop_and_flip(images, draws, crop_padding)[index], expected)
        standardised = TF.normalize(TF.to_dtype(expected, torch.float32, scale=True), *map(torch.Tensor.tolist, statistics))
        row, column = (draws.hole[index] - cutout // 2).tolist()
        first_row, first_column = max(row, 0), max(column, 0)
        hole = (min(row + cutout, height) - first_row, min(column + cutout, width) - first_column)
        erased = TF.erase(standardised, first_row, first_column, *hole, torch.zeros(())) if cutout else standardised
        torch.testing.assert_close(batch[index], erased, rtol=1e-5, atol=1e-5)
        assert torch.equal(batch[index] == 0, erased == 0)


def test_no_padding_and_no_flip_changes_nothing() -> None:
    images = random_images(4, 3, 6, 6)
    assert torch.equal(crop_and_flip(images, drawn(images, 0, flip=False), 0), images)


def test_draws_cover_their_ranges_uniformly() -> None:
    images = torch.zeros(9000, 1, 6, 10, dtype=torch.uint8)
    draws = drawn(images, crop_padding=1)
    for column in draws.crop.unbind(1):
        assert torch.bincount(column).tolist() == pytest.approx([3000] * 3, rel=0.1)
    assert draws.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(torch.bincount(draws.hole[:, 0])) == 6
    assert torch.bincount(draws.hole[:, 1]).tolist() == pytest.approx([900] * 10, rel=0.2)
    assert not torch.equal(draws.crop[:, 0], draws.crop[:, 1])


def test_switching_the_flip_leaves_the_other_draws_alone() -> None:
    images = random_images(50, 3, 8, 8)
    with_flip, without = drawn(images, flip=True), drawn(images, flip=False)
    assert torch.equal(with_flip.crop, without.crop)
    assert torch.equal(with_flip.hole, without.hole)
    assert with_flip.mirrored.any()
    assert not without.mirrored.any()


def test_a_batch_is_channels_last() -> None:
    images = random_images(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    batch = augment(images, drawn(images), channel_statistics(images), crop_padding=4, cutout=3)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.dtype == torch.float32


def test_statistics_and_normalise_give_mean_zero_and_deviation_one() -> None:
    images = random_images(100, 3, 16, 16)
    images[:, 1] //= 4
    statistics = channel_statistics(images)
    torch.testing.assert_close(statistics.mean, (images / 255).mean(dim=(0, 2, 3)))
    torch.testing.assert_close(statistics.std, (images / 255).std(dim=(0, 2, 3), correction=0))
    standardised = normalize(images, statistics)
    torch.testing.assert_close(standardised.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_a_constant_channel_is_standardised_to_zero() -> None:
    images = torch.full((4, 1, 3, 3), 200, dtype=torch.uint8)
    standardised = normalize(images, channel_statistics(images))
    torch.testing.assert_close(standardised, torch.zeros(4, 1, 3, 3), atol=1e-3, rtol=0)


def test_cutout_covers_the_square_of_the_paper() -> None:
    ones = torch.ones(1, 2, 32, 32)
    hole = torch.tensor([[16, 20]])
    erased = cut_out(ones, Draws(hole, hole[:, 0] > 0, hole), 16)
    expected = ones.clone()
    expected[:, :, 8:24, 12:28] = 0
    assert torch.equal(erased, expected)
    assert ones.all()


def test_the_crop_is_torchvisions_random_crop_for_some_draw() -> None:
    image = random_images(1, 3, 5, 5)
    torch.manual_seed(3)
    theirs = v2.RandomCrop(5, padding=1)(image[0])
    crops = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    draws = Draws(crops, torch.zeros(9, dtype=torch.bool), crops)
    ours = crop_and_flip(image.expand(9, -1, -1, -1), draws, 1)
    assert sum(torch.equal(theirs, candidate) for candidate in ours) == 1
