"""Trained models on disk: one safetensors file that says all of itself, and the genotype that rebuilds the bare network."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nases_env.atomic_io import write_atomically
from nases_env.devices import resolve_device
from nases_env.errors import InputError, one_line
from nases_env.model_io.model import TrainedModel
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import SEARCH_SPACES, Architecture, SearchSpace, get_search_space
from nases_env.training import ChannelStatistics
from nases_env.training.checkpoint import digest

FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"


def genotype_record(
    search_space: SearchSpace,
    architecture: Architecture,
    settings: NetworkSettings,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> dict[str, Any]:
    """What ``genotype.json`` holds: all that ``nases_env.networks.build_network`` needs to build the network again.

    Its keys are ``search_space``, those of the genotype, ``network`` (the fields of ``NetworkSettings``), ``num_classes``
    and ``image_shape``. The nodes of its cells are in the order in which the network has them.
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
    """Writes ``genotype_record`` to ``path``, atomically.

    Raises:
        InputError: if it cannot be written.
    """
    record = genotype_record(search_space, architecture, settings, num_classes=num_classes, image_shape=image_shape)
    write_atomically(Path(path), (json.dumps(record) + "\n").encode())


def _genotype(search_space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    """The genotype in canonical order."""
    canonicalize = search_space.architecture(search_space.canonicalize(architecture.decisions))
    # A NasBench201 with operators of its own order counts canonical decisions in the natural one; it has no order to mend.
    return search_space.genotype(canonicalize if canonicalize.key == architecture.key else architecture)


def _network(settings: NetworkSettings) -> dict[str, Any]:
    """The fields of ``NetworkSettings`` alone, where ``settings`` has more."""
    return {setting.name: getattr(settings, setting.name) for setting in dataclasses.fields(NetworkSettings)}


def describe_model(model: TrainedModel) -> dict[str, Any]:
    """What a file says of ``model`` beside its weights, as JSON values."""
    return {
        "search_space": model.search_space.name,
        "genotype": _genotype(model.search_space, model.architecture),
        "network": _network(model.settings),
        "class_names": list(model.class_names),
        "image_shape": list(model.image_shape),
        "description": model.description,
    }


def save_model(model: TrainedModel, path: str | os.PathLike[str]) -> None:
    """Writes ``model`` to ``path``, atomically; ``load_model`` reads it back exactly.

    The file is safetensors and holds the model's ``state_dict``: the network's tensors under ``network.``, ``mean`` and
    ``std``. Its metadata has one entry, ``model``: a JSON object with ``format_version``, ``search_space``, ``genotype``,
    ``network`` (the fields of ``NetworkSettings``), ``class_names``, ``image_shape``, ``description`` and the ``sha256`` of
    everything else.

    Raises:
        InputError: if it cannot be written.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    # Through JSON and back, so that the digest is of what comes back.
    record = json.loads(json.dumps({"format_version": FORMAT_VERSION, **describe_model(model)}))
    record["sha256"] = digest(record, tensors)
    # One entry, because safetensors writes several in an order that differs between runs.
    write_atomically(Path(path), safetensors.torch.save(tensors, {"model": json.dumps(record)}))


def load_model(
    path: str | os.PathLike[str], *, search_space: str | SearchSpace | None = None, device: str = "cpu"
) -> TrainedModel:
    """The trained model in ``path``, in evaluation mode.

    Args:
        path: the file ``model.safetensors``, or a folder in which it lies, in ``seed-*/`` below it, or, as in the folder of
            a search, in ``final/`` below it. Of several seeds it is the lowest: the best by test accuracy would have been
            chosen by the test images.
        search_space: the search space of the model, where it is none that ships: ``MODULE:CLASS`` or an object. What the
            file says of it is not imported.
        device: where the model is to be: a torch device, or "auto": the GPU where there is one, else the CPU.

    Raises:
        InputError: if there is no model, it is not intact, of a newer version or of another search space, or there is no
            such device.
    """
    file = find_model(Path(path))
    record, tensors = _read(file)
    space = _search_space(file, record.get("search_space"), search_space)
    try:
        architecture = space.from_genotype(record["genotype"])
        settings = NetworkSettings(**record["network"])
        channels, height, width = record["image_shape"]
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten, and drawing them leaves no trace
            model = TrainedModel(
                space,
                architecture,
                settings,
                class_names=record["class_names"],
                image_shape=(channels, height, width),
                statistics=ChannelStatistics(tensors["mean"], tensors["std"]),
                description=record["description"],
            )
        model.load_state_dict(tensors)
    except (InputError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} does not fit the networks of the search space {space.name} here ({one_line(error)}); load it with the "
            "version that it was made with"
        ) from error
    return model.to(resolve_device(device)).eval()


def find_model(path: Path) -> Path:
    """The file of the model that ``path`` means, as ``load_model`` says.

    Raises:
        InputError: if there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"there is no {path}; give a model.safetensors, or the folder of a search or of its final training")
    for folder in (path, path / "final"):
        if (folder / MODEL_FILE).is_file():
            return folder / MODEL_FILE
        seeds = {match[1]: file for file in folder.glob(f"seed-*/{MODEL_FILE}") if (match := _seed(file))}
        if seeds:
            return seeds[min(seeds, key=int)]
    raise InputError(f"{path} holds no trained model; `nases train {path}` makes one")


def _seed(file: Path) -> re.Match[str] | None:
    return re.fullmatch(r"seed-(\d+)", file.parent.name)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an intact file of this version or an older one says, and its tensors."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(file, error) from error
    if "model" not in metadata:
        raise InputError(f"{file} is a safetensors file, but no trained model of NASES; `nases train RUN` makes one")
    try:
        record = json.loads(metadata["model"])
        if record["format_version"] > FORMAT_VERSION:
            raise InputError(
                f"{file} has the format {record['format_version']}, which is newer than this version of NASES knows "
                f"({FORMAT_VERSION}); pip install --upgrade nases-env"
            )
        if record.pop("sha256") != digest(record, tensors):
            raise ValueError("its content has changed")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(file, error) from error
    return record, tensors


def _damaged(file: Path, error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {one_line(error)}"
    return InputError(f"{file} is not an intact trained model ({reason}); copy it anew, or make it again with `nases train`")


def _search_space(file: Path, name: Any, given: str | SearchSpace | None) -> SearchSpace:
    if given is None and name not in list(SEARCH_SPACES):
        raise InputError(
            f"{file} is of the search space {name!r}, which does not ship with NASES; name it as MODULE:CLASS (search_space)"
        )
    space = get_search_space(name if given is None else given)
    if space.name != name:
        raise InputError(f"{file} is of the search space {name!r}, not {space.name!r}; name its own")
    return space
