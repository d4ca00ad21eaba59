"""A network together with everything that its answers depend on."""

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
from nases_env.training.image_io import picture_to_tensor, read_picture


class TrainedModel(nn.Module):
    """A classifier of images that standardises them itself and knows its classes.

    A new one has the initial weights of ``search_space.build``, from torch's default generator; ``network`` is what is to be
    trained, on images standardised by ``statistics``.

    Args:
        search_space: the search space.
        architecture: one of its architectures.
        settings: the size of the network.
        class_names: what each logit stands for.
        image_shape: (channels, height, width) of the images.
        statistics: mean and standard deviation of each channel of the images that it is trained on.
        description: what is to be known of its training: JSON values.

    Attributes:
        network: the network itself: standardised images to logits.
        mean, std: buffers of shape (channels,).
        search_space, architecture, settings, class_names, image_shape, description: as given.

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
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.search_space = search_space
        self.architecture = architecture
        self.settings = settings
        self.class_names = tuple(class_names)
        self.image_shape = image_shape
        self.description = dict(description or {})
        self.network = search_space.build(
            architecture, settings, num_classes=len(self.class_names), image_shape=image_shape
        ).to(memory_format=torch.channels_last)
        self.register_buffer("mean", statistics.mean.clone())
        self.register_buffer("std", statistics.std.clone())

    def forward(self, images: Tensor) -> Tensor:
        """The logits, float32 (N, classes), of ``images``, float32 (N, channels, height, width) with values in [0, 1]."""
        standardised = (images - self.mean[:, None, None]) / self.std[:, None, None]
        if not torch.compiler.is_exporting():  # a layout is no part of a graph, and would add operators to it
            standardised = standardised.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(standardised)
        return logits

    def preprocess(self, picture: Image.Image | str | Path) -> Tensor:
        """A picture as the data sets hold it: float32 (1, channels, height, width) with values in [0, 1], on the CPU.

        It is turned upright as its EXIF data say, made RGB or grey, and stretched to the model's height and width.

        Args:
            picture: a PNG or JPEG file, or a picture in memory. Of a large JPEG file only a fraction of the pixels is
                decoded, as for the data sets; opened beforehand, it gives values that may differ in their last digits.

        Raises:
            InputError: if the file cannot be read, or the model takes images of neither one nor three channels.
        """
        channels, *size = self.image_shape
        if channels not in (1, 3):
            raise InputError(f"this model takes images of {channels} channels, which no picture has; give it tensors")
        height, width = size
        if isinstance(picture, Image.Image):
            pixels = picture_to_tensor(picture, (height, width), grey=channels == 1)
        else:
            pixels = read_picture(Path(picture), (height, width), grey=channels == 1)
        return pixels[None] / 255

    def predict(self, picture: Image.Image | str | Path, top: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of a picture with their probabilities in [0, 1], the most probable first.

        The model is put into evaluation mode and stays in it.

        Args:
            picture: as ``preprocess`` takes it.
            top: how many classes; where there are fewer, all.

        Raises:
            InputError: as ``preprocess``, or if ``top`` is not positive.
        """
        if top < 1:
            raise InputError(f"the number of classes to name is {top}; it must be at least 1")
        with torch.inference_mode():
            logits = self.eval()(self.preprocess(picture).to(self.mean.device))
        probabilities = logits[0].softmax(dim=0).topk(min(top, len(self.class_names)))
        return [
            (self.class_names[label], probability)
            for probability, label in zip(probabilities.values.tolist(), probabilities.indices.tolist(), strict=True)
        ]
