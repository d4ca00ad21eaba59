"""Optimizers of torch that do not import its compiler."""

from __future__ import annotations

from inspect import unwrap

import torch

# Torch wraps the methods of its optimizers so that `torch.compile` does not trace them. The first call of a wrapped method
# imports `torch._dynamo`, which takes about as long as importing torch. Nothing is compiled here, so each class has the
# methods without the wrapper. `step` also turns gradients off, as torch's wrapper of it does.


class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` that does not import ``torch._dynamo``."""

    add_param_group = unwrap(torch.optim.SGD.add_param_group)
    zero_grad = unwrap(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` that does not import ``torch._dynamo``."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
