"""Saving and loading of trained models, and the errors for invalid files."""

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
from nases_env.safetensors_file import load_tensors, save_tensors
from nases_env.search.run_dir import TRAJECTORY
from nases_env.search_spaces import get_search_space
from nases_env.search_spaces.nasbench201 import NasBench201
from nases_env.training import ChannelStatistics
from tests.model_io.conftest import GENOTYPE, NASBENCH201, tiny_model

TIED = "tests.model_io.spaces:TiedWidths"


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_preserves_the_model(model: TrainedModel, images: torch.Tensor, tmp_path: Path) -> None:
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


def test_metadata_of_the_file(model: TrainedModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        (metadata,) = file.metadata().values()
        names = set(file.keys())
    record = json.loads(metadata)
    space = model.search_space
    canonical = space.architecture(space.canonicalize(model.architecture.decisions))
    assert canonical != model.architecture
    assert record["format_version"] == 1
    assert record["search_space"] == "enas_micro"
    assert record["genotype"] == space.genotype(canonical)
    assert record["network"] == {
        "cells_per_stage": 1,
        "num_filters": 3,
        "drop_path_prob": 0.0,
        "auxiliary_head": True,
    }
    assert record["class_names"] == list(model.class_names)
    assert record["image_shape"] == [3, 32, 32]
    assert record["description"] == model.description
    assert names == {"mean", "std", *(f"network.{name}" for name in model.network.state_dict())}


def test_weights_match_the_network_of_the_genotype(model: TrainedModel, images: torch.Tensor, tmp_path: Path) -> None:
    file, shape = tmp_path / "genotype.json", model.image_shape
    write_genotype(file, model.search_space, model.architecture, model.settings, num_classes=10, image_shape=shape)
    network = build_network(json.loads(file.read_text())).to(memory_format=torch.channels_last)
    network.load_state_dict(model.network.state_dict())
    with torch.no_grad():
        standardized = (images - model.mean[:, None, None]) / model.std[:, None, None]
        logits = network.eval()(standardized.to(memory_format=torch.channels_last))
        assert torch.equal(logits, model(images))


def test_auxiliary_head_is_restored(tmp_path: Path) -> None:
    space = get_search_space("enas_micro")
    settings = NetworkSettings(1, 2, drop_path_prob=0.2, auxiliary_head=True)
    model = TrainedModel(
        space,
        space.from_genotype(GENOTYPE),
        settings,
        class_names=("a", "b"),
        image_shape=(1, 8, 8),
        statistics=ChannelStatistics(torch.zeros(1), torch.ones(1)),
    )
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path).settings == settings


def test_order_of_operators_does_not_change_the_cell(tmp_path: Path) -> None:
    reversed_space = NasBench201(OPERATORS[::-1])
    model = tiny_model()
    reordered = TrainedModel(
        reversed_space,
        reversed_space.from_genotype(NASBENCH201),
        model.settings,
        class_names=model.class_names,
        image_shape=model.image_shape,
        statistics=ChannelStatistics(model.mean, model.std),
    )
    save_model(reordered, tmp_path / "model.safetensors")
    assert load_model(tmp_path).architecture == model.architecture


def test_custom_search_space_must_be_passed_by_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(TIED, genotype={"decisions": [1, 0]})
    save_model(model, tmp_path / "model.safetensors")
    images = torch.rand(2, 1, 7, 9)
    for space in (TIED, get_search_space(TIED)):
        assert torch.equal(load_model(tmp_path, search_space=space)(images), model(images))
    assert "uses the custom search space 'tied_widths'; pass it as MODULE:CLASS" in error_of(tmp_path)
    assert "uses the search space 'tied_widths', not 'enas_micro'" in error_of(tmp_path, search_space="enas_micro")
    monkeypatch.setattr(type(model.search_space), "decision_sizes", (1, 2))
    assert "does not match the networks of the search space tied_widths" in error_of(tmp_path, search_space=TIED)


def rewrite(file: Path, **changes: Any) -> None:
    """Change entries of the record of an intact file."""
    record, tensors = load_tensors(file, "model")
    save_tensors(file, "model", {**record, **changes}, tensors)


