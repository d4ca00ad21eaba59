"""Trained models on disk: what comes back, where it is looked for, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

import nases_env
from nases_env.errors import InputError
from nases_env.model_io import TrainedModel, load_model, save_model, write_genotype
from nases_env.networks import NetworkSettings, build_network
from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search_spaces import get_search_space
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.training import ChannelStatistics
from nases_env.training.checkpoint import digest
from tests.model_io.conftest import GENOTYPE, NASBENCH201, tiny_model

TIED = "tests.model_io.spaces:TiedWidths"


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_comes_back_as_it_was(model: TrainedModel, images: torch.Tensor, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    before = torch.get_rng_state()
    loaded = nases_env.load_model(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert loaded.class_names == model.class_names
    assert loaded.image_shape == (3, 32, 32)
    assert loaded.description == {"seed": 0, "test_accuracy": 0.25}
    assert loaded.settings == model.settings
    assert loaded.architecture.key == model.architecture.key
    assert type(loaded.search_space) is type(model.search_space)
    save_model(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_the_file_says_what_it_holds(model: TrainedModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        (metadata,) = file.metadata().values()
        names = set(file.keys())
    record = json.loads(metadata)
    space = model.search_space
    canonicalize = space.architecture(space.canonicalize(model.architecture.decisions))
    assert canonicalize != model.architecture
    assert record["format_version"] == 1
    assert record["search_space"] == "enas_micro"
    assert record["genotype"] == space.genotype(canonicalize)
    assert record["network"] == {
        "cells_per_stage": 1,
        "num_filters": 3,
        "drop_path_keep": 1.0,
        "auxiliary_head": False,
    }
    assert record["class_names"] == list(model.class_names)
    assert record["image_shape"] == [3, 32, 32]
    assert record["description"] == model.description
    assert names == {"mean", "std", *(f"network.{name}" for name in model.network.state_dict())}


def test_weights_fit_what_the_genotype_rebuilds(model: TrainedModel, images: torch.Tensor, tmp_path: Path) -> None:
    file, shape = tmp_path / "genotype.json", model.image_shape
    write_genotype(file, model.search_space, model.architecture, model.settings, num_classes=10, image_shape=shape)
    network = build_network(json.loads(file.read_text())).to(memory_format=torch.channels_last)
    network.load_state_dict(model.network.state_dict())
    with torch.no_grad():
        standardised = (images - model.mean[:, None, None]) / model.std[:, None, None]
        logits = network.eval()(standardised.to(memory_format=torch.channels_last))
        assert torch.equal(logits, model(images))


def test_an_auxiliary_head_is_kept(tmp_path: Path) -> None:
    space = get_search_space("enas_micro")
    settings = NetworkSettings(1, 2, drop_path_keep=0.8, auxiliary_head=True)
    made = TrainedModel(
        space,
        space.from_genotype(GENOTYPE),
        settings,
        class_names=("a", "b"),
        image_shape=(1, 8, 8),
        statistics=ChannelStatistics(torch.zeros(1), torch.ones(1)),
    )
    save_model(made, tmp_path / "model.safetensors")
    assert load_model(tmp_path).settings == settings


def test_operators_in_another_order_are_the_same_cell(tmp_path: Path) -> None:
    backwards = NasBench201(OPERATORS[::-1])
    made = tiny_model()
    reordered = TrainedModel(
        backwards,
        backwards.from_genotype(NASBENCH201),
        made.settings,
        class_names=made.class_names,
        image_shape=made.image_shape,
        statistics=ChannelStatistics(made.mean, made.std),
    )
    save_model(reordered, tmp_path / "model.safetensors")
    assert load_model(tmp_path).architecture == made.architecture


def test_a_space_of_ones_own_is_named_by_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_model(TIED, genotype={"decisions": [1, 0]})
    save_model(made, tmp_path / "model.safetensors")
    images = torch.rand(2, 1, 7, 9)
    for space in (TIED, get_search_space(TIED)):
        assert torch.equal(load_model(tmp_path, search_space=space)(images), made(images))
    assert "'tied_widths', which does not ship with NASES; name it as MODULE:CLASS" in error_of(tmp_path)
    assert "is of the search space 'tied_widths', not 'enas_micro'" in error_of(tmp_path, search_space="enas_micro")
    monkeypatch.setattr(type(made.search_space), "decision_sizes", (1, 2))
    assert "does not fit the networks of the search space tied_widths" in error_of(tmp_path, search_space=TIED)


def forge(file: Path, **changes: Any) -> None:
    """Changes what a model's file says, so that it is intact."""
    with safetensors.safe_open(file, framework="pt") as opened:
        record = json.loads(opened.metadata()["model"])
    del record["sha256"]
    record.update(changes)
    tensors = safetensors.torch.load_file(file)
    record["sha256"] = digest(record, tensors)
    safetensors.torch.save_file(tensors, file, {"model": json.dumps(record)})


