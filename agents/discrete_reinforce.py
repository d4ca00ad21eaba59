"""REINFORCE on the decisions themselves, without an embedding: the controller that the paper argues against.

    python agents/discrete_reinforce.py --env-id NASES-Digits-v0 --budget 40

A recurrent controller draws an architecture decision by decision, each from a softmax over its choices, and learns by policy
gradient with a moving average of the rewards as baseline (Zoph and Le, 2017, "Neural Architecture Search with Reinforcement
Learning"; Zoph et al., 2018, "Learning Transferable Architectures for Scalable Image Recognition"; Pham et al., 2018,
"Efficient Neural Architecture Search via Parameter Sharing", ENAS).

With several children in flight, one may have been drawn by an older controller than the one that learns from it. Its
log-probability is computed anew when it is told; what the controller has changed since then is not corrected for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search_spaces import Architecture
from nases_env.seeding import seeded_torch, torch_generator

LEARNING_RATES = {"lstm": 3.5e-3, "independent": 0.05}
INIT_RANGE = 0.1  # the LSTM controller's first weights lie within it, as in ENAS's code


@dataclass
class Args(SearchArgs):
    """The discrete controller's options."""

    controller: Literal["lstm", "independent"] = "lstm"
    """lstm: a decision depends on those before it, as in the sources. independent: each decision has logits of its own, all
    equal at first, as in the REINFORCE of NAS-Bench-201's authors (Dong and Yang, 2020)."""
    hidden_size: int = 100
    """lstm: units of its one layer, and size of the embedding of a decision; 100 in Zoph et al. (2018) and ENAS."""
    learning_rate: float | None = None
    """Adam's; unset: 0.0035 for lstm, as ENAS's code has it, and 0.05 for independent."""
    batch_size: int = 1
    """Children that a gradient step learns from: 1 as ENAS and Dong and Yang. Children are dear."""
    baseline_decay: float = 0.95
    """Of the moving average of the rewards, a child: 0.95 in Zoph et al. (2018)."""
    entropy_coefficient: float = 1e-4
    """Weight of the policy's entropy, summed over the decisions, in the objective; 1e-4 in ENAS's code,
    which adds it to the reward."""
    temperature: float = 1.0
    """lstm: logits are divided by it: 5 in ENAS's paper, 1 in its code. Higher explores longer."""
    tanh_constant: float = 1.1
    """lstm: c, by which logits become c tanh(logits) after the temperature, lest the policy collapses onto a few children:
    1.1 in ENAS's code for its micro search space, 2.5 in its paper. 0: they stay as they are."""

    def __post_init__(self) -> None:
        for option in ("hidden_size", "batch_size"):
            if getattr(self, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(self, option)}")
        for option in ("learning_rate", "temperature"):
            value = getattr(self, option)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"--{option.replace('_', '-')} must be a positive number, not {value}")
        for option in ("entropy_coefficient", "tanh_constant"):
            if not 0 <= getattr(self, option) < math.inf:
                raise InputError(f"--{option.replace('_', '-')} must be 0 or a positive number, not {getattr(self, option)}")
        if not 0 <= self.baseline_decay < 1:
            raise InputError(f"--baseline-decay must lie in [0, 1), not {self.baseline_decay}")


State = tuple[Tensor, Tensor]  # of the LSTM: h and c, both (1, batch, hidden)


class LSTMController(nn.Module):
    """Reads one decision a step and gives the logits of the next; the weights are drawn with torch's global generator.

    Decisions differ in what they choose among, so that each has an embedding of its choices and a softmax layer of its own.

    Args:
        num_dims: m, the number of decisions.
        num_choices: k, the most choices that a decision has.
        args: the options.
    """

    def __init__(self, num_decisions: int, num_choices: int, args: Args) -> None:
        super().__init__()
        self.args = args
        hidden_size = args.hidden_size
        self.embeddings = nn.Embedding(1 + num_decisions * num_choices, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.heads = nn.Parameter(torch.empty(num_decisions, hidden_size, num_choices))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INIT_RANGE, INIT_RANGE)

    def forward(self, tokens: Tensor, first: int, state: State | None) -> tuple[Tensor, State | None]:
        """The logits of consecutive decisions.

        Args:
            tokens: shape (batch, steps), the decision before each: 1 + k i + c for choice c of decision i, 0 at the start.
            first: the index of the first of these decisions.
            state: of the LSTM after the decisions before them; None at the beginning.

        Returns:
            Logits of shape (batch, steps, k), and the state to go on with.
        """
        hidden, state = self.lstm(self.embeddings(tokens), state)
        logits = torch.einsum("bth,thk->btk", hidden, self.heads[first : first + tokens.shape[1]]) / self.args.temperature
        if self.args.tanh_constant > 0:
            logits = self.args.tanh_constant * torch.tanh(logits)
        return logits, state


