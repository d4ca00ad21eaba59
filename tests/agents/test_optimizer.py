"""Adam without the import of the compiler of torch."""

from __future__ import annotations

import subprocess
import sys

import torch
from nases_agents.optimizer import Adam


def test_steps_are_those_of_torch() -> None:
    results = []
    for optimizer_class in (torch.optim.Adam, Adam):
        weights = torch.linspace(-1, 1, 5).requires_grad_()
        optimizer = optimizer_class([weights], lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            torch.autograd.backward((weights - 3).square().sum())
            optimizer.step()
        assert weights.requires_grad
        results.append(weights.detach())
    assert torch.equal(*results)


def test_agent_takes_gradient_steps_without_importing_the_compiler() -> None:
    code = """
import sys, gymnasium as gym, nases_env
from nases_agents.model_assisted import Args, ModelAssisted
env = gym.make("NASES-Synthetic-v0")
env.reset(seed=0)
agent = ModelAssisted(env, Args(budget=6))
metrics = {}
for _ in range(6):
    (proposal,) = agent.ask()
    metrics |= agent.tell(proposal, env.unwrapped.evaluator.evaluate(proposal.architecture, 0))
assert metrics["policy/gradient_norm"] > 0
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
