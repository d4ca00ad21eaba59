"""Parameter and FLOP counts of networks."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters, including those of an auxiliary head."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the number of floating-point operations of convolutions and matrix products for one image in evaluation mode.

    A multiply-add counts as two, so papers that report multiply-adds (MACs) state half of this number. Pooling, activations,
    batch norm and additions are not counted. Only shapes are computed (torch's "meta" device): nothing is allocated, no
    random numbers are drawn, and ``model`` is not modified. ``model`` may itself be on the meta device.

    Args:
        model: any image classifier.
        image_shape: (channels, height, width).
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    shapes = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, shapes, (torch.empty(1, *image_shape, device="meta"),))
    finally:
        for module, training in modes.items():
            module.training = training
    return int(counter.get_total_flops())