class IndependentController(nn.Module):
    """The logits of every decision are parameters, 0 at first: no decision knows of another."""

    def __init__(self, num_decisions: int, num_choices: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_decisions, num_choices))

    def forward(self, tokens: Tensor, first: int, state: State | None) -> tuple[Tensor, State | None]:
        """As that of ``LSTMController``."""
        return self.logits[first : first + tokens.shape[1]].expand(len(tokens), -1, -1), state


class DiscreteReinforce(Agent):
    """Draws each child from the controller; learns once a batch of children was told."""

    def __init__(self, env: NASESEnv, args: Args) -> None:
        self.search_space = env.search_space
        self.args = args
        sizes = torch.tensor(self.search_space.decision_sizes)
        num_decisions, self.num_choices = len(sizes), int(sizes.max())
        self.impossible = torch.arange(self.num_choices) >= sizes[:, None]
        """Shape (m, k): the choices that a decision does not have."""
        self.controller: LSTMController | IndependentController
        if args.controller == "lstm":
            with seeded_torch(args.seed, "discrete reinforce", "controller"):
                self.controller = LSTMController(num_decisions, self.num_choices, args)
        else:
            self.controller = IndependentController(num_decisions, self.num_choices)
        learning_rate = LEARNING_RATES[args.controller] if args.learning_rate is None else args.learning_rate
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)
        self.noise = torch_generator(args.seed, "discrete reinforce", "exploration")
        self.baseline: float | None = None
        self.batch: list[tuple[Architecture, float]] = []

    @torch.no_grad()
    def ask(self, num_children: int = 1) -> list[Proposal]:
        choices: list[Tensor] = []
        tokens, state = torch.zeros(num_children, 1, dtype=torch.int64), None
        for index in range(len(self.impossible)):
            log_probs, state = self._log_probs(tokens, index, state)
            choices.append(torch.multinomial(log_probs[:, 0].exp(), 1, generator=self.noise))
            tokens = 1 + index * self.num_choices + choices[-1]
        return [Proposal(self.search_space.architecture(decisions)) for decisions in torch.cat(choices, dim=1).tolist()]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.batch.append((proposal.architecture, evaluation.reward))
        if len(self.batch) < self.args.batch_size:
            return {}
        decisions = torch.tensor([architecture.decisions for architecture, _ in self.batch])
        rewards = torch.tensor([reward for _, reward in self.batch], dtype=torch.float64)
        self.batch = []
        return self._learn(decisions, rewards)

    def _log_probs(self, tokens: Tensor, first: int = 0, state: State | None = None) -> tuple[Tensor, State | None]:
        """As a controller's ``forward``, but the logarithms of the probabilities, -inf for choices that do not exist."""
        logits, state = self.controller(tokens, first, state)
        impossible = self.impossible[first : first + tokens.shape[1]]
        return logits.masked_fill(impossible, -math.inf).log_softmax(-1), state

    def _log_probs_along(self, decisions: Tensor) -> Tensor:
        """The log-probabilities of all choices where ``decisions``, shape (batch, m), are made; shape (batch, m, k)."""
        tokens = 1 + torch.arange(decisions.shape[1]) * self.num_choices + decisions
        start = torch.zeros(len(tokens), 1, dtype=torch.int64)
        return self._log_probs(torch.cat([start, tokens[:, :-1]], dim=1))[0]

    def _learn(self, decisions: Tensor, rewards: Tensor) -> dict[str, float]:
        """One gradient step on ``decisions``, shape (batch, m), and their ``rewards``, shape (batch,)."""
        self.baseline = float(rewards.mean()) if self.baseline is None else self.baseline
        advantages = (rewards - self.baseline).float()
        for reward in rewards.tolist():
            self.baseline += (1 - self.args.baseline_decay) * (reward - self.baseline)
        all_log_probs = self._log_probs_along(decisions)
        log_probs = all_log_probs.gather(-1, decisions[:, :, None]).sum((1, 2))
        entropy = -(all_log_probs.exp() * all_log_probs.masked_fill(self.impossible, 0.0)).sum((1, 2)).mean()
        loss = -(advantages * log_probs).mean() - self.args.entropy_coefficient * entropy
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"policy/loss": loss.item(), "policy/entropy": entropy.item(), "policy/baseline": self.baseline}


def main(args: Args) -> None:
    """Search with REINFORCE on the decisions, without an embedding."""
    with SearchRun(args, agent="discrete_reinforce") as search:
        search.run(DiscreteReinforce(search.nases, args), args.ask_batch_size)


if __name__ == "__main__":
    run_search(Args, main)
