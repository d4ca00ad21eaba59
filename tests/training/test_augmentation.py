from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from nases_env.training.augmentation import (
    AugmentationParams,
    ChannelStatistics,
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


def draw_params(images: torch.Tensor, crop_padding: int = 4, flip: bool = True, seed: int = 0) -> AugmentationParams:
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[2:]
    return draw_augmentation(len(images), (height, width), crop_padding=crop_padding, flip=flip, generator=generator)


SHAPES = [(3, 32, 32), (1, 8, 8), (3, 7, 7), (2, 5, 9), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("crop_padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("cutout_length", [0, 3, 4, 50])
def test_augment_equals_torchvision(shape: tuple[int, int, int], crop_padding: int, flip: bool, cutout_length: int) -> None:
    images = random_images(16, *shape)
    params = draw_params(images, crop_padding, flip)
    statistics = ChannelStatistics(torch.rand(shape[0]) * 0.5, torch.rand(shape[0]) + 0.1)
    batch = augment(
        images.contiguous(memory_format=torch.channels_last),
        params,
        statistics,
        crop_padding=crop_padding,
        cutout_length=cutout_length,
    )
    _, height, width = shape
    for index, image in enumerate(images):
        top, left = params.crop[index].tolist()
        expected = TF.crop(TF.pad(image, [crop_padding]), top, left, height, width)
        if params.flip[index]:
            expected = TF.horizontal_flip(expected)
        assert torch.equal(crop_and_flip(images, params, crop_padding)[index], expected)
        normalized = TF.normalize(TF.to_dtype(expected, torch.float32, scale=True), *map(torch.Tensor.tolist, statistics))
        row, column = (params.cutout_center[index] - cutout_length // 2).tolist()
        first_row, first_column = max(row, 0), max(column, 0)
        square = (min(row + cutout_length, height) - first_row, min(column + cutout_length, width) - first_column)
        erased = TF.erase(normalized, first_row, first_column, *square, torch.zeros(())) if cutout_length else normalized
        torch.testing.assert_close(batch[index], erased, rtol=1e-5, atol=1e-5)
        assert torch.equal(batch[index] == 0, erased == 0)


def test_crop_and_flip_is_the_identity_without_padding_and_flip() -> None:
    images = random_images(4, 3, 6, 6)
    assert torch.equal(crop_and_flip(images, draw_params(images, 0, flip=False), 0), images)


def test_params_are_uniformly_distributed() -> None:
    images = torch.zeros(9000, 1, 6, 10, dtype=torch.uint8)
    params = draw_params(images, crop_padding=1)
    for column in params.crop.unbind(1):
        assert torch.bincount(column).tolist() == pytest.approx([3000] * 3, rel=0.1)
    assert params.flip.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(torch.bincount(params.cutout_center[:, 0])) == 6
    assert torch.bincount(params.cutout_center[:, 1]).tolist() == pytest.approx([900] * 10, rel=0.2)
    assert not torch.equal(params.crop[:, 0], params.crop[:, 1])


def test_flip_does_not_affect_the_other_params() -> None:
    images = random_images(50, 3, 8, 8)
    with_flip, without = draw_params(images, flip=True), draw_params(images, flip=False)
    assert torch.equal(with_flip.crop, without.crop)
    assert torch.equal(with_flip.cutout_center, without.cutout_center)
    assert with_flip.flip.any()
    assert not without.flip.any()


def test_augment_returns_channels_last() -> None:
    images = random_images(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    batch = augment(images, draw_params(images), channel_statistics(images), crop_padding=4, cutout_length=3)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.dtype == torch.float32


def test_normalized_images_have_mean_0_and_std_1() -> None:
    images = random_images(100, 3, 16, 16)
    images[:, 1] //= 4
    statistics = channel_statistics(images)
    torch.testing.assert_close(statistics.mean, (images / 255).mean(dim=(0, 2, 3)))
    torch.testing.assert_close(statistics.std, (images / 255).std(dim=(0, 2, 3), correction=0))
    normalized = normalize(images, statistics)
    torch.testing.assert_close(normalized.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_constant_channel_is_normalized_to_0() -> None:
    images = torch.full((4, 1, 3, 3), 200, dtype=torch.uint8)
    normalized = normalize(images, channel_statistics(images))
    torch.testing.assert_close(normalized, torch.zeros(4, 1, 3, 3), atol=1e-3, rtol=0)


def test_cutout_sets_a_square_to_0() -> None:
    ones = torch.ones(1, 2, 32, 32)
    center = torch.tensor([[16, 20]])
    erased = cut_out(ones, AugmentationParams(center, center[:, 0] > 0, center), 16)
    expected = ones.clone()
    expected[:, :, 8:24, 12:28] = 0
    assert torch.equal(erased, expected)
    assert ones.all()


def test_random_crop_of_torchvision_is_among_our_crops() -> None:
    image = random_images(1, 3, 5, 5)
    torch.manual_seed(3)
    theirs = v2.RandomCrop(5, padding=1)(image[0])
    crops = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    params = AugmentationParams(crops, torch.zeros(9, dtype=torch.bool), crops)
    ours = crop_and_flip(image.expand(9, -1, -1, -1), params, 1)
    assert sum(torch.equal(theirs, candidate) for candidate in ours) == 1
