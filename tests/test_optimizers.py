"""Optimizers that do not import the compiler of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nases_env.optimizers import SGD, Adam


@pytest.mark.parametrize(
    ("optimizer_class", "original", "options"),
    [(Adam, torch.optim.Adam, {}), (SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True})],
)
def test_steps_are_those_of_torch(
    optimizer_class: type[torch.optim.Optimizer], original: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    results = []
    for each in (original, optimizer_class):
        weights = torch.linspace(-1, 1, 5).requires_grad_()
        optimizer = each([weights], **{"lr": 0.1, **options})
        for _ in range(10):
            optimizer.zero_grad()
            torch.autograd.backward((weights - 3).square().sum())
            optimizer.step()
        assert weights.requires_grad
        results.append(weights.detach())
    assert torch.equal(*results)
