"""Markdown tables, numbers for people, and the generated parts of a document."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from registry.errors import InvalidInput

_PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(?P<end><!-- end of generated -->)", re.DOTALL
)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; None is empty, numbers are rounded for people."""
    lines = [columns, ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(value: Any) -> str:
    """A value in a table, on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return " ".join(str(value).split()).replace("|", "\\|")


def number(value: float) -> str:
    """Three digits, and all of those before the point."""
    if value == 0 or not abs(value) < 1e15:
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The same as CSV, with all digits."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return output.getvalue()


def fill(name: str, document: str, parts: Mapping[str, str]) -> str:
    """A document with its generated parts replaced.

    Raises:
        InvalidInput: it lacks a part, or has one that nobody makes.
    """
    there = [found["name"] for found in _PART.finditer(document)]
    if sorted(there) != sorted(parts):
        raise InvalidInput(
            f"{name} has the generated parts {', '.join(sorted(there)) or 'none'}, not {', '.join(sorted(parts))}",
            remedy="Each stands once, between <!-- generated: name --> and <!-- end of generated -->.",
        )
    return _PART.sub(lambda found: f"{found['begin']}{parts[found['name']]}{found['end']}", document)
