"""The tables of the report, as columns and rows: one function for each, from results alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.latency import curve
from benchmarks.peers.marks import bytes_per_tenant
from benchmarks.peers.results import Cell, PeerRun
from benchmarks.report.stored import Result, Results, doubts_of

PERCENTILES = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows; cells are text, numbers or None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def figures(results: Results) -> Table:
    """Every figure of every bench that is held to a bound."""
    rows = [
        [
            result.name,
            name,
            bound,
            result.report.get(name),
            _verdict(result.report["passed"].get(name), result),
            None if result.report["passed"].get(name) else results.reason(result.bench, name),
        ]
        for result in results.benches
        for name, bound in result.report.get("bounds", {}).items()
    ]
    return Table(["result", "figure", "bound", "measured", "", "why"], rows)


def _verdict(passed: bool | None, result: Result) -> str:
    if result.report["void"]:
        return "void"
    return ("reached" if passed else "**not reached**") + (", on a busy machine" if result.busy else "")


def runs(results: Results) -> Table:
    """When and where each result was measured, and with which command."""
    rows: list[Sequence[Any]] = []
    for result in results.benches:
        report = result.report
        state = {None: None, True: f"busy: load {report.get('load_average_before')} before", False: "quiet"}[
            result.busy
        ]
        computed = "machine" not in report  # what else the machine does changes nothing but how long it takes
        rows.append(
            [
                result.name,
                f"`{report['command']}`",
                report["began"],
                machine(report.get("machine") or {}),
                None if computed else state,
                "; ".join((*report.get("void", []), *result.doubts)) or None,
            ]
        )
    for name, run in results.peers.items():
        doubts = peers_doubts(run)
        rows.append([name, f"`{run.command}`", run.date, machine(run.machine), None, "; ".join(doubts) or None])
    return Table(["result", "command", "began", "machine", "state", "in doubt because"], rows)


def peers_doubts(run: PeerRun) -> tuple[str, ...]:
    """Why a run of the comparison says little."""
    return tuple(doubts_of(run.as_source()))


def machine(found: Mapping[str, Any]) -> str | None:
    """A machine in a few words; None for a result that needs none (a computation)."""
    if not found:
        return None
    memory = f", {found['memory_bytes'] / 1e9:.0f} GB" if "memory_bytes" in found else ""
    versions = ", ".join(f"{name} {found[name]}" for name in ("python", "tensorflow", "macrofleet") if name in found)
    return f"{found.get('cpu', '?')}, {found.get('cores', '?')} cores{memory}, Linux {found.get('kernel', '?')}; {versions}"


def latencies(results: Results) -> Table:
    """The latency at each percentile of results that have a histogram, in milliseconds."""
    rows: list[Sequence[Any]] = [
        [result.name, percentile, found]
        for result in results.benches
        if "hdr" in result.report
        for percentile, found in zip(PERCENTILES, curve(result.report["hdr"], PERCENTILES), strict=True)
    ]
    return Table(["result", "percentile", "milliseconds"], rows)


def costs(results: Results) -> Table:
    """The ways to serve a fleet."""
    rows: list[Sequence[Any]] = []
    for result in results.of("cost"):
        report = result.report
        for offer in report["offers"]:
            saved = report["saved_against_each"].get(offer["name"])
            rows.append(
                [
                    report["settings"]["tenants"],
                    report["settings"]["rate"],
                    report["settings"]["copies"],
                    offer["name"],
                    f"{offer['count']:,} {offer['machine']}",
                    offer["limited_by"],
                    offer["an_hour"],
                    offer["a_month"],
                    None if saved is None else f"{saved:.1%}",
                ]
            )
    return Table(
        ["tenants", "requests/s each", "copies", "", "machines", "limited by", "USD an hour", "a month", "ours saves"],
        rows,
    )


def simulations(results: Results) -> Table:
    """Scenarios, and what came of them."""
    rows: list[Sequence[Any]] = []
    for result in results.of("simulate"):
        report = result.report
        settings, replica = report["settings"], report["replica"]
        before = report.get("before_loss", report)
        rows.append(
            [
                result.name,
                f"{settings['replicas']:,} of {settings['processes_a_machine']} a machine",
                settings["tenants"],
                settings["trace"]["rate"],
                replica["memory_models"],
                f"{settings['rule']} {settings['factor']} %" if settings["rule"] != "ring" else "ring",
                settings["lose"],
                f"{before['hit_rate']:.2%}",
                f"{before['affinity']:.2%}",
                before["p50_ms"],
                before["p99_ms"],
                report.get("after_loss", {}).get("p99_ms"),
                report.get("cold_loads_after_loss"),
                report.get("moved_beyond_lost"),
                report["bytes_fetched"] / 1e9,
            ]
        )
    return Table(
        [
            "result",
            "replicas",
            "tenants",
            "requests/s",
            "models in memory, a replica",
            "bound",
            "machines lost",
            "hit rate",
            "affinity",
            "p50 ms",
            "p99 ms",
            "p99 ms after a loss",
            "cold loads after it",
            "tenants moved beyond the lost",
            "GB fetched",
        ],
        rows,
    )


def checks(results: Results) -> Table:
    """The simulation beside real servers."""
    rows: list[Sequence[Any]] = []
    for result in results.of("simulate-check"):
        real, simulated = result.report["real"], result.report["simulated"]
        rows.extend(
            [result.name, result.report["settings"]["through"], name, real[name], simulated[name]]
            for name in ("hit_rate", "cold_loads", "p50_ms", "p99_ms")
        )
    return Table(["result", "through", "figure", "real", "simulated"], rows)


def peers_summary(results: Results) -> Table:
    """The servers of the latest comparison beside each other; empty cells are what one could not do."""
    columns = [
        "server",
        "ready s",
        "cold ms, page cache",
        "cold ms, without",
        "MB a tenant",
        "threads a tenant",
        "requests/s, short",
        "requests/s, 50 words",
        "tenants held",
        "swap s",
        "failures in it",
        "Zipf p99 ms",
        "failures in that",
    ]
    run = max(results.peers.values(), key=lambda each: each.date, default=None)
    if run is None:
        return Table(columns, [])
    rows = []
    for name, peer in run.peers.items():
        memory = bytes_per_tenant(run, name, "resident")
        rows.append(
            [
                peer.title,
                run.figure("ready_seconds", peer=name, step="ready"),
                run.figure("cached_p50_ms", peer=name, step="cold"),
                run.figure("uncached_p50_ms", peer=name, step="cold"),
                None if memory is None else round(memory / 1e6, 2),
                _most(run, name, "memory", "threads_per_tenant"),
                _most(run, name, "warm", "rps", text="short"),
                _most(run, name, "warm", "rps", text="50 words"),
                _most(run, name, "memory", "loaded"),
                run.figure("swap_seconds", peer=name, step="swap"),
                run.figure("failures", peer=name, step="swap"),
                run.figure("p99_ms", peer=name, step="zipf"),
                run.figure("failures", peer=name, step="zipf"),
            ]
        )
    return Table(columns, rows)


def _most(run: PeerRun, peer: str, step: str, name: str, **wanted: object) -> float | None:
    cells = run.select(peer=peer, step=step, outcome="measured", **wanted)
    return max((float(cell.figures[name]) for cell in cells if cell.figures.get(name) is not None), default=None)


def peers(results: Results) -> Table:
    """Every step of every peer; one that could not do it stands there with its own message."""
    rows = [
        [name, run.peers[cell.peer].title if cell.peer in run.peers else cell.peer, *_cell(cell.figures, cell)]
        for name, run in results.peers.items()
        for cell in run.cells
    ]
    return Table(["result", "server", "step", "tenants", "clients", "text", "outcome", "figures", "error"], rows)


def _cell(found: Mapping[str, Any], cell: Cell) -> Iterator[Any]:
    yield from (cell.step, cell.tenants, cell.clients, cell.text, cell.outcome)
    yield ", ".join(f"{name} {value:g}" for name, value in found.items() if isinstance(value, int | float))
    yield cell.error
