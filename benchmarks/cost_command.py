"""`macrofleet cost`: the command; what it computes is `benchmarks.cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def cost(
    tenants: Annotated[int, typer.Option(min=1, max=10_000_000, help="Tenants, each with a model.")] = 5000,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second of a tenant, in the mean.")] = 2.0,
    peak: Annotated[float, typer.Option(min=1, help="The highest rate of all, as a multiple of the mean.")] = 1.0,
    resident: Annotated[float, typer.Option(min=0.001, max=1, help="Share of models to have in memory.")] = 1.0,
    copies: Annotated[int, typer.Option(min=1, max=10, help="Machines that have a model in memory.")] = 2,
    spare: Annotated[int, typer.Option(min=0, max=100, help="Machines more, for those that fail.")] = 1,
    utilisation: Annotated[float, typer.Option(min=0.05, max=1, help="Of the processors, at the peak.")] = 0.6,
    prices: Annotated[
        Path | None, typer.Option(help="A price list; the default one is printed by --show-prices.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(help="Folder with warm.json, cold.json and scale.json of macrofleet bench.")
    ] = None,
    peers: Annotated[
        Path | None, typer.Option(help="A run of macrofleet bench peers, for what containers of others need.")
    ] = None,
    show_prices: Annotated[bool, typer.Option("--show-prices", help="Print the default price list and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Machines and money for a fleet, against an endpoint a tenant and SageMaker's multi-model endpoints.

    What one machine does is measured (the reports of our benches), prices are in a file of yours, every assumption is printed.

    Example: macrofleet cost --tenants 5000 --rate 2 --prices mine.toml
    """
    from benchmarks.cost.measured import RESULTS, read_measured
    from benchmarks.cost.model import Demand
    from benchmarks.cost.prices import DEFAULT, read_prices
    from benchmarks.cost.report import compare, lines, measured_containers, sentences
    from benchmarks.peers.results import read_run
    from benchmarks.reporting import with_origin
    from registry.console_output import print_json, print_table

    if show_prices:
        typer.echo(DEFAULT.read_text(encoding="utf-8"), nl=False)
        return
    demand = Demand(
        tenants=tenants,
        rate=rate,
        peak=peak,
        resident=resident,
        copies=copies,
        spare=spare,
        utilisation=utilisation,
    )
    listed = read_prices(prices or DEFAULT)
    path = peers or (RESULTS / "peers.json" if (RESULTS / "peers.json").exists() else None)
    run = None if path is None else read_run(path)
    if run is not None:
        listed = measured_containers(listed, run)
    report = compare(demand, read_measured(measured or RESULTS), listed)
    if run is not None:
        report["measured"].append(run.as_source())
    if as_json:
        print_json(with_origin(report))
        return
    print_table(*lines(report))
    for heading, found in (("", sentences(report)), ("Assumptions:", report["assumptions"])):
        typer.echo("\n".join([heading, *(f"- {sentence}" if heading else sentence for sentence in found)]))
    typer.echo("\nMeasured:")
    for source in report["measured"]:
        busy = f"; load average before: {source['load_average_before']}" if source["load_average_before"] else ""
        void = f"; says nothing: {', '.join(source['void'])}" if source["void"] else ""
        typer.echo(f"- {source['command']} ({source['began']}{busy}{void})")
