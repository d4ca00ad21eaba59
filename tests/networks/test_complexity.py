from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nases_env.networks import Cell, EnasMicroNetwork, NetworkSettings, count_flops, count_parameters
from tests.networks.cells import ENAS_NORMAL, ENAS_REDUCTION, random_cell


@pytest.mark.parametrize(("num_filters", "num_parameters"), [(40, 4_758_920), (36, 3_894_372)])
def test_parameters_of_the_enas_cells_match_the_published_numbers(num_filters: int, num_parameters: int) -> None:
    with torch.device("meta"):
        network = EnasMicroNetwork(
            ENAS_NORMAL, ENAS_REDUCTION, NetworkSettings(5, num_filters), num_classes=10, image_shape=(3, 32, 32)
        )
    assert count_parameters(network) == num_parameters


def closed_form(normal: Cell, reduction: Cell, stages: int, filters: int, num_classes: int, image_channels: int) -> int:
    """Compute the number of parameters without building the network."""
    total = 9 * image_channels * 3 * filters + 2 * 3 * filters
    inputs = [3 * filters, 3 * filters]
    after_reduction = False
    for layer in range(3 * stages + 2):
        reduces = layer in (stages, 2 * stages + 1)
        filters *= 2 if reduces else 1
        cell = reduction if reduces else normal
        if after_reduction or inputs[0] != filters:
            total += inputs[0] * filters + 2 * filters
        if inputs[1] != filters:
            total += inputs[1] * filters + 2 * filters
        pointwise = filters**2 + 2 * filters
        total += pointwise
        edges = [edge for node in cell for edge in (node[:2], node[2:])]
        for source, operator in edges:
            if operator in (1, 2):
                total += 2 * ((9 if operator == 1 else 25) * filters + pointwise)
            elif operator == 0 and reduces and source < 2:
                total += pointwise
        loose = set(range(len(cell) + 2)) - {source for source, _ in edges}
        total += pointwise * len(loose & {0, 1}) if reduces else 0
        inputs = [inputs[1], filters * len(loose)]
        after_reduction = reduces
    return total + inputs[1] * num_classes


@pytest.mark.parametrize("seed", range(12))
def test_parameters_match_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal, reduction = random_cell(rng, int(rng.integers(1, 6))), random_cell(rng, int(rng.integers(1, 6)))
    stages, filters, classes, image_channels = (int(rng.integers(1, high)) for high in (4, 9, 12, 4))
    with torch.device("meta"):
        network = EnasMicroNetwork(
            normal, reduction, NetworkSettings(stages, filters), num_classes=classes, image_shape=(image_channels, 8, 8)
        )
    assert count_parameters(network) == closed_form(normal, reduction, stages, filters, classes, image_channels)


def test_frozen_parameters_are_not_counted() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("image_shape", [(3, 16, 16), (1, 9, 7)])
def test_flops_match_a_count_with_hooks(seed: int, image_shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    network = EnasMicroNetwork(
        random_cell(rng), random_cell(rng), NetworkSettings(1, 3), num_classes=5, image_shape=image_shape
    )
    multiply_adds = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        assert isinstance(module, nn.Conv2d | nn.Linear)
        multiply_adds += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    # On the meta device the CPU operators, which bypass the modules and thus the hooks, are not used.
    network.eval().to("meta")(torch.zeros(1, *image_shape, device="meta"))
    by_hooks, multiply_adds = multiply_adds, 0
    assert count_flops(network, image_shape) == 2 * by_hooks


def test_counting_does_not_change_the_network_or_the_generator() -> None:
    network = EnasMicroNetwork(
        ENAS_NORMAL, ENAS_REDUCTION, NetworkSettings(1, 4, 0.5, True), num_classes=10, image_shape=(3, 8, 8)
    )
    network.stem.eval()
    network.set_drop_path_progress(1.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    count_parameters(network)
    count_flops(network, (3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
