"""Transfer from earlier searches: reward models of their children predict which architectures are good on other data.

The agents with a reward model (``agents/reward_model.py``) take the run directories of earlier searches in the same search
space (``--transfer-from``). One reward model is fitted to each of them. Half of the first children of the new search are
among those with the highest predictions. After that, the predictions are the trend of the new search's Gaussian
process. The slopes of the trend are learned from the rewards of the new search, so an unrelated earlier search has little
effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import torch
import tyro
from nases_agents.gaussian_process import MAX_ENCODED
from nases_agents.reward_model import RewardModel
from torch import Tensor

from nases_env.errors import InputError
from nases_env.evaluation import Status
from nases_env.hashing import sha256_hex
from nases_env.paths import absolute_path
from nases_env.search import SearchArgs
from nases_env.search.run_dir import read_config, read_trajectory
from nases_env.search_spaces import Architecture, SearchSpace, search_space_of

MIN_CHILDREN = 5  # distinct ones of an earlier search


def _parse_run_dirs(texts: list[str]) -> tuple[str, ...]:
    if not texts:
        raise InputError("--transfer-from needs one or more run directories; name them, or omit it")
    return tuple(texts)


RunDirs = Annotated[
    tuple[str, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="RUN [RUN ...]",
        instance_from_str=_parse_run_dirs,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=list,
    ),
]
"""Type of the option ``--transfer-from``."""


@dataclass
class TransferArgs(SearchArgs):
    """Options of agents that transfer from earlier searches."""

    added: ClassVar[tuple[str, ...]] = ("transfer_from",)

    transfer_from: RunDirs = ()
    """Run directories of earlier searches in the same search space, on other data, from which the model learns which
    architectures are good. Default: none."""

    def with_absolute_paths(self: Transferring) -> Transferring:
        paths = tuple(str(absolute_path(path)) for path in self.transfer_from)
        return replace(super().with_absolute_paths(), transfer_from=paths)

    def inputs(self, search_space: SearchSpace) -> dict[str, str]:
        return {f"--transfer-from {each}": EarlierSearch(each).digest(search_space) for each in self.transfer_from}


Transferring = TypeVar("Transferring", bound=TransferArgs)


class EarlierChild(NamedTuple):
    """A child of an earlier search."""

    search_space: str
    """Name of its search space."""
    genotype: dict[str, Any]
    reward: float


@dataclass(frozen=True)
class EarlierSearch:
    """The children of an earlier search.

    Args:
        path: its run directory.
    """

    path: str

    @cached_property
    def children(self) -> list[EarlierChild]:
        """The distinct children, in order; with rungs, with the rewards at the first one.

        Raises:
            InputError: if it is not a run directory, or has few children.
        """
        read_config(Path(self.path))
        children = [
            EarlierChild(search_space_of(record["key"]), record["genotype"], float(record["reward"]))
            for record in read_trajectory(Path(self.path))
            if record["is_new"] and not record["is_promotion"] and record["status"] != Status.FAILED
        ]
        if len(children) < MIN_CHILDREN:
            raise InputError(
                f"{self.path} has {len(children)} evaluated children, but --transfer-from needs at least {MIN_CHILDREN}; "
                "omit it"
            )
        return children

    def architectures(self, search_space: SearchSpace) -> list[Architecture]:
        """Return the architectures of the children.

        Raises:
            InputError: if one is not in ``search_space``.
        """
        for child in self.children:
            if child.search_space != search_space.name:
                raise InputError(f"{self.path} is not a search in {search_space.name} but in {child.search_space}; omit it")
        try:
            return [search_space.from_genotype(child.genotype) for child in self.children]
        except InputError as error:
            raise InputError(f"{self.path} is not a search in this {search_space.name} ({error}); omit it") from None

    def digest(self, search_space: SearchSpace) -> str:
        """Return a digest of the architectures and rewards of the children.

        Raises:
            InputError: if an architecture is not in ``search_space``.
        """
        keys = [architecture.key for architecture in self.architectures(search_space)]
        return sha256_hex(repr([(key, child.reward) for key, child in zip(keys, self.children, strict=True)]))

    def reward_model(self, search_space: SearchSpace) -> RewardModel:
        """Return a model that is fitted to the children.

        Raises:
            InputError: if a child is not in ``search_space``.
        """
        model = RewardModel(search_space)
        for architecture, child in zip(self.architectures(search_space), self.children, strict=True):
            model.add(architecture, child.reward)
        model.fit()
        return model


class EarlierRewards:
    """Predictions of the reward models of earlier searches, as trend scores.

    Args:
        search_space: the search space.
        models: the models, at least one.
    """

    def __init__(self, search_space: SearchSpace, models: Sequence[RewardModel]) -> None:
        self._search_space = search_space
        self._models = models
        self._known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, decisions: Tensor) -> Tensor:
        """Return the predicted scores, shape (architectures, models), of architectures ``decisions`` (architectures, m)."""
        keys = [tuple(each) for each in decisions.tolist()]
        if len(self._known) > MAX_ENCODED:
            self._known.clear()
        if new := [self._search_space.architecture(key) for key in dict.fromkeys(keys) if key not in self._known]:
            predicted = torch.stack([model.posterior(new, []).mean for model in self._models], dim=1)
            self._known.update(zip([each.decisions for each in new], predicted, strict=True))
        return torch.stack([self._known[key] for key in keys])


def earlier_rewards(search_space: SearchSpace, run_dirs: Sequence[str]) -> EarlierRewards | None:
    """Return the predictions of the models of earlier searches; None without any.

    Raises:
        InputError: if a directory is not that of a search in ``search_space``, or it has few children.
    """
    models = [EarlierSearch(each).reward_model(search_space) for each in run_dirs]
    return EarlierRewards(search_space, models) if models else None
