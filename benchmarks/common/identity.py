"""Digests of everything that determines the result of a search, so that records of other experiments are not reused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import math
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch

import nases_env
from nases_env.envs import ImageEnv, NASESEnv
from nases_env.evaluation import CSVEvaluator, TableEvaluator, TrainingEvaluator
from nases_env.retraining.training import digest_images
from nases_env.search.agent import Agent
from nases_env.training import load_images
from nases_env.training.image_size import ImageSize

Table = dict[str, tuple[float, float | None]]

MAX_ENUMERATED = 10**5  # architectures; larger spaces are not enumerated
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "gymnasium", "stable-baselines3", "cmaes", "optuna")


def read_table(nases: NASESEnv) -> Table | None:
    """Return validation and test accuracy of all architectures by key; None if unknown or if the space is too large.

    The test accuracies are None if the evaluator reads a table without them.
    """
    space, report_test_accuracy = nases.search_space, getattr(nases.evaluator, "report_test_accuracy", None)
    is_known = report_test_accuracy is not None or isinstance(nases.evaluator, TableEvaluator)
    if not is_known or math.prod(space.decision_sizes) > MAX_ENUMERATED:
        return None
    architectures = map(space.architecture, itertools.product(*map(range, space.decision_sizes)))
    return {
        architecture.key: (
            nases.evaluator.evaluate(architecture, 0).reward,
            report_test_accuracy and report_test_accuracy(architecture),
        )
        for architecture in architectures
    }


def describe_environment(nases: NASESEnv, table: Table | None, table_path: str | None) -> dict[str, Any]:
    """Return what determines all searches in an environment, except for their options; JSON values.

    Args:
        nases: the environment.
        table: the result of ``read_table``.
        table_path: path of the table, as passed to the environment; hashed if ``table`` is None and the evaluator does not
            describe the content of the file.
    """
    evaluator, images = nases.evaluator, None
    if isinstance(evaluator, TrainingEvaluator):
        images = digest_of_own_images(
            evaluator.dataset, evaluator.data_dir, evaluator.settings.image_size, with_test_images=False
        )
    weights = {name: weight.contiguous() for name, weight in nases.embedding.state_dict().items()}
    sources = set(Path(nases_env.__file__).parent.rglob("*.py"))
    for part in (nases, nases.search_space, evaluator):
        sources |= sources_of(type(part))
    if table is not None:
        table_digest: str | None = digest_of_text(json.dumps(sorted(table.items())))
    elif isinstance(evaluator, CSVEvaluator):
        table_digest = evaluator.digest()
    else:
        table_digest = digest_of_files([Path(table_path)]) if table_path else None
    return {
        "table": table_digest,
        "embedding": hashlib.sha256(safetensors.torch.save(weights)).hexdigest(),
        "child": dataclasses.asdict(nases.settings) if isinstance(nases, ImageEnv) else None,
        **({} if images is None else {"images": images}),
        "code": digest_of_files(sources),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
    }


def digest_of_own_images(
    dataset: str, data_dir: str | None, image_size: ImageSize | None, *, with_test_images: bool
) -> str | None:
    """Return the digest of the images of the user; None for other data sets, whose name determines the images.

    Raises:
        InputError: if images are missing.
    """
    if dataset != "image_folder":
        return None
    splits = (True, False) if with_test_images else (True,)
    images = [load_images(dataset, train=train, data_dir=data_dir, image_size=image_size) for train in splits]
    return digest_of_text("".join(map(digest_images, images)))


@functools.cache
def _version(library: str) -> str | None:
    """Return the version of a library; None if it is not installed, such as one of an extra."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def sources_of(definition: Any) -> set[Path]:
    """Return the file that defines a class or function, and the files of the same package that it imports, recursively."""
    package = definition.__module__.partition(".")[0]
    pending: list[ModuleType | None] = [inspect.getmodule(definition)]
    modules: set[ModuleType] = set()
    while pending:
        module = pending.pop()
        if module is not None and module not in modules and module.__name__.partition(".")[0] == package:
            modules.add(module)
            pending += [inspect.getmodule(value) for value in vars(module).values()]
    return {Path(module.__file__) for module in modules if module.__file__}


def sources_of_agent(agent: Any) -> set[Path]:
    """Return the sources of an agent, a class or a function; for a class, also those of the agents that it inherits from."""
    bases = inspect.getmro(agent) if isinstance(agent, type) else ()
    agents = [agent, *(base for base in bases if issubclass(base, Agent) and base is not Agent)]
    return set().union(*map(sources_of, agents))


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the contents of files, independent of their order."""
    return digest_of_text("".join(sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)))


def digest_of_text(text: str) -> str:
    """Return the SHA-256 of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()
