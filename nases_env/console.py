"""The console that commands print tables and lines to."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.table import Table
from rich.text import Text

from nases_env.escaping import printable

MAX_TABLE_WIDTH = 1000  # characters


class Console(rich.console.Console):
    """A console of rich that shows every string as it is, also in tables: without markup, emoji codes and highlighting.

    Characters that are not printable, including line breaks, are escaped: strings may quote what a file contains.

    Args:
        **options: passed to ``rich.console.Console``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print_table(self, table: Table) -> None:
        """Print a table without shortening its cells. A narrow terminal wraps its lines."""
        options = self.options.update(max_width=MAX_TABLE_WIDTH)
        self.width = max(self.width, self.measure(table, options=options).maximum)
        self.print(table)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to rich text; see ``rich.console.Console``."""
        return super().render_str(printable(text), **options)
