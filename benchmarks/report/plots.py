"""Plots of the report's tables. Each has the digest of the numbers that it shows in it, so that a stale one is found."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEY = "Numbers"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DPI = 90


def digest_of(numbers: str) -> str:
    """Of a CSV file, as a plot has it."""
    return hashlib.sha256(numbers.encode()).hexdigest()


def plotted_digest(path: Path) -> str | None:
    """The digest of the numbers that a plot shows; None without one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    for kind, content in _chunks(data):
        if kind == b"tEXt" and content.startswith(_KEY.encode() + b"\0"):
            return content.split(b"\0", 1)[1].decode("latin-1")
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Of a PNG file (its specification, 5.3); nothing more where it ends early or is damaged."""
    place = len(_SIGNATURE)
    while data.startswith(_SIGNATURE) and place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        if data[place + 8 + size : place + 12 + size] != struct.pack(">I", zlib.crc32(kind + content)):
            return
        yield kind, content
        place += 12 + size


def draw(name: str, table: Table, path: Path, *, numbers: str) -> None:
    """Draw a plot into a PNG file.

    Args:
        name: which plot, of `PLOTS`.
        table: what it shows.
        numbers: the same as CSV, whose digest goes into the file.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        PLOTS[name](figure, table)
        figure.savefig(path, dpi=_DPI, metadata={"Software": None, _KEY: digest_of(numbers)})


def _latency(figure: Figure, table: Table) -> None:
    """Latency by percentile, the last ones stretched as HdrHistogram's own plots do it."""
    axes = figure.subplots()
    shown = {row[0]: None for row in table.rows}
    for result in shown:
        rows = [row for row in table.rows if row[0] == result and row[1] < 100]
        axes.plot([1 / (1 - row[1] / 100) for row in rows], [row[2] for row in rows], marker=".", label=result)
    axes.set_xscale("log")
    axes.set_yscale("log")
    places = [0, 50, 90, 99, 99.9, 99.99]
    axes.set_xticks([1 / (1 - place / 100) for place in places], [f"{place:g} %" for place in places])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("milliseconds")
    if shown:
        axes.legend()


def _cost(figure: Figure, table: Table) -> None:
    """Money a month by way of serving, for each fleet."""
    axes = figure.subplots()
    fleets = list(dict.fromkeys(f"{row[0]:,} tenants,\n{row[1]:g} requests/s each" for row in table.rows))
    ways = list(dict.fromkeys(row[3] for row in table.rows))
    months = {(f"{row[0]:,} tenants,\n{row[1]:g} requests/s each", row[3]): row[7] for row in table.rows}
    width = 0.8 / len(ways)
    for place, way in enumerate(ways):
        places = [fleet + (place - (len(ways) - 1) / 2) * width for fleet in range(len(fleets))]
        axes.bar(places, [months.get((fleet, way), 0) for fleet in fleets], width, label=way)
    axes.set_yscale("log")
    axes.set_xticks(range(len(fleets)), fleets)
    axes.set_ylabel("USD a month")
    figure.legend(fontsize=7, loc="outside lower center", ncols=2)


def _simulation(figure: Figure, table: Table) -> None:
    """p99 before and after a loss, by scenario."""
    axes = figure.subplots()
    names = [row[0] for row in table.rows]
    places = range(len(names))
    axes.bar([place - 0.2 for place in places], [row[10] or 0 for row in table.rows], 0.4, label="before a loss")
    axes.bar([place + 0.2 for place in places], [row[11] or 0 for row in table.rows], 0.4, label="after it")
    axes.set_xticks(list(places), names, rotation=30, ha="right")
    axes.set_ylabel("p99, milliseconds")
    axes.legend()


def _servers(figure: Figure, table: Table) -> None:
    """A panel for each of three figures; a server without one has no bar."""
    from matplotlib.ticker import NullFormatter

    names = [row[0] for row in table.rows]
    panels = (("cold answer, ms", 2), ("MB a tenant", 4), ("requests/s, 50 words", 7))
    for place, (title, column) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        axes.barh(names, [row[column] or 0 for row in table.rows])
        axes.invert_yaxis()
        axes.set_xscale("log")
        # Powers of ten alone: labels between them cover each other where the range is short.
        axes.xaxis.set_minor_formatter(NullFormatter())
        if found := [row[column] for row in table.rows if row[column]]:
            axes.set_xlim(left=min(found) / 5)
        axes.set_title(title, fontsize=9)
        axes.tick_params(axis="y", labelleft=not place)


PLOTS: Mapping[str, Callable[[Figure, Table], None]] = {
    "servers": _servers,
    "latency": _latency,
    "cost": _cost,
    "simulation": _simulation,
}
