"""Adam without the import of the compiler of torch."""

from __future__ import annotations

from inspect import unwrap

import torch


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` that does not import ``torch._dynamo``.

    Torch wraps the methods of its optimizers so that ``torch.compile`` does not trace them. The first call of a wrapped
    method imports ``torch._dynamo``, which takes about as long as importing torch. The agents compile nothing.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
