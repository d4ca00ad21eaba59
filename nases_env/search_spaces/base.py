"""Base class of search spaces, and architectures as lists of decisions."""

from __future__ import annotations

import json
import math
import operator
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nases_env.errors import InputError, shown
from nases_env.json_io import parse_json
from nases_env.networks import NetworkSettings
from nases_env.search_spaces.graph import CellGraph, used_branches

MAX_RESAMPLES = 100  # samples to find another network if no change of one decision gives one


@dataclass(frozen=True, slots=True)
class Architecture:
    """One point of a search space.

    Attributes:
        search_space: name of its search space.
        decisions: one choice per decision, ``0 <= decisions[i] < search_space.decision_sizes[i]``.
        key: canonical key; architectures with equal keys describe the same network. Whether architectures with different
            keys can do so too depends on the search space.
    """

    search_space: str
    decisions: tuple[int, ...]
    key: str


def search_space_of(key: str) -> str:
    """Return the name of the search space of an architecture from its key; "" if it is not a key."""
    return key.rpartition(":")[0]


class SearchSpace(ABC):
    """A set of architectures, each a list of ``num_decisions`` decisions.

    A subclass defines ``name`` and ``decision_sizes``, which may be class attributes, and either ``build``, which creates
    the network to train, or ``query``, which returns an accuracy without training. All other methods have defaults: every
    list of decisions describes a different network (``canonicalize``), a genotype is the list of decisions (``genotype``,
    ``from_genotype``), and drawings show the decisions (``cell_graphs``), with the names in ``decision_names`` and
    ``choice_names`` if there are any. See ``examples/custom_search_space.py``.

    Examples:
        >>> from nases_env.search_spaces import SearchSpace
        >>> class Widths(SearchSpace):
        ...     name = "widths"
        ...     decision_sizes = (4, 4, 4)
        ...
        ...     def query(self, architecture):
        ...         return sum(architecture.decisions) / 9
        >>> space = Widths()
        >>> space.query(space.architecture([3, 3, 3]))
        1.0
    """

    name: ClassVar[str]
    """Name of the search space in files: letters, digits, ``_``, ``-`` and ``.``."""

    operators: ClassVar[tuple[str, ...]] = ()
    """Names of the operators of its branches, if it has any."""

    zero_operators: ClassVar[frozenset[str]] = frozenset()
    """Operators whose output is zero; their branches are not drawn. See ``count_paths``."""

    identity_operators: ClassVar[frozenset[str]] = frozenset()
    """Operators whose output is their input; see ``count_paths``."""

    operator_sizes: ClassVar[Mapping[str, float]] = {}
    """Relative number of parameters of each operator that has any; see ``size``."""

    flops_exponent: ClassVar[float] = 0.5
    """The ``flops_exponent`` of ``ChildSettings`` for very short training runs, as in the preset ``cpu``.

    It is 0 if the width or the depth of the network is searched: of the networks within a limit on the number of
    parameters, those with more FLOPs are narrower."""

    decision_names: ClassVar[tuple[str, ...]] = ()
    """Name of each decision, for drawings and texts; empty to show their indices."""

    choice_names: ClassVar[tuple[tuple[str | int | float, ...], ...]] = ()
    """Names of the choices of each decision, such as ``((16, 32), ("relu", "tanh"))``; empty to show their indices."""

    @property
    @abstractmethod
    def decision_sizes(self) -> tuple[int, ...]:
        """The number of choices of each decision, all at least 1; its length is ``num_decisions``."""

    @property
    def decisions_per_timestep(self) -> int:
        """Number of consecutive decisions per time step of the embedding's LSTMs.

        The default is a quarter of the decisions, but at least three: long sequences with few decisions per step
        produce poor embeddings.
        """
        return min(self.num_decisions, max(3, math.ceil(self.num_decisions / 4)))

    def canonicalize(self, decisions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the representative of all decisions that describe the same network as ``decisions``."""
        return decisions

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return a human-readable description of the architecture as JSON values; ``from_genotype`` restores it exactly."""
        return {"decisions": list(architecture.decisions)}

    def from_genotype(self, genotype: Any) -> Architecture:
        """Return the architecture of a ``genotype``.

        Raises:
            InputError: if it is not the genotype of an architecture of this space.
        """
        decisions = genotype.get("decisions") if isinstance(genotype, dict) and len(genotype) == 1 else None
        if not isinstance(decisions, (list, tuple)) or any(type(choice) is not int for choice in decisions):
            raise InputError(f'a genotype of {self.name} must be {{"decisions": [choice, ...]}}, not {shown(genotype)}')
        return self.architecture(decisions)

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        """Build the network of ``architecture`` with initial weights from torch's global generator.

        Architectures with the same key must give the same network.

        Args:
            architecture: an architecture of this space.
            settings: N, F and the regularization of the network.
            num_classes: length of the logits.
            image_shape: (channels, height, width) of the images.

        Returns:
            A module that maps float32 images (N, channels, height, width), channels-last, to logits (N, num_classes).

        Raises:
            InputError: if this space does not build networks.
        """
        raise InputError(f"the search space {self.name} does not build networks; override its build method")

    def count_parameters(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> int | None:
        """Return the exact number of parameters of the network of ``build``, without building it; None if it is not known.

        With an auxiliary head, its parameters count. If the number is known, a search with ``max_params`` does not build
        infeasible networks. A subclass of a built-in search space that overrides ``build`` must override this method too.

        Args:
            architecture: an architecture of this space.
            settings: see ``build``.
            num_classes: see ``build``.
            image_shape: see ``build``.
        """
        return None

    def query(self, architecture: Architecture) -> float:
        """Return the accuracy of ``architecture`` in [0, 1] without training: from a table, a formula or a model.

        Raises:
            InputError: if this space does not provide accuracies.
        """
        raise InputError(f"the search space {self.name} does not provide accuracies; override its query method")

    def cell_graphs(self, architecture: Architecture) -> tuple[CellGraph, ...]:
        """Return the cells of ``architecture`` as graphs for drawing; empty to draw the decisions instead."""
        return ()

    def summary(self, architecture: Architecture) -> str:
        """Return one line on what ``cell_graphs`` does not show, for drawings and texts; empty if there is nothing."""
        return ""

    def size(self, architecture: Architecture) -> float | None:
        """Return a number that grows with the parameters of the network, without building it; None if it is not known.

        Agents may evaluate large networks first and use the size to predict rewards; see ``Evaluator.size``. The default is
        the sum of ``operator_sizes`` over the branches on the paths from the inputs to the outputs of all cells. It is None
        if ``operator_sizes`` is empty.
        """
        if not self.operator_sizes:
            return None
        branches = [
            branch for graph in self.cell_graphs(architecture) for branch in used_branches(graph, self.zero_operators)
        ]
        return sum(self.operator_sizes.get(branch.operator, 0.0) for branch in branches)

    @property
    def num_decisions(self) -> int:
        """m, the number of decisions of an architecture."""
        return len(self.decision_sizes)

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.asarray(self.decision_sizes, dtype=np.int64)

    @cached_property
    def _starts(self) -> list[int]:
        """The number of choices of all decisions before each one, and that of all decisions."""
        return list(accumulate(self.decision_sizes, initial=0))

    def architecture(self, decisions: Sequence[int]) -> Architecture:
        """Return the architecture with these ``decisions``.

        Raises:
            InputError: if their number is not ``num_decisions``, or one is not an integer or out of range.
        """
        try:
            decisions = tuple(map(operator.index, decisions))
        except TypeError as error:
            raise InputError(f"the decisions of an architecture of {self.name} must be integers ({error})") from None
        if len(decisions) != self.num_decisions:
            raise InputError(f"an architecture of {self.name} has {self.num_decisions} decisions, not {len(decisions)}")
        # The loop below is ten times slower.
        if min(decisions, default=0) < 0 or not all(map(operator.lt, decisions, self.decision_sizes)):
            for index, (choice, size) in enumerate(zip(decisions, self.decision_sizes, strict=True)):
                if not 0 <= choice < size:
                    raise InputError(f"decision {index} of {self.name} is {choice}; it must be in 0..{size - 1}")
        return self._valid_architecture(decisions)

    def _valid_architecture(self, decisions: tuple[int, ...]) -> Architecture:
        key = self.name + ":" + "-".join(map(str, self.canonicalize(decisions)))
        return Architecture(self.name, decisions, key)

    def decode(self, vector: NDArray[np.floating[Any]]) -> Architecture:
        """Decode a vector of m numbers: each choice is ``floor(number × num_choices)``, after clipping to [0, 1).

        Args:
            vector: shape (m,), finite.

        Raises:
            InputError: if the shape is wrong or a number is not finite.
        """
        return self.decode_batch(np.asarray(vector)[None])[0]

    def decode_batch(self, vectors: NDArray[np.floating[Any]]) -> list[Architecture]:
        """Decode vectors of shape (B, m) into B architectures, as ``decode`` does; faster than B calls of it.

        Raises:
            InputError: if the shape is wrong or a number is not finite.
        """
        vectors = np.asarray(vectors, dtype=np.float64)
        if vectors.shape[1:] != (self.num_decisions,):
            raise InputError(f"{self.name} decodes vectors of shape ({self.num_decisions},), not {vectors.shape[1:]}")
        if not np.isfinite(vectors).all():
            raise InputError(f"{self.name} decodes finite vectors; this one contains NaN or infinity")
        choices = np.floor(np.clip(vectors, 0.0, 1.0) * self._sizes).astype(np.int64)
        return [self._valid_architecture(tuple(each)) for each in np.minimum(choices, self._sizes - 1).tolist()]

    def encode(self, architecture: Architecture) -> NDArray[np.float32]:
        """Encode ``architecture`` as the bin centers in [0, 1)^m, shape (m,); ``decode`` restores it exactly."""
        return ((np.asarray(architecture.decisions) + 0.5) / self._sizes).astype(np.float32)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Sample an architecture with uniform decisions."""
        return self._valid_architecture(tuple(rng.integers(self._sizes).tolist()))

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Change one decision: uniform among all changes that give a different network; if there is none, sample one.

        Raises:
            InputError: if no different network is found.
        """
        starts, decisions = self._starts, architecture.decisions
        for change in rng.permutation(starts[-1]).tolist():
            index = bisect_right(starts, change) - 1
            choice = change - starts[index]
            if choice == decisions[index]:
                continue
            mutant = self._valid_architecture((*decisions[:index], choice, *decisions[index + 1 :]))
            if mutant.key != architecture.key:
                return mutant
        for _ in range(MAX_RESAMPLES):
            if (other := self.sample(rng)).key != architecture.key:
                return other
        raise InputError(f"the search space {self.name} has no network that differs from {architecture.key}")

    def to_string(self, architecture: Architecture) -> str:
        """Return the text of ``architecture`` in a table: the genotype as JSON, unless the space has a shorter notation."""
        return json.dumps(self.genotype(architecture))

    def from_string(self, text: str) -> Architecture:
        """Parse the output of ``to_string``.

        Raises:
            InputError: if ``text`` is not an architecture of this space.
        """
        return self.from_json(text)

    def to_json(self, architecture: Architecture) -> str:
        """Return one line of JSON with the name of the space and the genotype."""
        return json.dumps({"search_space": self.name, **self.genotype(architecture)})

    def from_json(self, text: str) -> Architecture:
        """Parse the output of ``to_json``.

        Raises:
            InputError: if ``text`` is not JSON, belongs to a different search space, or is not a genotype.
        """
        try:
            record = parse_json(text)
        except ValueError as error:
            raise InputError(f"not an architecture: the text is not JSON ({error})") from None
        if not isinstance(record, dict):
            raise InputError(f"not an architecture: expected a JSON object, found {type(record).__name__}")
        space = record.pop("search_space", self.name)
        if space != self.name:
            raise InputError(
                f"this architecture belongs to the search space {shown(space)}, not {self.name!r}; pass that search space"
            )
        return self.from_genotype(record)
