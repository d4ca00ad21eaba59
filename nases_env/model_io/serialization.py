"""Saving and loading trained models, and genotype files for the bare network."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.devices import resolve_device
from nases_env.errors import InputError, one_line
from nases_env.escaping import quoted
from nases_env.json_io import require_field_types, require_type
from nases_env.model_io.model import TrainedModel
from nases_env.networks import NetworkSettings
from nases_env.safetensors_file import InvalidFileError, load_tensors, save_tensors
from nases_env.search_spaces import SEARCH_SPACES, Architecture, SearchSpace, get_search_space
from nases_env.training import ChannelStatistics
from nases_env.training.value_range import ValueRange

FORMAT_VERSION = 2
MODEL_FILE = "model.safetensors"
TRAJECTORY = "evaluations.jsonl"  # the file of ``nases_env.search.run_dir`` that every run directory has

RECORD_TYPES: dict[str, Any] = {
    "network": dict[str, Any],
    "class_names": list[str],
    "image_shape": list[int],
    "description": dict[str, Any],
}
"""Types of the entries of a model's record, except for the genotype, which the search space checks."""

MAX_IMAGE_SIZE = 2**16


def genotype_record(
    search_space: SearchSpace,
    architecture: Architecture,
    settings: NetworkSettings,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> dict[str, Any]:
    """Return the content of ``genotype.json``, from which ``nases_env.networks.build_network`` builds the network.

    Args:
        search_space: the search space.
        architecture: the architecture.
        settings: the size of the network.
        num_classes: number of classes.
        image_shape: (channels, height, width) of the images.

    Returns:
        A dictionary with ``search_space``, the keys of the genotype, ``network`` (the fields of ``NetworkSettings``),
        ``num_classes`` and ``image_shape``. The nodes of the cells are in the order of the network.
    """
    return {
        "search_space": search_space.name,
        **_genotype(search_space, architecture),
        "network": _network(settings),
        "num_classes": num_classes,
        "image_shape": list(image_shape),
    }


def write_genotype(
    path: str | os.PathLike[str],
    search_space: SearchSpace,
    architecture: Architecture,
    settings: NetworkSettings,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> None:
    """Write the ``genotype_record`` to ``path`` as JSON, atomically.

    Args:
        path: the file.
        search_space: the search space.
        architecture: the architecture.
        settings: the size of the network.
        num_classes: number of classes.
        image_shape: (channels, height, width) of the images.

    Raises:
        InputError: if the file cannot be written.
    """
    record = genotype_record(search_space, architecture, settings, num_classes=num_classes, image_shape=image_shape)
    write_atomically(Path(path), (json.dumps(record) + "\n").encode())


def _genotype(search_space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    """Return the genotype with the nodes in canonical order."""
    canonical = search_space.architecture(search_space.canonicalize(architecture.decisions))
    # A NasBench201 with permuted operators numbers canonical decisions in the default order, so the keys may differ. Its
    # cells have a single node order anyway.
    return search_space.genotype(canonical if canonical.key == architecture.key else architecture)


def _network(settings: NetworkSettings) -> dict[str, Any]:
    """Return the fields of ``NetworkSettings``, without the fields of subclasses."""
    return {setting.name: getattr(settings, setting.name) for setting in dataclasses.fields(NetworkSettings)}


def model_metadata(model: TrainedModel) -> dict[str, Any]:
    """Return the metadata that is stored with the weights of ``model``, as JSON values."""
    metadata = {
        "search_space": model.search_space.name,
        "genotype": _genotype(model.search_space, model.architecture),
        "network": _network(model.settings),
        "class_names": list(model.class_names),
        "image_shape": list(model.image_shape),
        "description": model.description,
    }
    if model.value_range is not None:
        metadata["value_range"] = {name: list(bound) for name, bound in dataclasses.asdict(model.value_range).items()}
    return metadata


def save_model(model: TrainedModel, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``, atomically; ``load_model`` restores it exactly.

    The file is safetensors and contains the model's ``state_dict``: the network's tensors under ``network.``, ``mean`` and
    ``std``. Its metadata has one entry, ``model``: a JSON object with ``format_version``, ``search_space``, ``genotype``,
    ``network`` (the fields of ``NetworkSettings``), ``class_names``, ``image_shape``, ``description`` and ``sha256``, the
    digest of the other entries and the tensors. If the training images were not uint8, it also contains ``value_range``, and
    the version is 2; otherwise, it is 1.

    Raises:
        InputError: if the file cannot be written.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    # A version that reads only files of version 1 would convert the values of images in a different way.
    version = 1 if model.value_range is None else FORMAT_VERSION
    save_tensors(Path(path), "model", {"format_version": version, **model_metadata(model)}, tensors)


def load_model(
    path: str | os.PathLike[str], *, search_space: str | SearchSpace | None = None, device: str = "cpu"
) -> TrainedModel:
    """Load a trained model in evaluation mode.

    Args:
        path: a file ``model.safetensors``, or a directory that contains it directly, in ``seed-*/``, or in ``final/`` (like
            a run directory). If there are several seeds, the lowest is loaded, because choosing by test accuracy would bias
            the test accuracy.
        search_space: the custom search space of the model, an object or ``MODULE:CLASS``. None: one of the built-in search
            spaces. The name in the file is never imported.
        device: a torch device, or "auto": the GPU if there is one, otherwise the CPU.

    Raises:
        InputError: if there is no model, it is damaged, has a newer format version, or belongs to a different search space,
            or the device does not exist.

    Examples:
        >>> model = load_model("runs/NAME")
        >>> model.predict("cat.jpg", top=1)
        [('cat', 0.93)]
    """
    file = find_model(Path(path))
    record, tensors = _read(file)
    space = _search_space(file, record.get("search_space"), search_space)
    try:
        for name, hint in RECORD_TYPES.items():
            require_type(name, record[name], hint)
        require_field_types(NetworkSettings, record["network"])
        if not all(0 < size < MAX_IMAGE_SIZE for size in record["image_shape"]):
            raise ValueError(f"image_shape is {record['image_shape']}")
        architecture = space.from_genotype(record["genotype"])
        settings = NetworkSettings(**record["network"])
        channels, height, width = record["image_shape"]
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            model = TrainedModel(
                space,
                architecture,
                settings,
                class_names=record["class_names"],
                image_shape=(channels, height, width),
                statistics=ChannelStatistics(tensors["mean"], tensors["std"]),
                value_range=_value_range(record.get("value_range"), channels),
                description=record["description"],
            )
        model.load_state_dict(tensors)
    except (InputError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} does not match the networks of the search space {space.name} ({one_line(error)}); load it with the "
            "version of NASES that wrote it"
        ) from error
    return model.to(resolve_device(device)).eval()


def _value_range(bounds: Any, channels: int) -> ValueRange | None:
    if bounds is None:
        return None
    require_type("value_range", bounds, dict[str, list[float]])
    value_range = ValueRange(tuple(bounds["low"]), tuple(bounds["high"]))
    if {len(value_range.low), len(value_range.high)} != {channels}:
        raise ValueError(f"value_range is {bounds}")
    return value_range


def find_model(path: Path) -> Path:
    """Return the model file for ``path``, a file or a directory; see ``load_model``.

    Raises:
        InputError: if there is no model.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path} does not exist; pass a model.safetensors or a run directory")
    for directory in (path, path / "final"):
        if (directory / MODEL_FILE).is_file():
            return directory / MODEL_FILE
        seeds = {match[1]: file for file in directory.glob(f"seed-*/{MODEL_FILE}") if (match := _seed(file))}
        if seeds:
            return seeds[min(seeds, key=int)]
    seed, folder = _seed(path / MODEL_FILE), path
    if seed:
        folder = path.absolute().parent
    run_dir = folder.parent if folder.name == "final" else folder
    option = f" --seed {seed[1]}" if seed else ""
    if (run_dir / TRAJECTORY).is_file():
        raise InputError(f"{path} contains no trained model; train one with `nases train {quoted(run_dir)}{option}`")
    raise InputError(f"{path} contains no trained model; pass a {MODEL_FILE} or a run directory")


def _seed(file: Path) -> re.Match[str] | None:
    return re.fullmatch(r"seed-(\d+)", file.parent.name)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the record and the tensors of ``file``; reject damaged files and newer format versions."""
    try:
        record, tensors = load_tensors(file, "model")
        if record["format_version"] > FORMAT_VERSION:
            raise InputError(
                f"{file} has format version {record['format_version']}, but this version of NASES reads versions up to "
                f"{FORMAT_VERSION}; update NASES"
            )
    except (InvalidFileError, OSError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged or not a NASES model ({one_line(error)}); copy it again, or remove it and rerun "
            "`nases train`"
        ) from error
    return record, tensors


def _search_space(file: Path, name: Any, given: str | SearchSpace | None) -> SearchSpace:
    if given is None and name not in list(SEARCH_SPACES):
        raise InputError(f"{file} uses the custom search space {name!r}; pass it as MODULE:CLASS (search_space)")
    space = get_search_space(name if given is None else given)
    if space.name != name:
        raise InputError(f"{file} uses the search space {name!r}, not {space.name!r}; pass the original search space")
    return space
