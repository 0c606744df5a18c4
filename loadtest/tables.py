"""Figures as Markdown tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["MISSING", "Column", "cells", "table"]

MISSING = "–"
"""For a figure that a row does not have."""


class Column(NamedTuple):
    """A column: a figure, its heading and how many decimals it has."""

    figure: str
    heading: str
    decimals: int


def table(first: str, columns: Sequence[Column], rows: Mapping[str, Mapping[str, float]]) -> str:
    """Rows of figures by name; ``first`` heads the names."""
    body = (
        (name, *(f"{figures[c.figure]:,.{c.decimals}f}" if c.figure in figures else MISSING for c in columns))
        for name, figures in rows.items()
    )
    return cells((first, *(column.heading for column in columns)), body, right=True)


def cells(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False) -> str:
    """Rows of text; with ``right`` all columns but the first are aligned to the right."""
    lines = [_line(headings), f"|---|{('---:|' if right else '---|') * (len(headings) - 1)}", *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
