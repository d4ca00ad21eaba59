"""Conventional training: a DataLoader of PIL images, torchvision's transforms, unfused SGD, float32."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nases_env.training import ImageSet, TrainingSettings, channel_statistics

MAX_GPU_WORKERS = 8  # DataLoader processes on a GPU


class PilDataset(Dataset[tuple[Tensor, int]]):
    """The images of an ``ImageSet`` as PIL images, augmented one by one when they are read."""

    def __init__(self, images: ImageSet, crop_padding: int) -> None:
        self.pixels = images.images.permute(0, 2, 3, 1).numpy()
        self.labels = images.labels.tolist()
        mean, std = channel_statistics(images.images)
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.image_shape[1:], padding=crop_padding),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean.tolist(), std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


class PlainTraining:
    """Trains a model in channels-first memory format, one epoch per call.

    Args:
        model: the model; moved to ``device``.
        images: training images.
        settings: batch size and settings of SGD.
        device: device of the training.
        num_workers: number of DataLoader processes; 0 reads and augments in this process.
    """

    def __init__(
        self, model: nn.Module, images: ImageSet, settings: TrainingSettings, device: torch.device, *, num_workers: int
    ) -> None:
        self.model = model.to(device).train()
        self.device = device
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(
            model.parameters(), settings.lr_max, settings.momentum, weight_decay=settings.weight_decay, nesterov=True
        )
        self.loader = DataLoader(
            PilDataset(images, images.image_shape[1] // 8),
            batch_size=settings.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
        )

    def steps(self) -> Iterator[float]:
        """Train for one epoch and yield the loss of each step."""
        for images, labels in self.loader:
            inputs, targets = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
            yield loss.item()

    def epoch(self) -> float:
        """Train for one epoch and return its duration in seconds."""
        start = time.perf_counter()
        for _ in self.steps():
            pass
        return time.perf_counter() - start
