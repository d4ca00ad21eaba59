"""REINFORCE on the decisions, without an embedding: the kind of controller that the paper replaces.

    python agents/discrete_reinforce.py --env-id NASES-Digits-v0 --budget 40

An LSTM samples the decisions of an architecture one by one from softmax distributions. It is trained by policy gradient with
a moving average of the rewards as baseline (Zoph and Le, 2017, "Neural Architecture Search with Reinforcement Learning";
Zoph et al., 2018, "Learning Transferable Architectures for Scalable Image Recognition"; Pham et al., 2018, "Efficient Neural
Architecture Search via Parameter Sharing", ENAS).

With several children in flight, a child may be older than the last update. Its log probability is recomputed with the
current weights; no importance correction is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from torch import Tensor, nn

from nases_env.envs import unwrap
from nases_env.evaluation import Evaluation
from nases_env.optimizers import Adam
from nases_env.search import SearchArgs, SearchRun, run_search
from nases_env.search.agent import Agent, Proposal
from nases_env.search.option_checks import (
    require_at_least,
    require_default,
    require_fraction,
    require_non_negative,
    require_positive,
)
from nases_env.search_spaces import Architecture
from nases_env.seeding import seeded_torch, torch_generator

LEARNING_RATES = {"lstm": 3.5e-3, "independent": 0.05}
INIT_RANGE = 0.1  # bound of the uniform initial weights of the LSTM controller, as in ENAS's code


@dataclass
class Args(SearchArgs):
    """Options of the discrete controller."""

    uses_embedding: ClassVar[bool] = False

    controller: Literal["lstm", "independent"] = "lstm"
    """lstm: each decision is conditioned on the previous ones, as in the cited papers. independent: separate logits per
    decision, as in the REINFORCE of NAS-Bench-201's authors (Dong and Yang, 2020); they are initially 0, and the baseline,
    the entropy and the learning rate are those of this agent."""
    hidden_size: int = 100
    """Hidden units of the one-layer LSTM and size of its input embeddings; 100 in Zoph et al. (2018) and ENAS."""
    learning_rate: float | None = None
    """Learning rate of Adam. Default: 0.0035 for lstm, as in ENAS's code, and 0.05 for independent."""
    batch_size: int = 1
    """Children per gradient step; each child is used once. 1 in ENAS and in Dong and Yang."""
    baseline_decay: float = 0.95
    """Decay of the moving average of the rewards per child; 0.95 in Zoph et al. (2018)."""
    ent_coef: float = 1e-4
    """Entropy coefficient of the loss; the entropy is summed over the decisions. 1e-4 in ENAS's code, which adds it to the
    reward."""
    temperature: float = 1.0
    """Divisor of the logits of lstm; 5 in ENAS's paper, 1 in its code. Higher values explore longer."""
    tanh_constant: float = 1.1
    """c in c * tanh(logits), applied to the logits of lstm after the temperature; prevents collapse onto a few children. 1.1
    in ENAS's code for its micro search space, 2.5 in its paper. 0 disables it."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden_size", "batch_size")
        require_positive(self, "learning_rate", "temperature")
        require_non_negative(self, "ent_coef", "tanh_constant")
        require_fraction(self, "baseline_decay")
        if self.controller == "independent":
            require_default(self, "with --controller independent", "hidden_size", "temperature", "tanh_constant")


State = tuple[Tensor, Tensor]  # of the LSTM: h and c, both (1, batch, hidden)


class LSTMController(nn.Module):
    """An LSTM that reads one decision per step and predicts the logits of the next one.

    Each decision has its own input embeddings and output layer. The weights are drawn with torch's global generator.

    Args:
        num_decisions: m, the number of decisions.
        num_choices: k, the largest number of choices of a decision.
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
        """Compute the logits of consecutive decisions.

        Args:
            tokens: the decision before each, shape (batch, steps): 1 + k i + c for choice c of decision i, 0 at the start.
            first: the index of the first of these decisions.
            state: the state of the LSTM after the previous decisions; None at the start.

        Returns:
            The logits, shape (batch, steps, k), and the new state.
        """
        hidden, state = self.lstm(self.embeddings(tokens), state)
        logits = torch.einsum("bth,thk->btk", hidden, self.heads[first : first + tokens.shape[1]]) / self.args.temperature
        if self.args.tanh_constant > 0:
            logits = self.args.tanh_constant * torch.tanh(logits)
        return logits, state


class IndependentController(nn.Module):
    """Logits of all decisions as parameters, initially 0; the decisions are independent.

    Args:
        num_decisions: m, the number of decisions.
        num_choices: k, the largest number of choices of a decision.
    """

    def __init__(self, num_decisions: int, num_choices: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_decisions, num_choices))

    def forward(self, tokens: Tensor, first: int, state: State | None) -> tuple[Tensor, State | None]:
        """Return the logits of consecutive decisions; the interface is that of ``LSTMController.forward``."""
        return self.logits[first : first + tokens.shape[1]].expand(len(tokens), -1, -1), state


