"""An epoch of training in the usual style: a DataLoader of PIL pictures, torchvision's transforms, unfused SGD, float32."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nases_env.training import ImageSet, TrainingSettings, channel_statistics

MAX_GPU_WORKERS = 8  # processes that read for a GPU


class Pictures(Dataset[tuple[Tensor, int]]):
    """The images of a set as PIL pictures, augmented one by one as they are read."""

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
    """Trains a model, in channels-first order, an epoch a call.

    Args:
        num_workers: processes that read and augment; 0: this one does.
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
            Pictures(images, images.image_shape[1] // 8),
            batch_size=settings.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
        )

    def steps(self) -> Iterator[float]:
        """The loss of each step of an epoch."""
        for images, labels in self.loader:
            inputs, targets = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
            yield loss.item()

    def epoch(self) -> float:
        """The seconds that an epoch takes."""
        start = time.perf_counter()
        for _ in self.steps():
            pass
        return time.perf_counter() - start
