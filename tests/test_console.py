from __future__ import annotations

import io

from rich.table import Table

from nases_env.console import Console


def test_table_is_complete_in_a_narrow_terminal() -> None:
    table = Table()
    for number in range(8):
        table.add_column(f"column {number}")
    table.add_row(*(f"{number},234,567" for number in range(8)))
    file = io.StringIO()
    Console(file=file, width=20).print_table(table)
    output = file.getvalue()
    assert all(f"column {number}" in output and f"{number},234,567" in output for number in range(8))
