"""What an agent is: it asks for children, and is told what came of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nases_env.envs import Action
from nases_env.evaluation import Evaluation
from nases_env.search_spaces import Architecture


@dataclass(frozen=True, eq=False)
class Proposal:
    """A child that an agent asks to have evaluated; agents add what they need to remember of it.

    Attributes:
        architecture: the child.
        action: the environment's action that decodes to it, shape (n,); None where the agent needs no embedding.
    """

    architecture: Architecture
    action: Action | None = None


class Agent(ABC):
    """Searches by asking and being told, so that many children may be under evaluation at once.

    ``ask`` may be called again before the children of earlier calls were told, and they may be told in any order.
    """

    @abstractmethod
    def ask(self, num_children: int = 1) -> list[Proposal]:
        """The next ``num_children`` children to evaluate, chosen together."""

    @abstractmethod
    def tell(self, proposal: Proposal, evaluation: Evaluation) -> dict[str, float]:
        """Learns what came of ``proposal``, one of those that ``ask`` gave.

        Returns:
            What to log, by the name of its curve; empty where there is nothing new.
        """
