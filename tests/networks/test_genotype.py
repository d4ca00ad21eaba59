"""Networks are built from the genotype in a JSON file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.errors import InputError
from nases_env.model_io import write_genotype
from nases_env.networks import NetworkSettings, build_network
from nases_env.search_spaces import get_search_space

SETTINGS = NetworkSettings(cells_per_stage=1, num_filters=2)
SIZE: dict[str, Any] = {"num_classes": 4, "image_shape": (3, 9, 9)}
SPACES = ("enas_micro", "enas_micro_sized", "nasbench201", "transnas_micro")


def genotype(name: str, **changes: Any) -> dict[str, Any]:
    """Return the content of a genotype.json."""
    space = get_search_space(name)
    architecture = space.sample(np.random.default_rng(3))
    network = {"cells_per_stage": 1, "num_filters": 2, "drop_path_prob": 0.0, "auxiliary_head": False}
    named = {"search_space": name, **space.genotype(architecture), "network": network}
    return {**named, "num_classes": 4, "image_shape": [3, 9, 9], **changes}


def test_genotypes_rebuild_the_networks_without_search_code(tmp_path: Path) -> None:
    spaces = {name: get_search_space(name) for name in SPACES}
    architectures = {name: space.sample(np.random.default_rng(0)) for name, space in spaces.items()}
    for name, space in spaces.items():
        write_genotype(tmp_path / f"{name}.json", space, architectures[name], SETTINGS, **SIZE)
    code = """
import sys, torch
import json; from nases_env.networks import build_network
for name in sys.argv[1:]:
    torch.manual_seed(0)
    network = build_network(json.load(open(f"{name}.json")))
    torch.save(network(torch.ones(2, 3, 9, 9)), f"{name}.pt")
    packages = {name.split(".")[1] for name in sys.modules if name.startswith("nases_env.")}
    assert packages == {"registration", "version", "errors", "networks"}, (name, packages)
"""
    subprocess.run([sys.executable, "-c", code, *SPACES], cwd=tmp_path, check=True)
    for name, space in spaces.items():
        torch.manual_seed(0)
        expected = space.build(architectures[name], SETTINGS, **SIZE)(torch.ones(2, 3, 9, 9))
        assert torch.equal(torch.load(tmp_path / f"{name}.pt"), expected), name


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_best_json_builds_the_same_network_as_the_search_space(name: str, seed: int) -> None:
    space = get_search_space(name)
    architecture = space.sample(np.random.default_rng(seed))
    torch.manual_seed(seed)
    network = build_network(json.loads(space.to_json(architecture)), network=SETTINGS, **SIZE)
    torch.manual_seed(seed)
    expected = space.build(architecture, SETTINGS, **SIZE)
    images = torch.rand(2, 3, 9, 9)
    assert list(network.state_dict()) == list(expected.state_dict())
    assert torch.equal(network(images), expected(images))


@pytest.mark.parametrize("name", SPACES)
def test_keyword_arguments_override_the_file(name: str) -> None:
    network = build_network(genotype(name), num_classes=7, image_shape=(1, 8, 8), network=NetworkSettings(1, 3))
    assert network(torch.ones(2, 1, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "a genotype must be a JSON object"),
        (genotype("enas_micro", search_space="darts"), "cannot build a network of the search space 'darts'"),
        (genotype("enas_micro", search_space=["enas_micro"]), "cannot build a network"),
        (genotype("enas_micro", search_space="nasbench201"), "a genotype of nasbench201 must be a dict"),
        (genotype("enas_micro", third=[]), "a genotype of enas_micro must be a dict"),
        (genotype("enas_micro_sized", width=3), "the width of a genotype is 3; it must be one of"),
        (genotype("enas_micro_sized", third=[]), "a genotype of enas_micro_sized must be a dict"),
        (genotype("enas_micro", normal=3), "the normal cell of a genotype is a list of 5 nodes"),
        (genotype("nasbench201", cell="|none~0|"), "a cell of nasbench201 is written"),
        (
            genotype("transnas_micro", cell="|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|"),
            "unknown operator 'avg_pool_3x3' in .*; known: none, skip_connect, nor_conv_1x1, nor_conv_3x3$",
        ),
        (genotype("nasbench201", network=None), "lacks network; pass network="),
        (genotype("nasbench201", network=None, num_classes=None), "lacks network and num_classes"),
        (
            genotype("nasbench201", network={"num_filters": 3}),
            "network of a genotype must be an object with cells_per_stage, num_f",
        ),
        (genotype("nasbench201", network=[3]), "network of a genotype must be an object"),
        (
            genotype("nasbench201", network={**genotype("nasbench201")["network"], "num_filters": "3"}),
            "has the num_filters '3'; it must be of type int",
        ),
        (
            genotype("nasbench201", network={**genotype("nasbench201")["network"], "num_filters": 0}),
            "num_filters is 0; it must be at least 1",
        ),
        (genotype("nasbench201", num_classes=True), "num_classes is True; it must be an integer"),
        (genotype("nasbench201", num_classes=0), "num_classes is 0; it must be at least 1"),
        (genotype("nasbench201", image_shape=[3, 8]), r"image_shape is \[3, 8\]; it must be \(channels"),
        (genotype("nasbench201", image_shape=[3, 8, 8.0]), "all integers"),
        (genotype("nasbench201", image_shape="388"), "all integers"),
        (genotype("nasbench201", network={1: 1, "a": 2}), "network of a genotype must be an object"),
    ],
)
def test_invalid_genotype_is_a_one_line_error(record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_network(record)
    assert "\n" not in str(caught.value)


def nested_list() -> list[Any]:
    """Return a list of thousands of levels, which has no ``repr``."""
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("enas_micro", key) for key in ("search_space", "third", "normal", "network", "num_classes", "image_shape")),
        ("nasbench201", "cell"),
        ("nasbench201", "third"),
    ],
)
def test_deeply_nested_value_is_a_one_line_error(name: str, key: str) -> None:
    with pytest.raises(InputError, match=r" <(list|dict)>"):
        build_network(genotype(name, **{key: nested_list()}))


def test_deeply_nested_part_of_a_cell_is_a_one_line_error() -> None:
    nested = nested_list()
    for node, message in (
        (nested, "node 0 of the normal cell must be .* not <list>"),
        ([nested, nested], "a branch of node 0 .* not <list>"),
        ([[nested, 0], ["identity", 0]], "unknown operator <list> in the normal cell;"),
        ([["identity", nested], ["identity", 0]], "node 0 of the normal cell reads input <list>"),
    ):
        with pytest.raises(InputError, match=message):
            build_network(genotype("enas_micro", normal=[node] * 5))
