"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def table_row(cells: Sequence[str]) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(cells) + " |"


def table_head(columns: Sequence[str]) -> str:
    """Return the first two lines of a table."""
    return table_row(columns) + "\n|" + "---|" * len(columns)