@pytest.mark.parametrize("name", ["tests.model_io.absent:Space", ["enas_micro"], {"a": 1}, 3, None])
def test_search_space_in_the_file_is_never_imported(name: object, tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    rewrite(tmp_path / "model.safetensors", search_space=name)
    assert "uses the custom search space" in error_of(tmp_path)
    assert "tests.model_io.absent" not in sys.modules


@pytest.mark.parametrize(
    "changes",
    [
        {"genotype": {"cell": "|none~0|"}},
        {"network": {"cells_per_stage": 2, "num_filters": 2, "drop_path_prob": 0.0, "auxiliary_head": False}},
        {"network": {"num_layers": 2}},
        {"class_names": ["cat"]},
        {"image_shape": [3, 8, 8]},
        {"image_shape": 3},
        {"class_names": None},
    ],
)
def test_metadata_that_does_not_match_the_weights_is_an_input_error(changes: dict[str, Any], tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    rewrite(tmp_path / "model.safetensors", **changes)
    assert "does not match the networks of the search space nasbench201" in error_of(tmp_path)


def test_model_is_found_in_a_run_directory(tmp_path: Path) -> None:
    model = tiny_model()
    for seed in (10, 9, 11):
        model.description = {"seed": seed}
        save_model(model, tmp_path / "run" / "final" / f"seed-{seed}" / "model.safetensors")
    (tmp_path / "run" / "final" / "seed-1").mkdir()  # unfinished
    (tmp_path / "run" / "final" / "seed-best").mkdir()
    final = tmp_path / "run" / "final"
    for path in (tmp_path / "run", final, final / "seed-9", final / "seed-9" / "model.safetensors", str(final)):
        assert load_model(path).description == {"seed": 9}
    model.description = {"seed": "above"}
    save_model(model, final / "model.safetensors")
    assert load_model(tmp_path / "run").description == {"seed": "above"}


def test_missing_model_is_an_input_error(tmp_path: Path) -> None:
    run_dir = tmp_path / "my run"
    run_dir.mkdir()
    message = error_of(run_dir)
    assert message == f"{run_dir} contains no trained model; pass a model.safetensors or a run directory"
    (run_dir / TRAJECTORY).touch()
    assert error_of(run_dir) == f"{run_dir} contains no trained model; train one with `nases train '{run_dir}'`"
    assert f"{tmp_path / 'absent'} does not exist" in error_of(tmp_path / "absent")


def test_error_for_a_seed_that_is_not_trained_names_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "run" / "final"
    (final / "seed-3").mkdir(parents=True)
    (tmp_path / "run" / TRAJECTORY).touch()
    command = f"train one with `nases train {tmp_path / 'run'} --seed 3`"
    assert error_of(final / "seed-3").endswith(command)
    monkeypatch.chdir(final)
    assert error_of(Path("seed-3")).endswith(command)


def truncate(content: bytes) -> bytes:
    return content[:-7]


def flip_bit(content: bytes) -> bytes:
    return content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]


def rename_class(content: bytes) -> bytes:
    return content.replace(b"eel", b"elk")


def remove_format_version(content: bytes) -> bytes:
    return content.replace(b"format_version", b"formal_version")


@pytest.mark.parametrize(
    "damage", [truncate, flip_bit, rename_class, remove_format_version, lambda content: b"", bytes.upper]
)
def test_damaged_file_is_an_input_error(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_model(tiny_model(), file)
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    assert f"{file} is damaged or not a NASES model" in error_of(file)


def test_other_files_and_newer_versions_are_input_errors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"mean": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "is damaged or not a NASES model (its metadata has no entry 'model'" in error_of(tmp_path / "other.safetensors")
    safetensors.torch.save_file({"mean": torch.zeros(3)}, tmp_path / "list.safetensors", {"model": "[1]"})
    assert "is damaged or not a NASES model" in error_of(tmp_path / "list.safetensors")
    save_model(tiny_model(), tmp_path / "new.safetensors")
    rewrite(tmp_path / "new.safetensors", format_version=3)
    assert "this version of NASES reads versions up to 2; update NASES" in error_of(tmp_path / "new.safetensors")


def test_unknown_device_is_an_input_error(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors")
    assert load_model(tmp_path, device="auto").mean.device.type in ("cpu", "cuda")
    assert "cannot use the device 'abacus'" in error_of(tmp_path, device="abacus")


def test_failed_write_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError, match="cannot write"):
        save_model(tiny_model(), tmp_path / "file" / "model.safetensors")
