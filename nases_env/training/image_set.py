"""Labeled images in memory, and their split into training and validation images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nases_env.errors import InputError, require_minimum
from nases_env.seeding import torch_generator
from nases_env.training.value_range import ValueRange


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of equal size. The tensors may be shared: do not modify them.

    Attributes:
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,), in ``0 .. len(class_names) - 1``.
        class_names: the name of each class, by label.
        value_range: the range of the values before they were converted to uint8; None: they were uint8.
    """

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    value_range: ValueRange | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (channels, height, width) of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: torch.Tensor) -> ImageSet:
        """Return the images at ``indices``, int64 of shape (M,), in that order."""
        return ImageSet(self.images[indices], self.labels[indices], self.class_names, self.value_range)


def split_train_valid(
    image_set: ImageSet,
    *,
    seed: int,
    valid_fraction: float = 0.1,
    num_train_images: int | None = None,
    num_valid_images: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Split images at random into a training and a validation split; the result depends only on ``seed``.

    The default splits CIFAR-10's 50,000 training images into 45,000 and 5,000 (section 4.2 of the paper). The splits are
    disjoint and not empty.

    Args:
        image_set: the images to split.
        seed: seed of the split.
        valid_fraction: fraction of the images in the validation split, in (0, 1).
        num_train_images: maximum size of the training split; None: no limit. A smaller split is a prefix of a larger one.
        num_valid_images: the same for the validation split.

    Returns:
        The training and the validation split.

    Raises:
        InputError: if there are fewer than two images, or an argument is out of range.
    """
    if len(image_set) < 2:
        raise InputError(f"a training and a validation split need at least 2 images, not {len(image_set)}; add images")
    if not 0 < valid_fraction < 1:
        raise InputError(f"valid_fraction must be between 0 and 1, not {valid_fraction}")
    require_minimum(1, num_train_images=num_train_images, num_valid_images=num_valid_images)
    num_valid = min(max(round(len(image_set) * valid_fraction), 1), len(image_set) - 1)
    shuffled = torch.randperm(len(image_set), generator=torch_generator(seed, "train_valid_split"))
    valid, train = shuffled[:num_valid], shuffled[num_valid:]
    return image_set.subset(train[:num_train_images]), image_set.subset(valid[:num_valid_images])
