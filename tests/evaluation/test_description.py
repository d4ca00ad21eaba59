"""What the digest of a configuration says about custom classes."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nases_env.evaluation import Evaluation, Evaluator, Limits, OperatorShareEvaluator, QueryEvaluator, describe_search_space
from nases_env.search_spaces import Architecture, SearchSpace, get_search_space

pd = pytest.importorskip("pandas")

BASE = """
from nases_env.search_spaces import SearchSpace

NUM_CHOICES = 3

class Base(SearchSpace):
    name = "base"
"""

SPACE = """
from base_module import NUM_CHOICES, Base

WIDTHS = (8, 16)

def named(name):
    def name_class(cls):
        cls.name = name
        return cls
    return name_class

@named("first")
class Space(Base):
    decision_sizes = (2, NUM_CHOICES)

    def width(self, index):
        return WIDTHS[index]

if __name__ == "__main__":
    print(Space().width(0))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def describe(folder: Path, space: str = SPACE, base: str = BASE) -> dict[str, object]:
    """Describe a search space in a new module, as in a new process."""
    for name, text in (("space_module", space), ("base_module", base)):
        (folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    try:
        return describe_search_space(get_search_space("space_module:Space"))
    finally:
        for name in ("space_module", "base_module"):
            sys.modules.pop(name, None)


def test_description_changes_with_the_modules_of_the_classes(folder: Path) -> None:
    before = describe(folder)
    assert describe(folder) == before
    assert describe(folder, space=SPACE.replace("(8, 16)", "(64, 128)")) != before
    assert describe(folder, space=SPACE.replace('"first"', '"other"'))["source"] != before["source"]
    assert describe(folder, base=BASE + "\n    def build(self):\n        return None\n") != before


def test_description_does_not_change_when_the_module_is_edited_until_it_is_imported_again(folder: Path) -> None:
    """Results of the imported code would be stored as those of the edited code."""
    describe(folder)
    space = get_search_space("space_module:Space")
    before = describe_search_space(space)
    (folder / "space_module.py").write_text(SPACE.replace("(8, 16)", "(64, 128)"))
    assert describe_search_space(space) == before
    importlib.reload(sys.modules["space_module"])
    assert describe_search_space(get_search_space("space_module:Space")) != before
    del sys.modules["space_module"], sys.modules["base_module"]


def test_description_does_not_change_with_what_runs_only_as_a_script(folder: Path) -> None:
    assert describe(folder, space=SPACE.replace("width(0)", "width(1)")) == describe(folder)
    assert describe(folder, space=f"# A comment.\n{SPACE}") == describe(folder)


def test_built_in_search_space_has_no_source() -> None:
    assert describe_search_space(get_search_space("enas_micro")).keys() == {"name", "decision_sizes"}


class Scaled(SearchSpace):
    name = "scaled"
    decision_sizes = (4, 4, 4)

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def query(self, architecture: Architecture) -> float:
        return float(np.max(self.scale)) * sum(architecture.decisions) / 9


@dataclass
class Scores:
    values: Any


class Scoring(Evaluator):
    search_space = "enas_micro"

    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def evaluate(self, architecture: Architecture, seed: int) -> Evaluation:
        raise NotImplementedError


def network(weight: float) -> torch.nn.Module:
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.weight, weight)
    torch.nn.init.zeros_(layer.bias)
    return layer


ZEROS, ONE_HOT = np.zeros(2500), np.eye(1, 2500, 1000)[0]


