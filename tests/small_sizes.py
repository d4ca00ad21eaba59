"""Smaller trainings and embeddings, for tests that do not depend on their sizes."""

from __future__ import annotations

import dataclasses

import pytest

from nases_env.embedding import autoencoder, pretraining, quality_report
from nases_env.evaluation import presets


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
