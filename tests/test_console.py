from __future__ import annotations

import io

from rich.table import Table

from nases_env.console import Console


def test_table_is_complete_in_a_narrow_terminal() -> None:
    table = Table()
    for number in range(8):
        table.add_column(f"column {number}")
    table.add_row(*(f"{number},234,567" for number in range(8)))
    console = Console(file=io.StringIO(), width=20)
    console.print_table(table)
    output = console.file.getvalue()
    assert all(f"column {number}" in output and f"{number},234,567" in output for number in range(8))
