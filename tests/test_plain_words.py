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


def matches(path: Path, pattern: str) -> list[str]:
    expression = re.compile(rf"(?<![\w-])({pattern})(?![\w])", re.IGNORECASE)
    lines = path.read_text().splitlines()
    for exception in EXCEPTIONS:
        lines = [line.replace(exception, "") for line in lines]
    lines = [line.replace("_", " ") for line in lines]
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(lines, 1)
        if expression.search(line)
    ]


@pytest.mark.parametrize("pattern", [*REPLACED, *BRITISH])
def test_replaced_words_are_gone(pattern: str) -> None:
    found = [line for path in SOURCES for line in matches(path, pattern)]
    assert not found, f"write {REPLACED.get(pattern, 'American spelling')!r} instead:\n" + "\n".join(found)
