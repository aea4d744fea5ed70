"""The report: files out of results, written or compared with what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report.markdown import csv_text, fill, table
from benchmarks.report.marks import marks_table
from benchmarks.report.plots import PLOTS, digest_of, draw, plotted_digest
from benchmarks.report.scaling import scaling
from benchmarks.report.sizing import losses, machines
from benchmarks.report.stored import Results, doubts_of, rests_on
from benchmarks.report.tables import Table, checks, costs, figures, latencies, peers, peers_summary, runs, simulations

#: Every table of the report, by the name of its part of the document and of its CSV file.
TABLES: Mapping[str, Callable[[Results], Table]] = {
    "marks": marks_table,
    "figures": figures,
    "servers": peers_summary,
    "peers": peers,
    "latency": latencies,
    "cost": costs,
    "simulation": simulations,
    "check": checks,
    "runs": runs,
    "machines": machines,
    "losses": losses,
    "scaling": scaling,
}
#: Which of them each document has.
DOCUMENTS: Mapping[str, tuple[str, ...]] = {
    "benchmarks.md": ("marks", "figures", "servers", "peers", "latency", "cost", "simulation", "check", "runs"),
    "sizing.md": ("machines", "losses", "scaling"),
}
#: Where CSV files and plots are, beside the documents.
FOLDER = "benchmarks"
_ALTERNATIVES = {
    "latency": "Latency by percentile",
    "servers": "Cold answers, memory and throughput of the servers",
    "cost": "Cost of a month by way of serving",
    "simulation": "Simulated p99 before and after a loss",
}
#: Tables that are computed, and the benches whose results say what from.
_COMPUTED: Mapping[str, tuple[str, ...]] = {
    "cost": ("cost",),
    "simulation": ("simulate",),
    "machines": ("warm", "cold", "scale"),
    "losses": ("simulate",),
    "scaling": ("warm", "cold", "scale"),
}
_NOTHING = "Nothing was measured yet.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is generated.

    Attributes:
        documents: Markdown, with its parts filled in, by name.
        numbers: CSV files by name.
        plots: which tables are drawn, by the plot's file name.
    """

    documents: Mapping[str, str]
    numbers: Mapping[str, str]
    plots: Mapping[str, Table] = field(repr=False)


def build_report(results: Results, documents: Mapping[str, str]) -> Report:
    """Make the report.

    Args:
        documents: as they are, with their generated parts between their marks, by name (`DOCUMENTS`).

    Raises:
        InvalidInput: a document lacks a part or has one too many.
    """
    tables = {name: make(results) for name, make in TABLES.items()}
    numbers = {f"{name}.csv": csv_text(made.columns, made.rows) for name, made in tables.items()}
    filled = {
        document: fill(
            document, text, {name: _part(name, tables[name], _doubts(name, results)) for name in DOCUMENTS[document]}
        )
        for document, text in documents.items()
    }
    plots = {f"{name}.png": tables[name] for name in PLOTS if tables[name].rows}
    return Report(documents=filled, numbers=numbers, plots=plots)


def _doubts(name: str, results: Results) -> list[str]:
    """Why a computed table says little: what is void or was busy of what it rests on, each once."""
    found: list[str] = []
    for bench in _COMPUTED.get(name, ()):
        for result in results.of(bench):
            if "measured" not in result.report and doubts_of(result.report):
                found.append(rests_on(result.report))
            found += result.doubts
    return list(dict.fromkeys(found))


def _part(name: str, made: Table, doubts: Sequence[str]) -> str:
    if not made.rows:
        return _NOTHING
    warning = f"\n**In doubt**, since {'; '.join(doubts)}.\n" if doubts else ""
    link = f"{warning}\nThe same as CSV: [{name}.csv]({FOLDER}/{name}.csv).\n"
    if name not in PLOTS:
        return table(made.columns, made.rows) + link
    picture = f"![{_ALTERNATIVES[name]}]({FOLDER}/{name}.png)\n"
    # A curve is a picture and its numbers; everything else is a table as well.
    return picture + link if name == "latency" else f"{table(made.columns, made.rows)}\n{picture}{link}"


def write_report(report: Report, docs: Path) -> list[Path]:
    """Write what differs from what is there, and take away what belongs to no table any more; the files that changed.

    Args:
        docs: the folder of the documents.
    """
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    changed = _strangers(report, folder)
    for path in changed:
        path.unlink()
    for path, text in _texts(report, docs).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    for name, made in report.plots.items():
        path, numbers = folder / name, report.numbers[_numbers_of(name)]
        if plotted_digest(path) != digest_of(numbers):
            draw(path.stem, made, path, numbers=numbers)
            changed.append(path)
    return changed


def stale_files(report: Report, docs: Path) -> list[Path]:
    """The files that are not what the results say; empty for a report that is up to date."""
    folder = docs / FOLDER
    stale = _strangers(report, folder)
    for path, text in _texts(report, docs).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    for name in report.plots:
        if plotted_digest(folder / name) != digest_of(report.numbers[_numbers_of(name)]):
            stale.append(folder / name)
    return stale


def _texts(report: Report, docs: Path) -> dict[Path, str]:
    texts = {docs / name: text for name, text in report.documents.items()}
    return texts | {docs / FOLDER / name: text for name, text in report.numbers.items()}


def _strangers(report: Report, folder: Path) -> list[Path]:
    known = {*report.numbers, *report.plots}
    return sorted(path for path in folder.glob("*") if path.suffix in {".csv", ".png"} and path.name not in known)


def _numbers_of(plot: str) -> str:
    return plot.replace(".png", ".csv")