@pytest.mark.parametrize("name", ["tests.model_io.unheard_of:Space", ["enas_micro"], {"a": 1}, 3, None])
def test_a_file_does_not_decide_what_is_imported(name: object, tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    forge(tmp_path / "model.safetensors", search_space=name)
    assert "which does not ship with NASES" in error_of(tmp_path)
    assert "tests.model_io.unheard_of" not in sys.modules


@pytest.mark.parametrize(
    "changes",
    [
        {"genotype": {"cell": "|none~0|"}},
        {"network": {"cells_per_stage": 2, "num_filters": 2, "drop_path_keep": 1.0, "auxiliary_head": False}},
        {"network": {"num_layers": 2}},
        {"class_names": ["cat"]},
        {"image_shape": [3, 8, 8]},
        {"image_shape": 3},
        {"class_names": None},
    ],
)
def test_what_the_weights_do_not_fit_is_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    forge(tmp_path / "model.safetensors", **changes)
    assert "does not fit the networks of the search space nasbench201 here" in error_of(tmp_path)


def test_it_is_found_in_the_folders_of_a_search(tmp_path: Path) -> None:
    made = tiny_model()
    for seed in (10, 9, 11):
        made.description = {"seed": seed}
        save_model(made, tmp_path / "run" / "final" / f"seed-{seed}" / "model.safetensors")
    (tmp_path / "run" / "final" / "seed-1").mkdir()  # not finished
    (tmp_path / "run" / "final" / "seed-best").mkdir()
    final = tmp_path / "run" / "final"
    for path in (tmp_path / "run", final, final / "seed-9", final / "seed-9" / "model.safetensors", str(final)):
        assert load_model(path).description == {"seed": 9}
    made.description = {"seed": "above"}
    save_model(made, final / "model.safetensors")
    assert load_model(tmp_path / "run").description == {"seed": "above"}


def test_where_there_is_none_it_says_what_makes_one(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no trained model; `nases train {tmp_path}` makes one" in error_of(tmp_path)
    assert f"there is no {tmp_path / 'absent'}" in error_of(tmp_path / "absent")


def cut(content: bytes) -> bytes:
    return content[:-7]


def flip_a_weight(content: bytes) -> bytes:
    return content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]


def rename_a_class(content: bytes) -> bytes:
    return content.replace(b"eel", b"elk")


def lose_the_header(content: bytes) -> bytes:
    return content.replace(b"format_version", b"formal_version")


@pytest.mark.parametrize("damage", [cut, flip_a_weight, rename_a_class, lose_the_header, lambda content: b"", bytes.upper])
def test_damage_is_one_line(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_model(tiny_model(), file)
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    assert f"{file} is not an intact trained model" in error_of(file)


def test_other_files_and_newer_ones_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"mean": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "no trained model of NASES" in error_of(tmp_path / "other.safetensors")
    safetensors.torch.save_file({"mean": torch.zeros(3)}, tmp_path / "list.safetensors", {"model": "[1]"})
    assert "not an intact trained model" in error_of(tmp_path / "list.safetensors")
    save_model(tiny_model(), tmp_path / "new.safetensors")
    forge(tmp_path / "new.safetensors", format_version=2)
    assert "newer than this version of NASES" in error_of(tmp_path / "new.safetensors")


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    assert load_model(tmp_path, device="auto").mean.device.type in ("cpu", "cuda")
    assert "cannot use the device 'abacus'" in error_of(tmp_path, device="abacus")


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot write"):
        save_model(tiny_model(), tmp_path / "file" / "model.safetensors")
