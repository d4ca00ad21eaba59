"""The images that a trained model was trained on."""

from __future__ import annotations

from pathlib import Path

from nases_env.errors import InputError
from nases_env.retraining.folder import CONFIG, FinalFolder
from nases_env.retraining.training import digest_images, sample_images
from nases_env.search.options import SearchArgs
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import TRAJECTORY, read_config
from nases_env.training import ImageSet, load_images, split_train_valid


def read_splits(model_file: Path, data_dir: str | None = None) -> tuple[ImageSet, ImageSet]:
    """Read the training images of the final training of a model, split as the search does.

    The final training has used the images of both splits, or a random sample of them. Test images are not read.

    Args:
        model_file: a ``model.safetensors`` in the directory of a final training.
        data_dir: the directory of the data set. None: the value of the search if it used the same data set, otherwise the
            default of ``load_images``.

    Raises:
        InputError: if the file is not in such a directory, or the images cannot be read or are not those of the training.
    """
    folder = model_file.absolute().parent.parent
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{model_file} is not in the directory of a final training, which names the data set; pass the run directory"
        )
    configuration = FinalFolder(folder).read_config()["configuration"]
    dataset, split_seed = configuration["dataset"], 0
    if (folder.parent / TRAJECTORY).is_file():
        searched = read_config(folder.parent)["configuration"]
        split_seed = searched.get("split_seed", 0)
        if data_dir is None and searched.get("evaluator") == "training" and searched.get("dataset") == dataset:
            data_dir = load_args(SearchArgs, folder.parent).data_dir
    settings = configuration["settings"]
    images = load_images(dataset, train=True, data_dir=data_dir, image_size=settings["image_size"])
    digest = digest_images(sample_images(images, settings["num_train_images"]))
    if configuration.get("images", digest) != digest:
        raise InputError(
            f"the images of {dataset if data_dir is None else data_dir} are not those of the final training in {folder}; "
            "pass the directory of its images (--data-dir)"
        )
    return split_train_valid(images, seed=split_seed)
