"""`macrofleet bench`: the commands. What they measure is imported when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.load_command import load
from benchmarks.reporting import run_bench
from benchmarks.simulate_command import simulate, simulate_check
from registry.console_output import Step

bench = typer.Typer(no_args_is_help=True, help="Measure on this machine, with a fleet of its own.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 unless every figure is what it must be.")]
Connections = Annotated[int, typer.Option(min=1, max=2000, help="Of the closed loop that finds the capacity.")]
Seconds = Annotated[float, typer.Option(min=1, max=3600, help="Length of one measurement.")]
Rounds = Annotated[int, typer.Option(min=1, max=100, help="Measurements of each kind, in turn.")]
Share = Annotated[float, typer.Option(min=0.01, max=1, help="Load, of the measured capacity.")]


@bench.command()
def warm(
    tenants: Annotated[int, typer.Option(min=1, max=10_000, help="Tenants, each with a model of 10 MB.")] = 1000,
    seconds: Seconds = 10,
    rounds: Rounds = 3,
    connections: Connections = 64,
    keys: Annotated[bool, typer.Option("--keys", help="Every tenant has an API key, and is asked for it.")] = False,
    guards: Annotated[
        bool, typer.Option("--guards", help="Instead: the share that keys, rules and masking take of the throughput.")
    ] = False,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Throughput and latency of models in memory, beside a bare FastAPI echo of the same bodies.

    Example: macrofleet bench warm --json
    """
    from benchmarks.guards import measure_guards
    from benchmarks.warm import measure_warm

    def measure(step: Step) -> dict[str, Any]:
        if guards:
            return measure_guards(tenants=tenants, seconds=seconds, rounds=rounds, connections=connections, step=step)
        return measure_warm(
            tenants=tenants, seconds=seconds, rounds=rounds, connections=connections, with_keys=keys, step=step
        )

    run_bench(measure, as_json, check)


