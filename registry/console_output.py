"""What commands share: their store, progress on standard error, a report on standard output.

Nothing but typer is imported before it is needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from registry.store import ObjectStore

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]


def open_configured_store() -> ObjectStore:
    """The store that the environment names. Raises InvalidInput where it names none."""
    from registry.settings import StoreSettings, read_settings
    from registry.store import open_store

    return open_store(read_settings(StoreSettings))


def configured_operator_key() -> str | None:
    """The key that running servers are asked with, from the environment; None where it names none."""
    from registry.settings import OperatorSettings, read_settings

    key = read_settings(OperatorSettings).key
    return None if key is None else key.get_secret_value()


@contextmanager
def progress(quiet: bool) -> Iterator[Step]:
    """A progress bar on standard error; lines of text where nobody watches, and nothing at all where `quiet`."""
    if quiet or not sys.stderr.isatty():
        last = [""]

        def say(text: str, share: float) -> None:  # noqa: ARG001  # a bar's place in a log is its text alone
            if text != last[0] and not quiet:
                typer.echo(text, err=True)
            last[0] = text

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda text, share: bar.update(task, description=text[:60], completed=share)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner on standard error for a few seconds without a measure of progress; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def column_values(where: Sequence[str] | None) -> dict[str, str]:
    """`--where COLUMN=VALUE` as pairs. Raises InvalidInput."""
    from registry.errors import InvalidInput

    pairs = {}
    for condition in where or ():
        column, equals, value = condition.partition("=")
        if not equals or not column:
            raise InvalidInput(f"--where {condition!r} is not COLUMN=VALUE", remedy="Write --where version=v2.")
        pairs[column] = value
    return pairs


def names_of(text: str) -> frozenset[str]:
    """Names separated by commas."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def print_report(report: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object, or a line for each key."""
    if as_json:
        print_json(report)
        return
    for key, value in report.items():
        typer.echo(f"{key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Plain columns: a fleet has thousands of rows, for which rich takes seconds."""
    lines = [columns, *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    typer.echo("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)
