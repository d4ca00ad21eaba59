"""Labelled images in memory, and their division into a training and a validation split."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nases_env.errors import InputError
from nases_env.seeding import torch_generator


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size. The tensors may be shared between users: treat them as read-only.

    Attributes:
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,), each in ``0 .. len(class_names) - 1``.
        class_names: what each label means.
    """

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: torch.Tensor) -> ImageSet:
        """The images at ``indices``, int64 of shape (M,), in that order."""
        return ImageSet(self.images[indices], self.labels[indices], self.class_names)


def split_train_valid(
    image_set: ImageSet,
    *,
    seed: int,
    valid_fraction: float = 0.1,
    num_train_images: int | None = None,
    num_valid_images: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """A random division of a training set into a training and a validation split, always the same for a ``seed``.

    Of CIFAR-10's 50,000 training images the default makes 45,000 and 5,000 (section 4.2 of the paper). Every image is in
    exactly one split; each split has at least one image.

    Args:
        valid_fraction: share of the images that validate, in (0, 1).
        num_train_images: keep at most the first so many of the shuffled training split, so that a smaller number keeps a
            prefix of what a larger one keeps; None: all.
        num_valid_images: the same of the validation split.

    Raises:
        InputError: if there are fewer than two images, or a number is out of range.
    """
    if len(image_set) < 2:
        raise InputError(f"a training and a validation split need at least 2 images, not {len(image_set)}; add images")
    if not 0 < valid_fraction < 1:
        raise InputError(f"valid_fraction is {valid_fraction}; it must lie between 0 and 1")
    num_valid = min(max(round(len(image_set) * valid_fraction), 1), len(image_set) - 1)
    shuffled = torch.randperm(len(image_set), generator=torch_generator(seed, "train_valid_split"))
    valid, train = shuffled[:num_valid], shuffled[num_valid:]
    for setting, count in (("num_train_images", num_train_images), ("num_valid_images", num_valid_images)):
        if count is not None and count < 1:
            raise InputError(f"{setting} is {count}; it must be at least 1, or unset for all images")
    return image_set.subset(train[:num_train_images]), image_set.subset(valid[:num_valid_images])
