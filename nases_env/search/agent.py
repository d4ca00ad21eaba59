"""Ask-and-tell interface for search agents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from nases_env.envs import Action
from nases_env.evaluation import Evaluation
from nases_env.search_spaces import Architecture


@dataclass(frozen=True, eq=False)
class Proposal:
    """An architecture that an agent proposes for evaluation. Agents subclass it to attach their own data.

    Attributes:
        architecture: the architecture to evaluate.
        action: the action of the environment that decodes to it, shape (n,); None without one.
    """

    architecture: Architecture
    action: Action | None = None


class Agent(ABC):
    """A search agent with an ask-and-tell interface, so that several children can be evaluated concurrently.

    ``ask`` may be called again before earlier proposals were reported to ``tell``. ``SearchLoop`` reports evaluations in the
    order of the proposals. Infeasible proposals, which exceed a limit such as ``max_params``, are not evaluated: the loop
    calls ``tell_infeasible``, then ``ask`` for others.

    Examples:
        >>> import numpy as np
        >>> from nases_env.search.agent import Agent, Proposal
        >>> class UniformAgent(Agent):
        ...     def __init__(self, env, seed):
        ...         self.search_space, self.rng = env.search_space, np.random.default_rng(seed)
        ...
        ...     def ask(self, num_children=1):
        ...         return [Proposal(self.search_space.sample(self.rng)) for _ in range(num_children)]
        ...
        ...     def tell(self, proposal, evaluation):
        ...         return {}
    """

    @abstractmethod
    def ask(self, num_children: int = 1) -> list[Proposal]:
        """Return the next ``num_children`` proposals."""

    @abstractmethod
    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        """Report the evaluation of ``proposal`` to the agent.

        Args:
            proposal: a proposal returned by ``ask``.
            evaluation: the evaluation of its architecture.

        Returns:
            Metrics to log, value by name; may be empty.
        """

    def tell_infeasible(self, proposal: Proposal) -> None:  # noqa: B027 - optional
        """Report that ``proposal`` is infeasible: it is not evaluated, and ``tell`` is not called for it.

        Override this if the agent keeps track of its pending proposals.
        """

    def tell_promoted(self, proposal: Proposal, evaluation: Evaluation, rewards: Mapping[str, float]) -> dict[str, float]:
        """Report the evaluation of an earlier proposal at a higher rung, in a search with rungs.

        By default, an agent learns from the first rung only.

        Args:
            proposal: a proposal that was reported to ``tell`` before.
            evaluation: its evaluation after ``evaluation.fidelity`` epochs.
            rewards: the comparable reward of every promoted architecture so far, by key, including this one
                (``SuccessiveHalving.comparable_rewards``). It replaces the reward that ``tell`` reported.

        Returns:
            Metrics to log, value by name; may be empty.
        """
        return {}
