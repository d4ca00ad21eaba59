"""Hooks of MkDocs: pages that are generated from the repository, and links from the documentation to its files.

In the repository, links are relative paths to files. In the site, a link to a file outside ``docs/`` leads to a page that
shows this file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import signal
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from nases_env.cli.main import COMMANDS
from nases_env.cli.main import main as nases
from nases_env.cli.store import COMMANDS as STORE_COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = PurePosixPath("docs")

INCLUDED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "results/benchmarks.md",
}
"""Files of the repository that are pages of the site: path in the repository, path of the page."""

COMMAND_LINE_PAGE = "reference/cli.md"
"""The page to which the help texts of all commands are appended."""

LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"^( *)(```|~~~).*?^\1\2$", re.DOTALL | re.MULTILINE)
COLUMNS = 80  # of the help texts
AGENTS = sorted(path.stem for path in ROOT.glob("agents/*.py") if "__main__" in path.read_text())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")] + list(INCLUDED)
    for path in sorted({target for page in pages for target in _targets((ROOT / page).read_text(), page)}):
        if path not in INCLUDED and not PurePosixPath(path).is_relative_to(DOCS) and (ROOT / path).is_file():
            files.append(File.generated(config, _source_page(path), content=_show_source(path)))
    for path, uri in INCLUDED.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files of the repository by links to their pages."""
    uri = page.file.src_uri
    if uri == COMMAND_LINE_PAGE:
        markdown += _command_line_reference()
    origin = next((path for path, included in INCLUDED.items() if included == uri), str(DOCS / uri))
    return rewrite_links(markdown, origin, uri)


def rewrite_links(markdown: str, origin: str, uri: str) -> str:
    """Return ``markdown`` with links for the site.

    Args:
        markdown: the text of a page.
        origin: its path in the repository, which its links are relative to.
        uri: its path in the site.
    """

    def replace(match: re.Match[str]) -> str:
        path = _resolve(match[1], origin)
        if not (ROOT / path).exists():
            return match[0]  # a generated page, or a broken link, which MkDocs reports
        return os.path.relpath(_page_of(path), PurePosixPath(uri).parent) + (match[2] or "")

    parts = []
    end = 0
    for block in CODE.finditer(markdown):
        parts += [LINK.sub(replace, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(replace, markdown[end:])])


def _targets(markdown: str, origin: str) -> list[str]:
    return [_resolve(match[1], origin) for match in LINK.finditer(CODE.sub("", markdown))]


def _resolve(target: str, origin: str) -> str:
    """Return the path in the repository of the ``target`` of a link in the file ``origin``."""
    return os.path.normpath(PurePosixPath(origin).parent / target)


def _page_of(path: str) -> str:
    if path in INCLUDED:
        return INCLUDED[path]
    if PurePosixPath(path).is_relative_to(DOCS):
        return str(PurePosixPath(path).relative_to(DOCS))
    return _source_page(path)


def _source_page(path: str) -> str:
    return f"source/{path}.md"


def _show_source(path: str) -> str:
    source = (ROOT / path).read_text()
    suffix = PurePosixPath(path).suffix
    content = _notebook(source) if suffix == ".ipynb" else f"~~~~{'python' if suffix == '.py' else 'text'}\n{source}~~~~\n"
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n{content}"


def _notebook(source: str) -> str:
    """Return the cells of a notebook as Markdown."""
    cells = [("".join(cell["source"]), cell["cell_type"]) for cell in json.loads(source)["cells"]]
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text.replace("# ", "## ", 1) for text, kind in cells)


def _command_line_reference() -> str:
    sections = ["", "## nases", _help(nases)]
    for name in COMMANDS:
        sections += [f"### nases {name}", _help(nases, name)]
        if name == "store":
            for each in STORE_COMMANDS:
                sections += [f"#### nases store {each}", _help(nases, name, each)]
    sections += ["## Agents", "Each of these is the output of `python -m nases_agents.NAME --help-all`."]
    for name in AGENTS:
        main = partial(runpy.run_module, f"nases_agents.{name}", run_name="__main__", alter_sys=True)
        sections += [f"### {name}", _help(main, option="--help-all")]
    return "\n\n".join(sections)


def _help(main: Callable[[], object], *words: str, option: str = "--help") -> str:
    """Return what a command prints for ``option``, as a code block."""
    out = io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.dict(os.environ, COLUMNS=str(COLUMNS)),
        mock.patch.object(sys, "argv", ["nases", *words, option]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()),  # commands replace the stream
        contextlib.suppress(SystemExit),
    ):
        main()
    signal.signal(signal.SIGTERM, handler)
    lines = out.getvalue().strip().splitlines()
    text = "\n".join(line if line.startswith(" ") else textwrap.fill(line, COLUMNS) for line in lines)
    return f"```text\n{text}\n```"
