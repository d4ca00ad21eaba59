"""Data sets, and training of image classifiers on them."""

from nases_env.training.augmentation import ChannelStatistics, channel_statistics
from nases_env.training.checkpoint import Checkpoint
from nases_env.training.datasets import DATASETS, Dataset, load_images, resolve_data_dir, uses_flip
from nases_env.training.image_set import ImageSet, split_train_valid
from nases_env.training.own_images import count_training_images
from nases_env.training.settings import TrainingSettings
from nases_env.training.trainer import EpochRecord, TrainingResult, train_classifier

__all__ = [
    "DATASETS",
    "ChannelStatistics",
    "Checkpoint",
    "Dataset",
    "EpochRecord",
    "ImageSet",
    "TrainingResult",
    "TrainingSettings",
    "channel_statistics",
    "count_training_images",
    "load_images",
    "resolve_data_dir",
    "split_train_valid",
    "train_classifier",
    "uses_flip",
]
