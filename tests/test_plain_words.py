"""The prose and the identifiers of the project use plain, current terms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for folder in ("nases_env", "agents", "benchmarks", "examples", "tests", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md") and path != Path(__file__)
) + [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "setup.cfg")]

REPLACED = {
    r"a person|persons?\b(?! of)": "the user",
    r"mend(s|ed|ing)?": "fix, repair",
    r"(go|goes|going|gone|went) on": "resume, continue",
    r"told(?! in)|was told": "receives, reports",
    r"dear(er|est)?": "expensive",
    r"misses (its|the) data": "data is missing",
    r"(one's|your|his) own(?! (images|agent|code|data|library))": "custom",
    r"that ships?|ships with": "built-in",
    r"beside|besides": "next to, except for",
    r"so many": "at most that many",
    r"pictures?": "image",
    r"look(s|ed)?[ _-]up": "query",
    r"anew": "again, new",
    r"lest": "so that ... not",
    r"whoever|whatever": "say who or what",
    r"came of|comes to|come to": "result",
    r"as if nothing": "say what is equal",
    r"torment(s|ed|or)?": "fault injection",
    r"(?<!there )(is|was|are) no(?= (?!longer|such|more|less|larger|way|need))": "is not a valid",
    r"twin": "run",
    r"thereafter|thereby|whence|hence": "say it in plain words",
}
"""Pattern of a replaced word: what to write instead."""

BRITISH = (
    r"\w*(colour|behaviour|neighbour|favour|honour)\w*",
    r"(un)?(normal|standard|initial|summar|regular|optim|vector|serial|general|final|organ|recogn|util|minim|maxim|random)is"
    r"(e|es|ed|er|ing|ation)",
    r"licence",
    r"centre\w*",
    r"artefact\w*",
)

EXCEPTIONS = ('"regularised evolution"', "`look_up` is")
"""The name of a random stream, which published results depend on, and an old name in the changelog."""


@pytest.fixture(scope="module")
def lines() -> dict[str, str]:
    """The lines that match any pattern, by their location: one expression of all patterns is searched in each file."""
    expression = whole_words("|".join([*REPLACED, *BRITISH]))
    found: dict[str, str] = {}
    for path in SOURCES:
        text = path.read_text().lower()  # faster than to ignore the case
        for exception in EXCEPTIONS:
            text = text.replace(exception, "")
        text = text.replace("_", " ")
        if expression.search(text):
            numbered = enumerate(text.splitlines(), 1)
            found |= {f"{path.relative_to(ROOT)}:{number}": line for number, line in numbered if expression.search(line)}
    return found


def whole_words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])({pattern})(?![\w])")


@pytest.mark.parametrize("pattern", [*REPLACED, *BRITISH])
def test_replaced_words_are_gone(pattern: str, lines: dict[str, str]) -> None:
    found = [f"{place}: {line.strip()}" for place, line in lines.items() if whole_words(pattern).search(line)]
    assert not found, f"write {REPLACED.get(pattern, 'American spelling')!r} instead:\n" + "\n".join(found)
