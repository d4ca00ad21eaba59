"""How large a network is and how much it computes."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters, an auxiliary head's among them."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """The floating-point operations of convolutions and matrix products for one image in evaluation mode.

    A multiply-add counts as two, so papers that report multiply-adds (MACs) give half of this number. Pooling, activations,
    batch norm and additions count as nothing. Only shapes are computed (torch's "meta" device): no memory is taken for
    values, no random number is drawn, and ``model`` is left as it was. It may itself be on the meta device.

    Args:
        model: any classifier of images.
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
