from __future__ import annotations

import pytest
import torch

from nases_env.training.image_io import resize, shrink


def test_resize_averages_pixels() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(8).expand(2, 3, 16, 16).contiguous()
    halved = resize(stripes, (8, 8))
    assert halved.shape == (2, 3, 8, 8)
    assert halved.dtype == torch.uint8
    inner = halved[:, :, :, 1:-1].int()
    assert (inner - 127).abs().max() <= 2


@pytest.mark.parametrize(("side", "expected"), [(None, (9, 20)), (40, (9, 20)), (20, (9, 20)), (10, (4, 10)), (1, (1, 1))])
def test_shrink_preserves_aspect_ratio_and_never_enlarges(side: int | None, expected: tuple[int, int]) -> None:
    images = torch.randint(256, (3, 1, 9, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shrunk = shrink(images, side)
    assert shrunk.shape == (3, 1, *expected)
    if expected == (9, 20):
        assert shrunk is images
