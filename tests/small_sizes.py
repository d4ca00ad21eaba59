"""Smaller trainings and embeddings, for tests that do not depend on their sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nases_env.embedding import autoencoder, pretraining, quality_report
from nases_env.evaluation import ChildSettings, presets
from nases_env.retraining import timing
from nases_env.retraining.timing import TrainingTime
from nases_env.search_spaces import SearchSpace
from nases_env.training import ImageSet


def reduce_samples(patch: pytest.MonkeyPatch) -> None:
    """Calibrate and measure embeddings with few samples; they are pretrained for a few steps only."""
    patch.setattr(pretraining, "NUM_CALIBRATION_SAMPLES", 1000)
    patch.setattr(autoencoder, "NUM_STATISTICS_VECTORS", 1000)
    patch.setattr(quality_report, "__defaults__", (1000,))


def reduce_children(patch: pytest.MonkeyPatch) -> None:
    """Train the children of the preset smoke, and their final networks, with a quarter of its images."""
    child, recipe = presets.PRESETS["smoke"], presets.RECIPES["smoke"]
    patch.setitem(presets.PRESETS, "smoke", dataclasses.replace(child, num_train_images=32, num_valid_images=32))
    patch.setitem(presets.RECIPES, "smoke", {**recipe, "num_train_images": 64})
    patch.setitem(presets.RETRAIN_PRESETS, "smoke", presets.final_settings(presets.PRESETS["smoke"], "smoke"))


def reuse_times(patch: pytest.MonkeyPatch) -> None:
    """Time the training of each kind of network once for the estimates of all searches and reproductions."""
    times: dict[object, TrainingTime] = {}
    time_training = timing.time_training

    def time_once(space: SearchSpace, settings: ChildSettings, images: ImageSet, **options: Any) -> TrainingTime:
        key = (type(space), settings, len(images), images.image_shape, len(images.class_names), repr(options))
        if key not in times:
            times[key] = time_training(space, settings, images, **options)
        return times[key]

    for module in ("nases_env.retraining.timing", "nases_env.cli.reproduce"):
        patch.setattr(f"{module}.time_training", time_once)
