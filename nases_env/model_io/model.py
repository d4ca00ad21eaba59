"""A trained network with its preprocessing and class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.training import ChannelStatistics
from nases_env.training.image_arrays import read_image_array
from nases_env.training.image_io import convert_image, read_any_image
from nases_env.training.value_range import ValueRange


class TrainedModel(nn.Module):
    """An image classifier that includes the standardization of its input.

    A new model has the initial weights of ``search_space.build``, from torch's default generator. ``network`` is the module
    to train, on images standardized with ``statistics``.

    Args:
        search_space: the search space.
        architecture: an architecture of the search space.
        settings: the size of the network.
        class_names: the name of the class of each logit.
        image_shape: (channels, height, width) of the images.
        statistics: mean and standard deviation of each channel of the training images.
        value_range: the range of the values of the training images; None: they were uint8.
        description: information about the training, as JSON values.

    Attributes:
        network: the network; maps standardized images to logits.
        mean, std: buffers of shape (channels,).
        search_space, architecture, settings, class_names, image_shape, value_range, description: the arguments.

    Raises:
        InputError: if the network cannot be built.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        search_space: SearchSpace,
        architecture: Architecture,
        settings: NetworkSettings,
        *,
        class_names: Sequence[str],
        image_shape: tuple[int, int, int],
        statistics: ChannelStatistics,
        value_range: ValueRange | None = None,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.search_space = search_space
        self.architecture = architecture
        self.settings = settings
        self.class_names = tuple(class_names)
        self.image_shape = image_shape
        self.value_range = value_range
        self.description = dict(description or {})
        self.network = search_space.build(
            architecture, settings, num_classes=len(self.class_names), image_shape=image_shape
        ).to(memory_format=torch.channels_last)
        self.register_buffer("mean", statistics.mean.clone())
        self.register_buffer("std", statistics.std.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, float32 (N, classes), of ``images``, float32 (N, channels, height, width) with values in [0, 1]."""
        standardized = (images - self.mean[:, None, None]) / self.std[:, None, None]
        if not torch.compiler.is_exporting():  # a memory layout would add operators to the exported graph
            standardized = standardized.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(standardized)
        return logits

    def preprocess(self, image: Image.Image | str | Path) -> Tensor:
        """Convert an image as the data sets do: float32 (1, channels, height, width) with values in [0, 1], on the CPU.

        The image is rotated according to its EXIF data, converted to RGB or grayscale and resized to the model's height and
        width without preserving the aspect ratio. If the training images were not uint8, its values are converted with
        ``value_range``.

        Args:
            image: a PNG, JPEG or TIFF file, an ``.npy`` file with one image of shape (H, W), (H, W, C) or (C, H, W), or an
                image in memory. Large JPEG files are decoded at reduced resolution, as in the data sets; an image in memory
                is not, so its values may differ slightly. Values of mode "I" have 16 bits; for a model of uint8 images, they
                are divided by 256, and mode "F" is refused.

        Raises:
            InputError: if the file cannot be read, or its channels or values are not those of the training images.
        """
        channels, height, width = self.image_shape
        size = (height, width)
        if isinstance(image, Image.Image):
            pixels = convert_image(image, size, channels=channels, value_range=self.value_range)
        elif Path(image).suffix.lower() == ".npy":
            pixels = read_image_array(Path(image), size, channels=channels, value_range=self.value_range)
        else:
            pixels = read_any_image(Path(image), size, channels=channels, value_range=self.value_range)
        return pixels[None] / 255

    def predict(self, image: Image.Image | str | Path, top: int = 5) -> list[tuple[str, float]]:
        """Return the most probable classes of an image and their probabilities in [0, 1], most probable first.

        The model is set to evaluation mode.

        Args:
            image: see ``preprocess``.
            top: maximum number of classes.

        Raises:
            InputError: see ``preprocess``; also if ``top`` is not positive.
        """
        if top < 1:
            raise InputError(f"the number of classes is {top}; it must be at least 1")
        with torch.inference_mode():
            logits = self.eval()(self.preprocess(image).to(self.mean.device))
        probabilities = logits[0].softmax(dim=0).topk(min(top, len(self.class_names)))
        return [
            (self.class_names[label], probability)
            for probability, label in zip(probabilities.values.tolist(), probabilities.indices.tolist(), strict=True)
        ]