class DiscreteReinforce(Agent):
    """Agent that samples children from the controller and takes one gradient step per batch of evaluated children.

    It learns from the first rung only: each child is used in one gradient step, by default before it can be promoted.

    Args:
        env: an environment that was reset.
        args: the options, including the seed of all random generators.

    Attributes:
        invalid_choice_mask: whether a choice does not exist, shape (m, k).
    """

    def __init__(self, env: gym.Env[Any, Any], args: Args) -> None:
        self.search_space = unwrap(env).search_space
        self.args = args
        sizes = torch.tensor(self.search_space.decision_sizes)
        num_decisions, self.num_choices = len(sizes), int(sizes.max())
        self.invalid_choice_mask = torch.arange(self.num_choices) >= sizes[:, None]
        self.controller: LSTMController | IndependentController
        if args.controller == "lstm":
            with seeded_torch(args.seed, "discrete reinforce", "controller"):
                self.controller = LSTMController(num_decisions, self.num_choices, args)
        else:
            self.controller = IndependentController(num_decisions, self.num_choices)
        learning_rate = LEARNING_RATES[args.controller] if args.learning_rate is None else args.learning_rate
        self.optimizer = Adam(self.controller.parameters(), lr=learning_rate)
        self.generator = torch_generator(args.seed, "discrete reinforce", "exploration")
        self.baseline: float | None = None
        self.batch: list[tuple[Architecture, float]] = []

    @torch.no_grad()
    def ask(self, num_children: int = 1) -> list[Proposal]:
        choices: list[Tensor] = []
        tokens, state = torch.zeros(num_children, 1, dtype=torch.int64), None
        for index in range(len(self.invalid_choice_mask)):
            log_probs, state = self._log_probs(tokens, index, state)
            choices.append(torch.multinomial(log_probs[:, 0].exp(), 1, generator=self.generator))
            tokens = 1 + index * self.num_choices + choices[-1]
        return [Proposal(self.search_space.architecture(decisions)) for decisions in torch.cat(choices, dim=1).tolist()]

    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        self.batch.append((proposal.architecture, evaluation.reward))
        if len(self.batch) < self.args.batch_size:
            return {}
        decisions = torch.tensor([architecture.decisions for architecture, _ in self.batch])
        rewards = torch.tensor([reward for _, reward in self.batch], dtype=torch.float64)
        self.batch = []
        return self._gradient_step(decisions, rewards)

    def _log_probs(self, tokens: Tensor, first: int = 0, state: State | None = None) -> tuple[Tensor, State | None]:
        """Compute log probabilities of consecutive decisions, -inf for choices that do not exist.

        Arguments and return values are those of ``LSTMController.forward``.
        """
        logits, state = self.controller(tokens, first, state)
        mask = self.invalid_choice_mask[first : first + tokens.shape[1]]
        return logits.masked_fill(mask, -math.inf).log_softmax(-1), state

    def _log_probs_along(self, decisions: Tensor) -> Tensor:
        """Compute the log probabilities of all choices given the previous ``decisions`` (batch, m); shape (batch, m, k)."""
        tokens = 1 + torch.arange(decisions.shape[1]) * self.num_choices + decisions
        start = torch.zeros(len(tokens), 1, dtype=torch.int64)
        return self._log_probs(torch.cat([start, tokens[:, :-1]], dim=1))[0]

    def _gradient_step(self, decisions: Tensor, rewards: Tensor) -> dict[str, float]:
        """Take one gradient step on ``decisions`` (batch, m) with ``rewards`` (batch,), and return metrics."""
        self.baseline = float(rewards.mean()) if self.baseline is None else self.baseline
        advantages = (rewards - self.baseline).float()
        for reward in rewards.tolist():
            self.baseline += (1 - self.args.baseline_decay) * (reward - self.baseline)
        all_log_probs = self._log_probs_along(decisions)
        log_probs = all_log_probs.gather(-1, decisions[:, :, None]).sum((1, 2))
        entropy = -(all_log_probs.exp() * all_log_probs.masked_fill(self.invalid_choice_mask, 0.0)).sum((1, 2)).mean()
        loss = -(advantages * log_probs).mean() - self.args.ent_coef * entropy
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"policy/loss": loss.item(), "policy/entropy": entropy.item(), "policy/baseline": self.baseline}


def main(args: Args) -> None:
    """Search with REINFORCE on the decisions, without an embedding."""
    with SearchRun(args, agent="discrete_reinforce") as run:
        run.search(DiscreteReinforce(run.env, args))


if __name__ == "__main__":
    run_search(Args, main)