@bench.command()
def cold(
    tenants: Annotated[int, typer.Option(min=2, max=2000, help="First answers from local disk, of each kind.")] = 150,
    s3_tenants: Annotated[int, typer.Option(min=1, max=2000, help="First answers from the S3 server.")] = 200,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """The first answer for tenants never loaded: from local disk, and from an S3 server on loopback.

    Example: macrofleet bench cold --json
    """
    from benchmarks.cold import measure_cold

    run_bench(lambda step: measure_cold(tenants=tenants, s3_tenants=s3_tenants, step=step), as_json, check)


@bench.command()
def scale(
    tenants: Annotated[int, typer.Option(min=20, max=50_000, help="Tenants in the fleet.")] = 10_000,
    models: Annotated[int, typer.Option(min=20, max=5000, help="Distinct models on local disk, all touched.")] = 2000,
    memory_mb: Annotated[int, typer.Option(min=100, help="The server's memory budget, in MB (10^6).")] = 4000,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Memory, threads and start of a server over thousands of models, beside ten.

    Example: macrofleet bench scale --tenants 1000 --models 200 --json
    """
    from benchmarks.scale import measure_scale

    given = {"tenants": max(tenants, models), "models": models, "memory_bytes": memory_mb * 1_000_000}
    run_bench(lambda step: measure_scale(**given, step=step), as_json, check)


@bench.command()
def swap(
    tenants: Annotated[int, typer.Option(min=1, max=1000, help="Tenants, with equal shares.")] = 20,
    swaps: Annotated[int, typer.Option(min=1, max=2000, help="Versions to publish one after the other.")] = 200,
    seconds: Seconds = 60,
    load: Share = 0.5,
    connections: Connections = 64,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Versions replaced under load, one of them by a model of another program.

    Example: macrofleet bench swap --swaps 50 --seconds 30 --json
    """
    from benchmarks.swap import measure_swap

    def measure(step: Step) -> dict[str, Any]:
        return measure_swap(
            tenants=tenants, swaps=swaps, seconds=seconds, load_share=load, connections=connections, step=step
        )

    run_bench(measure, as_json, check)


@bench.command()
def neighbour(
    tenants: Annotated[int, typer.Option(min=2, max=1000, help="Tenants, with equal shares.")] = 10,
    seconds: Seconds = 20,
    rounds: Rounds = 2,
    load: Share = 0.5,
    connections: Connections = 64,
    long: Annotated[
        bool, typer.Option("--long", help="Instead: one tenant sends tickets of 64 KiB, at its share.")
    ] = False,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """What the others notice when one tenant sends ten times its share, or tickets as long as they may be.

    Example: macrofleet bench neighbour --json
    """
    from benchmarks.long_tickets import measure_long_tickets
    from benchmarks.neighbour import measure_neighbour

    measured = measure_long_tickets if long else measure_neighbour

    def measure(step: Step) -> dict[str, Any]:
        return measured(
            tenants=tenants, seconds=seconds, rounds=rounds, load_share=load, connections=connections, step=step
        )

    run_bench(measure, as_json, check)


@bench.command()
def scan(
    hot: Annotated[int, typer.Option(min=1, max=2000, help="Tenants of the hot set.")] = 100,
    tail: Annotated[int, typer.Option(min=1, max=5000, help="Tail tenants, each asked once.")] = 1000,
    tail_rps: Annotated[float, typer.Option(min=0.1, max=1000, help="Tail tenants asked a second.")] = 5,
    load: Share = 0.3,
    seconds: Seconds = 30,
    connections: Connections = 64,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """A scan of the long tail, cold in the store, beside a hot set that fills most of the memory.

    Example: macrofleet bench scan --tail 200 --json
    """
    from benchmarks.scan import measure_scan

    def measure(step: Step) -> dict[str, Any]:
        return measure_scan(
            hot=hot,
            tail=tail,
            tail_rps=tail_rps,
            load_share=load,
            connections=connections,
            quiet_seconds=seconds,
            step=step,
        )

    run_bench(measure, as_json, check)


@bench.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="How long.")] = 20,
    tenants: Annotated[int, typer.Option(min=2, max=2000, help="Tenants.")] = 300,
    swapped: Annotated[int, typer.Option(min=1, max=2000, help="Tenants whose models are swapped.")] = 30,
    swap_seconds: Annotated[float, typer.Option(min=0.1, help="From one swap to the next.")] = 5,
    memory: Annotated[float, typer.Option(min=0.01, max=2, help="Memory budget, of all models together.")] = 0.5,
    load: Share = 0.3,
    connections: Connections = 64,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Load, evictions and swaps for a long while: memory, threads, descriptors and errors.

    Example: macrofleet bench soak --minutes 5 --json
    """
    from benchmarks.soak import measure_soak

    def measure(step: Step) -> dict[str, Any]:
        return measure_soak(
            minutes=minutes,
            tenants=tenants,
            swapped=min(swapped, tenants),
            swap_seconds=swap_seconds,
            memory_share=memory,
            load_share=load,
            connections=connections,
            step=step,
        )

    run_bench(measure, as_json, check)


@bench.command()
def flows(
    tenants: Annotated[
        int, typer.Option(min=2, max=10_000, help="Tenants to train; three that fail come on top.")
    ] = 500,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that train.")] = 2,
    kills: Annotated[
        int, typer.Option(min=0, max=1000, help="Runs of four tenants that are killed and run again.")
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the tenants and of the kills.")] = 1,
    s3: Annotated[bool, typer.Option("--s3", help="Over an S3 server instead of a folder.")] = False,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """A fleet trained, registered and published; what fails; what is left after a kill.

    Example: macrofleet bench flows --json --tenants 100 --kills 10
    """
    from benchmarks.flows import measure_flows

    def measure(step: Step) -> dict[str, Any]:
        return measure_flows(tenants=tenants, processes=processes, kills=kills, seed=seed, s3=s3, step=step)

    run_bench(measure, as_json, check)


@bench.command("import")
def import_(
    tickets: Annotated[int, typer.Option(min=100, max=1_000_000, help="Tickets, each with four audits.")] = 10_000,
    threads: Annotated[int, typer.Option(min=1, max=32, help="Requests under way at once.")] = 2,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Tickets with their audits out of a stand-in for Zendesk, without a rate limit: throughput and memory.

    Example: macrofleet bench import --json
    """
    from benchmarks.importing import measure_import

    run_bench(lambda step: measure_import(tickets=tickets, threads=threads, step=step), as_json, check)


@bench.command()
def feedback(
    tenants: Annotated[int, typer.Option(min=1, max=10_000, help="Tenants that it is about.")] = 100,
    seconds: Seconds = 10,
    connections: Connections = 64,
    kills: Annotated[int, typer.Option(min=0, max=1000, help="Servers to kill under load.")] = 20,
    s3: Annotated[bool, typer.Option("--s3", help="Ship to an S3 server instead of a folder.")] = False,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Feedback that a server accepts, each on its disk before the answer; what is left of it when servers are killed.

    Example: macrofleet bench feedback --json
    """
    from benchmarks.feedback import measure_feedback

    def measure(step: Step) -> dict[str, Any]:
        return measure_feedback(
            tenants=tenants, seconds=seconds, connections=connections, kills=kills, s3=s3, step=step
        )

    run_bench(measure, as_json, check)


@bench.command()
def console(
    tenants: Annotated[int, typer.Option(min=1, max=100_000, help="Tenants in the fleet.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Visits, each with nothing in the browser's cache.")] = 10,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """First paint of the console's overview over a large fleet, in headless Chromium (Debian's package `chromium`).

    Example: macrofleet bench console --json
    """
    from benchmarks.console import measure_console

    run_bench(lambda step: measure_console(tenants=tenants, rounds=rounds, step=step), as_json, check)


@bench.command()
def peers(
    peers: Annotated[
        str,
        typer.Option(
            "--peers",
            metavar="A,B",
            help="Of macrofleet, echo, fastapi, mms, ray, fastapi-variables, mlserver, dedicated.",
        ),
    ] = "",
    tenants: Annotated[
        str, typer.Option("--tenants", metavar="N,M", help="How many are served, one number after the other.")
    ] = "10,100,500,1000,2000",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The run: written after every step, gone on with.")
    ] = Path("peers.json"),
    minutes: Annotated[
        float, typer.Option(min=0.1, max=600, help="After which no other server is started; a rerun goes on.")
    ] = 60,
    again: Annotated[bool, typer.Option("--again", help="Take steps again that failed or were skipped.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Ten tenants and a second a step, for trying out.")] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Install the servers and make the classifiers, and measure nothing.")
    ] = False,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """The servers that people would pick instead, beside ours: same classifiers, requests and load, one run.

    Each other server is installed from the package index into an environment of its own below the user's cache, and so are
    the classifiers made: 43 GB for 2,000 tenants.

    Example: macrofleet bench peers --peers macrofleet,fastapi --tenants 10,100 --json
    """
    import dataclasses
    import sys

    from benchmarks.peers import comparison
    from benchmarks.peers.sizes import QUICK, Sizes

    names = comparison.check_peers(peers)
    sizes = QUICK if quick else dataclasses.replace(Sizes(), tenants=comparison.check_tenants(tenants))

    def measure(step: Step) -> dict[str, Any]:
        if prepare:
            world, failed = comparison.prepare(names, sizes, step)
            return {"classifiers": str(world.folder), "not_installed": failed, "passed": {}, "void": []}
        command = " ".join(["macrofleet", *sys.argv[1:]])
        return comparison.compare(names, sizes, out, command=command, most_seconds=60 * minutes, again=again, step=step)

    run_bench(measure, as_json, check)


@bench.command()
def replicas(
    tenants: Annotated[int, typer.Option(min=10, max=5000, help="Tenants, with equal shares.")] = 150,
    replicas: Annotated[
        int, typer.Option(min=2, max=16, help="Servers behind Envoy; one more is added for a while.")
    ] = 3,
    seconds: Seconds = 15,
    load: Share = 0.2,
    connections: Connections = 32,
    as_json: Json = False,
    check: Check = False,
) -> None:
    """Servers behind Envoy while one is killed, one comes, one goes, one tenant is busy, and all are restarted.

    Example: macrofleet bench replicas --json
    """
    from benchmarks.replicas import measure_replicas

    def measure(step: Step) -> dict[str, Any]:
        return measure_replicas(
            tenants=tenants,
            replicas=replicas,
            seconds=seconds,
            load_share=load,
            connections=connections,
            step=step,
        )

    run_bench(measure, as_json, check)


bench.command()(load)
bench.command()(simulate)
bench.command()(simulate_check)
