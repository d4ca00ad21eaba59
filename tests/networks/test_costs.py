"""The costs of networks equal those computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nases_env.evaluation import PRESETS
from nases_env.model_io import save_model
from nases_env.model_io.model import TrainedModel
from nases_env.networks import (
    Cell,
    EnasMicroNetwork,
    NetworkSettings,
    count_costs,
    count_file_bytes,
    count_flops,
    count_parameters,
)
from nases_env.search_spaces import get_search_space
from nases_env.training import ChannelStatistics
from tests.networks.cells import ENAS_NORMAL, ENAS_REDUCTION, random_cell

IMAGE = (3, 8, 8)
MAP = 8 * 8 * 4  # bytes of a channel


class Residual(nn.Module):
    """The first map is read again after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(i, o, 1) for i, o in ((3, 4), (4, 16), (16, 4)))

    def forward(self, image: Tensor) -> Tensor:
        stem = self.stem(image)
        return torch.as_tensor(stem + self.second(self.first(stem)))


@pytest.fixture
def plain_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not use the CPU operators, which bypass the modules, and thus their hooks."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def peak(*layers: nn.Module) -> int:
    return count_costs(nn.Sequential(*layers), IMAGE).activation_bytes


def test_peak_of_a_chain_is_that_of_the_largest_operation() -> None:
    assert peak(nn.Conv2d(3, 5, 1)) == (3 + 5) * MAP
    assert peak(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1)) == (3 + 5) * MAP  # then the image is free
    assert peak(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 7, 1)) == (5 + 7) * MAP


def test_operations_in_place_and_views_need_no_memory() -> None:
    assert peak(nn.Conv2d(3, 5, 1), nn.ReLU()) == (5 + 5) * MAP
    assert peak(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True)) == (3 + 5) * MAP
    assert peak(nn.Conv2d(3, 5, 1), nn.Flatten()) == (3 + 5) * MAP


def test_results_that_nothing_reads_do_not_count() -> None:
    """Such as the indices of max pooling and the statistics of batch norm."""
    assert peak(nn.MaxPool2d(3, 1, 1)) == (3 + 3) * MAP
    assert peak(nn.BatchNorm2d(3)) == (3 + 3) * MAP


def test_tensor_that_is_read_later_stays() -> None:
    """In ``second``, the stem (4 channels), the first (16) and the second map (4) exist."""
    assert count_costs(Residual(), IMAGE).activation_bytes == (4 + 16 + 4) * MAP


def test_linear_layer_has_the_costs_by_hand() -> None:
    costs = count_costs(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), IMAGE)
    assert costs == (1930, 2 * 1920, 4 * (192 + 10), 4 * 1930)


class Coordinates(nn.Module):
    """A network that creates a tensor on the CPU, and draws random numbers."""

    def __init__(self, uses_numpy: bool) -> None:
        super().__init__()
        self.uses_numpy = uses_numpy
        self.layer = nn.Conv2d(4, 2, 1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        column = torch.linspace(0, 1, images.shape[-1]).expand(len(images), 1, *images.shape[2:]) + torch.rand(1)
        if self.uses_numpy:
            column = column + torch.from_numpy(images.numpy().mean(1, keepdims=True))
        result: torch.Tensor = self.layer(torch.cat([images, column], dim=1)).relu().mean((2, 3))
        return result


@pytest.mark.parametrize("uses_numpy", [False, True])
def test_network_that_needs_values_is_counted(uses_numpy: bool) -> None:
    model = Coordinates(uses_numpy)
    before, state = model.layer.weight.clone(), torch.get_rng_state()
    costs = count_costs(model, IMAGE)
    assert costs[:2] == (8, 2 * 8 * 64)
    assert count_flops(model, IMAGE) == costs.num_flops
    assert costs.activation_bytes >= (4 + 2) * MAP
    assert torch.equal(model.layer.weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


@pytest.mark.parametrize("name", ["enas_micro", "enas_micro_sized", "nasbench201"])
@pytest.mark.usefixtures("plain_operators")
def test_counts_agree_with_those_of_torch_for_every_space(name: str) -> None:
    space, rng = get_search_space(name), np.random.default_rng(0)
    for _ in range(3):
        model = space.build(space.sample(rng), PRESETS["smoke"], num_classes=4, image_shape=IMAGE)
        costs = count_costs(model, IMAGE)
        assert all(module.training for module in model.modules())
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.empty(1, *IMAGE))
        assert costs[:2] == (count_parameters(model), counter.get_total_flops())
        assert count_flops(model, IMAGE) == costs.num_flops
        # A map of the first stage is read to compute another one, and at most all results exist at once.
        assert 2 * PRESETS["smoke"].num_filters * MAP <= costs.activation_bytes < 1000 * MAP


def test_peak_grows_with_the_area_of_the_image() -> None:
    space = get_search_space("nasbench201")
    model = space.build(space.architecture([3] * 6), PRESETS["smoke"], num_classes=4, image_shape=(3, 16, 16))
    small, large = (count_costs(model, (3, side, side)).activation_bytes for side in (8, 16))
    assert large == 4 * small


def test_file_bytes_are_those_of_the_weights_in_the_file(tmp_path: object) -> None:
    from pathlib import Path

    space, path = get_search_space("nasbench201"), Path(str(tmp_path), "model.safetensors")
    model = TrainedModel(
        space,
        space.architecture([3] * 6),
        PRESETS["smoke"],
        class_names=["a", "b"],
        image_shape=IMAGE,
        statistics=ChannelStatistics(torch.zeros(3), torch.ones(3)),
    )
    save_model(model, path)
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size == 8 + header + count_file_bytes(model)
    assert count_file_bytes(model) == count_file_bytes(model.network) + 2 * 3 * 4


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
@pytest.mark.usefixtures("plain_operators")
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
    network.eval()(torch.zeros(1, *image_shape))
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
