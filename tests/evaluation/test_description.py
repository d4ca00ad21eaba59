"""What the digest of a configuration says about custom classes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from nases_env.evaluation import describe_search_space
from nases_env.search_spaces import get_search_space

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


def test_description_does_not_change_with_what_runs_only_as_a_script(folder: Path) -> None:
    assert describe(folder, space=SPACE.replace("width(0)", "width(1)")) == describe(folder)
    assert describe(folder, space=f"# A comment.\n{SPACE}") == describe(folder)


def test_built_in_search_space_has_no_source() -> None:
    assert describe_search_space(get_search_space("enas_micro")).keys() == {"name", "decision_sizes"}
