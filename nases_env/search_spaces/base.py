"""What a search space is: a list of decisions, and what a list of choices means."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nases_env.errors import InputError
from nases_env.networks import NetworkSettings
from nases_env.search_spaces.graph import CellGraph


@dataclass(frozen=True)
class Architecture:
    """One point of a search space.

    Attributes:
        search_space: the name of the space that it belongs to.
        decisions: one choice a decision, ``0 <= decisions[i] < search_space.decision_sizes[i]``.
        key: the same for two architectures of a space exactly if they mean the same network.
    """

    search_space: str
    decisions: tuple[int, ...]
    key: str


class SearchSpace(ABC):
    """A set of architectures, each a list of ``num_decisions`` decisions.

    A subclass needs ``name`` and ``decision_sizes``, which may be plain class attributes, and what it is to be searched by:
    ``build`` where networks are trained, ``query`` where their accuracies are known. The rest has defaults: every list of
    decisions is a network of its own (``canonicalize``), is written down as its numbers (``genotype``, ``from_genotype``), and
    is drawn as such (``cell_graphs``). ``examples/custom_search_space.py`` shows a space of one's own.
    """

    name: ClassVar[str]
    """What files know the space by: letters, digits, ``_``, ``-`` and ``.``."""

    operators: ClassVar[tuple[str, ...]] = ()
    """The names of what its branches may apply, where it has such."""

    @property
    @abstractmethod
    def decision_sizes(self) -> tuple[int, ...]:
        """The number of choices of each decision, all at least 1; its length is ``num_decisions``."""

    @property
    def decisions_per_timestep(self) -> int:
        """How many consecutive decisions belong together: what the embedding's LSTMs read and write at one time step.

        The default is a quarter of the decisions, but at least three: long sequences of few decisions embed badly.
        """
        return min(self.num_decisions, max(3, math.ceil(self.num_decisions / 4)))

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """The representative of all decisions that mean the same network as ``decisions``."""
        return decisions

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """The decisions in words: a dict of JSON values that ``from_genotype`` reads back exactly."""
        return {"decisions": list(architecture.decisions)}

    def from_genotype(self, genotype: Any) -> Architecture:
        """The architecture of a ``genotype``.

        Raises:
            InputError: if it is not the genotype of an architecture of this space.
        """
        decisions = genotype.get("decisions") if isinstance(genotype, dict) and len(genotype) == 1 else None
        if not isinstance(decisions, (list, tuple)) or any(type(choice) is not int for choice in decisions):
            raise InputError(f'a genotype of {self.name} is {{"decisions": [choice, ...]}}, not {genotype!r}')
        return self.architecture(decisions)

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        """A freshly initialised network for images of ``image_shape`` (channels, height, width).

        It maps float32 images (N, channels, height, width), in torch's channels-last layout, to logits (N, num_classes).
        Its initial weights come from torch's global generator. Architectures with the same key give the same network.

        Raises:
            InputError: if this space builds no networks.
        """
        raise InputError(f"the search space {self.name} builds no networks; override its build to train them")

    def query(self, architecture: Architecture) -> float:
        """The architecture's accuracy in [0, 1], where it is known without training: from a table, a formula, a model.

        Raises:
            InputError: if this space knows no accuracies.
        """
        raise InputError(f"the search space {self.name} looks up no accuracies; override its query to give them")

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        """The architecture's cells as graphs, to be drawn; none where its decisions are to be drawn instead."""
        return ()

    @property
    def num_decisions(self) -> int:
        """m: the number of decisions of an architecture."""
        return len(self.decision_sizes)

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.asarray(self.decision_sizes, dtype=np.int64)

    def architecture(self, decisions: Sequence[int]) -> Architecture:
        """The architecture that makes ``decisions``.

        Raises:
            InputError: if there are not ``num_decisions`` of them or one is out of range.
        """
        decisions = tuple(int(choice) for choice in decisions)
        if len(decisions) != self.num_decisions:
            raise InputError(f"an architecture of {self.name} makes {self.num_decisions} decisions, not {len(decisions)}")
        for index, (choice, size) in enumerate(zip(decisions, self.decision_sizes, strict=True)):
            if not 0 <= choice < size:
                raise InputError(f"decision {index} of {self.name} is {choice}; it must lie in 0..{size - 1}")
        key = self.name + ":" + "-".join(map(str, self.canonicalize(decisions)))
        return Architecture(self.name, decisions, key)

    def decode(self, vector: NDArray[np.floating[Any]]) -> Architecture:
        """The architecture of a vector of m numbers: ``floor(number × choices)``, after clipping into [0, 1).

        Args:
            vector: shape (m,), finite.

        Raises:
            InputError: if the shape is another or a number is not finite.
        """
        vector = np.asarray(vector, dtype=np.float64)
        if vector.shape != (self.num_decisions,):
            raise InputError(f"{self.name} decodes vectors of shape ({self.num_decisions},), not {vector.shape}")
        if not np.isfinite(vector).all():
            raise InputError(f"{self.name} decodes finite vectors; this one holds NaN or infinity")
        choices = np.floor(np.clip(vector, 0.0, 1.0) * self._sizes).astype(np.int64)
        return self.architecture(np.minimum(choices, self._sizes - 1).tolist())

    def encode(self, architecture: Architecture) -> NDArray[np.float32]:
        """The vector in [0, 1)^m that lies in the middle of every decision's bin; ``decode`` reads it back exactly."""
        return ((np.asarray(architecture.decisions) + 0.5) / self._sizes).astype(np.float32)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """An architecture whose every decision is uniform."""
        return self.architecture(rng.integers(self._sizes).tolist())

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Another network that differs from ``architecture`` in one decision, uniform among those that do.

        Raises:
            InputError: if every single change gives the same network.
        """
        starts = np.cumsum([0, *self.decision_sizes])
        for change in rng.permutation(starts[-1]).tolist():
            index = int(np.searchsorted(starts, change, side="right")) - 1
            choice = change - int(starts[index])
            mutant = self.architecture((*architecture.decisions[:index], choice, *architecture.decisions[index + 1 :]))
            if mutant.key != architecture.key:
                return mutant
        raise InputError(f"{self.name} has no other network one decision away from {architecture.key}")

    def to_json(self, architecture: Architecture) -> str:
        """One line of JSON: the space's name and the genotype."""
        return json.dumps({"search_space": self.name, **self.genotype(architecture)})

    def from_json(self, text: str) -> Architecture:
        """The architecture that ``to_json`` wrote.

        Raises:
            InputError: if ``text`` is not JSON, or of another space, or not a genotype.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"not an architecture: the text is not JSON ({error})") from None
        if not isinstance(record, dict):
            raise InputError(f"not an architecture: expected a JSON object, found {type(record).__name__}")
        space = record.pop("search_space", self.name)
        if space != self.name:
            raise InputError(
                f"this architecture belongs to the search space {space!r}; it was read as {self.name!r}: name its own"
            )
        return self.from_genotype(record)
