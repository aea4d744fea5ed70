"""`macrofleet bench simulate`: the command; what it does is `benchmarks.simulation`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.reporting import run_bench


def simulate(
    replicas: Annotated[int, typer.Option(min=1, max=10_000, help="Replicas, of one core each.")] = 10,
    tenants: Annotated[int, typer.Option(min=1, max=1_000_000, help="Tenants, each with a model.")] = 5000,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second, of all tenants.")] = 2000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the traffic.")] = 60,
    zipf: Annotated[float, typer.Option(min=0, help="Exponent of the tenants' shares.")] = 1.0,
    tail: Annotated[int, typer.Option(min=0, help="Further tenants, each of whom asks once.")] = 0,
    memory_mb: Annotated[float, typer.Option(min=1, help="A replica's memory budget, MB (10^6).")] = 8000,
    disk_mb: Annotated[float | None, typer.Option(min=1, help="A replica's disk tier; by default all fit.")] = None,
    rule: Annotated[
        Literal["ring", "walk", "envoy"],
        typer.Option(help="At a replica's bound: none, on around the ring (Mirrokni et al.), or as Envoy does."),
    ] = "envoy",
    factor: Annotated[int, typer.Option(min=101, help="The bound, per cent of the mean.")] = 150,
    ring_places: Annotated[
        int | None, typer.Option(min=1, help="Of plain Envoy's ring; by default ours, where replicas keep theirs.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Replicas on each machine, which share its disk.")] = 1,
    lose: Annotated[int, typer.Option(min=0, help="Machines that are lost in the middle.")] = 0,
    copies_above: Annotated[
        float | None, typer.Option(min=0.01, help="A copy of a tenant's model for each such share of a replica.")
    ] = None,
    preload: Annotated[bool, typer.Option(help="Replicas begin with their tenants.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the traffic and of who is lost.")] = 1,
    measured: Annotated[
        Path | None, typer.Option(help="Folder with warm.json, cold.json and scale.json of macrofleet bench.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate replicas behind a ring: hit rate, p99, cold loads after a loss, bytes fetched.

    A replica is what was measured of a real one; `macrofleet bench simulate-check` holds the simulation to real servers.

    Example: macrofleet bench simulate --replicas 1000 --tenants 170000 --rate 100000 --seconds 20 --lose 10 --json
    """
    from benchmarks.cost.measured import RESULTS, read_measured
    from benchmarks.simulation.parameters import Sizes, replica_of
    from benchmarks.simulation.report import Shape, measure_simulation
    from benchmarks.trace import TraceSpec
    from registry.errors import InvalidInput

    if lose * processes >= replicas:
        raise InvalidInput(f"of {replicas} replicas {lose * processes} cannot be lost", remedy="Leave one.")
    found = read_measured(measured or RESULTS)
    replica = replica_of(found, Sizes(memory=memory_mb * 1e6, disk=None if disk_mb is None else disk_mb * 1e6))
    shape = Shape(
        replicas=replicas,
        spec=TraceSpec(seconds=seconds, rate=rate, tenants=tenants, zipf=zipf, tail=tail, seed=seed),
        rule=rule,
        factor=factor,
        ring_places=ring_places,
        processes=processes,
        lose=lose,
        copies_above=copies_above,
        preload=preload,
    )
    run_bench(
        lambda step: {**measure_simulation(shape, replica, step=step), "measured": list(found.sources)}, as_json, False
    )


def simulate_check(
    replicas: Annotated[int, typer.Option(min=1, max=16, help="Real servers.")] = 3,
    tenants: Annotated[int, typer.Option(min=2, max=2000, help="Tenants, each with a model of 10 MB.")] = 90,
    memory_models: Annotated[int, typer.Option(min=1, help="Models that a server's memory holds.")] = 15,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second, of all tenants.")] = 40.0,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Length of the traffic.")] = 30.0,
    envoy: Annotated[bool, typer.Option("--envoy", help="Through a real Envoy instead of the ring alone.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the traffic.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless every figure is what it must be.")] = False,
) -> None:
    """Hold the simulation to real servers on this machine that are asked the same trace: hit rate, cold loads, p50, p99.

    Example: macrofleet bench simulate-check --envoy --json
    """
    from benchmarks.simulation.check import CheckSizes, measure_check

    sizes = CheckSizes(
        replicas=replicas,
        tenants=tenants,
        memory_models=memory_models,
        rate=rate,
        seconds=seconds,
        through_envoy=envoy,
    )
    run_bench(lambda step: measure_check(sizes, seed=seed, step=step), as_json, check)