@pytest.mark.parametrize("evaluator", [lambda value: QueryEvaluator(Scaled(value)), Scoring])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, 0.1),
        ({(0, 0): 1.0, 1: 0.5}, {(0, 0): 1.0, 1: 0.6}),
        (ZEROS, ONE_HOT),
        (np.array([0.1]), np.array([0.1 + 1e-12])),
        (np.array([[1], "a"], dtype=object), np.array([[2], "a"], dtype=object)),
        ({(0, 0): ZEROS}, {(0, 0): ONE_HOT}),
        (Scores([ZEROS]), Scores([ONE_HOT])),
        (Scores(torch.tensor(ZEROS)), Scores(torch.tensor(ONE_HOT))),
        (torch.tensor(ZEROS), torch.tensor(ONE_HOT)),
        (torch.tensor([0.12341, 0.5]), torch.tensor([0.12342, 0.5])),
        (torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(2.0, dtype=torch.bfloat16)),
        ([torch.tensor(ZEROS).to_sparse()], [torch.tensor(ONE_HOT).to_sparse()]),
        (pd.Series(ZEROS), pd.Series(ONE_HOT)),
        (pd.DataFrame({"a": [0.1]}), pd.DataFrame({"a": [0.1 + 1e-12]})),
        (network(0.5), network(0.6)),
        ({"names": [{"a", "b"}]}, {"names": [{"a", "c"}]}),
    ],
)
def test_digest_changes_with_attributes(one: Any, other: Any, evaluator: Callable[[Any], Evaluator]) -> None:
    assert evaluator(one).digest() == evaluator(copy.deepcopy(one)).digest()
    assert evaluator(one).digest() != evaluator(other).digest()


@pytest.mark.parametrize("evaluator", [lambda value: QueryEvaluator(Scaled(value)), Scoring])
def test_digest_does_not_depend_on_the_order_of_sets(evaluator: Callable[[Any], Evaluator]) -> None:
    one, other = [{0, 8}, {"a": frozenset([0, 8])}], [{8, 0}, {"a": frozenset([8, 0])}]
    assert one == other
    assert repr(one) != repr(other), "as sets of texts in two processes"
    assert evaluator(one).digest() == evaluator(other).digest()


def test_digest_does_not_depend_on_limits() -> None:
    def digest(max_params: int | None) -> str:
        evaluator = Scoring(1.0)
        evaluator.limits = Limits(max_params=max_params)
        return evaluator.digest()

    assert digest(None) == digest(1000)


def test_plain_attributes_have_no_contents() -> None:
    assert "contents" not in Scoring([0.1, {"a": (1, None)}]).describe()
    assert "contents" not in describe_search_space(Scaled([np.zeros(3)])), "the text of an array in a space is exact"


def test_description_does_not_change_when_a_search_space_is_used() -> None:
    space = Scaled(1.0)
    before = describe_search_space(space)
    space.sample(np.random.default_rng(0))
    assert len(vars(space)) > 1, "a cached property was read"
    assert describe_search_space(space) == before


INTERACTIVE = """
from nases_env.search_spaces import SearchSpace

class Space(SearchSpace):
    name = "typed"
    decision_sizes = (2, 3)
"""


def typed(text: str) -> dict[str, Any]:
    """Execute ``text`` as a module without a file, as ``python -`` does."""
    names = {"__name__": "typed_module"}
    exec(text, names)
    return names


def test_class_without_readable_source_has_no_results_of_its_earlier_versions() -> None:
    space, edited = (typed(INTERACTIVE)["Space"]() for _ in range(2))
    assert describe_search_space(space) == describe_search_space(type(space)())
    assert describe_search_space(space)["source"] != describe_search_space(edited)["source"]


def describe_evaluator(folder: Path, accuracy: float, module: str = "first_module") -> dict[str, Any]:
    """Describe an evaluator in a new module, as in a new process."""
    text = f"""
from nases_env.evaluation import Evaluation, OperatorShareEvaluator, Status

class Custom(OperatorShareEvaluator):
    def evaluate(self, architecture, seed):
        return Evaluation(architecture.key, seed, Status.OK, valid_accuracy={accuracy})
"""
    (folder / f"{module}.py").write_text(text)
    importlib.invalidate_caches()
    try:
        description: dict[str, Any] = importlib.import_module(module).Custom("enas_micro", "identity").describe()
        return description
    finally:
        sys.modules.pop(module, None)


def test_description_of_a_custom_evaluator_changes_with_its_module_and_its_source(folder: Path) -> None:
    before = describe_evaluator(folder, 0.5)
    assert describe_evaluator(folder, 0.5) == before
    assert describe_evaluator(folder, 0.25) != before
    assert describe_evaluator(folder, 0.5, module="other_module") != before


def test_description_of_a_built_in_evaluator_has_no_source() -> None:
    description = OperatorShareEvaluator("enas_micro", "identity").describe()
    assert description["evaluator"] == "OperatorShareEvaluator"
    assert description.keys() == {"evaluator", "search_space", "operator"}
