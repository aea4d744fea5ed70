"""`macrofleet bench load`: the command; what it does is `benchmarks.replay`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.reporting import run_bench

KEY_VARIABLE = "MACROFLEET_BENCH_KEY"


def load(
    url: Annotated[str, typer.Argument(help="Of the server, say http://127.0.0.1:8000.")],
    trace: Annotated[
        str,
        typer.Option(help="A saved trace, or what to draw one from, say rate=200,seconds=30,tenants=1000,tail=100."),
    ] = "",
    tenants: Annotated[
        Path | None, typer.Option(help="Names of tenants, one a line, the busiest first, instead of the trace's.")
    ] = None,
    bodies: Annotated[
        Path | None, typer.Option(help="Request bodies, one a line, instead of made-up 50-word tickets.")
    ] = None,
    path: Annotated[
        str, typer.Option(help="Of a request; {tenant} is the tenant.")
    ] = "/v1/tenants/{tenant}/suggestions",
    keys: Annotated[
        Path | None, typer.Option(help=f"JSON object of API keys by tenant. One for all: {KEY_VARIABLE}.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="NAME: VALUE. Repeatable.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the trace here, to replay it.")] = None,
    most_connections: Annotated[int, typer.Option(min=1, max=50_000, help="Open at once.")] = 2000,
    patience: Annotated[float, typer.Option(min=0.1, help="Seconds that the end waits for answers.")] = 30.0,
    most_p99_ms: Annotated[float | None, typer.Option(min=0, help="For --check: the highest p99.")] = None,
    most_failed: Annotated[int, typer.Option(min=0, help="For --check: how many may be no success.")] = 0,
    remote: Annotated[bool, typer.Option("--remote", help="The server may be another machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless every figure is what it must be.")] = False,
) -> None:
    """Replay a trace against any HTTP server, in an open loop; every refusal is counted by status and reason.

    Requests go out when they are due, whatever is unanswered, and a latency counts from then (no coordinated omission).
    Ctrl-C ends the run early and reports what came of it.

    Example: macrofleet bench load http://127.0.0.1:8000 --trace rate=200,seconds=30,tenants=1000 --save trace.csv --json
    """
    from benchmarks.replay import Target, measure_load
    from benchmarks.stage import load_bodies
    from benchmarks.trace import trace_of
    from benchmarks.verdicts import Bound

    target = Target(
        url=url,
        path=path,
        bodies=_lines(bodies) if bodies else load_bodies(),
        key=os.environ.get(KEY_VARIABLE) or None,
        keys=_keys(keys) if keys else {},
        headers=_headers(header or []),
        remote=remote,
    )
    arrivals = trace_of(trace)
    if tenants:
        arrivals = arrivals.with_names([name.decode() for name in _lines(tenants)])
    if save:
        arrivals.save(save)
    bounds = {"failed": Bound(at_most=most_failed)}
    if most_p99_ms is not None:
        bounds["p99_ms"] = Bound(at_most=most_p99_ms)
    run_bench(
        lambda step: measure_load(
            arrivals,
            target,
            max_connections=most_connections,
            patience_seconds=patience,
            bounds=bounds,
            step=step,
        ),
        as_json,
        check,
    )


def _lines(path: Path) -> list[bytes]:
    from registry.errors import InvalidInput

    try:
        return [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None


def _keys(path: Path) -> dict[str, str]:
    from registry.errors import InvalidInput

    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found.values()):
        raise InvalidInput(f"{path} is no JSON object of API keys by tenant")
    return found


def _headers(given: list[str]) -> dict[str, str]:
    from registry.errors import InvalidInput

    headers = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum() or not value.strip().isprintable():
            raise InvalidInput("a --header is no NAME: VALUE")
        headers[name.strip()] = value.strip()
    return headers
