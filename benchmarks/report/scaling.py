"""What an autoscaler of servers goes by, out of what one server was measured to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.cost.measured import Measured, read_measured, read_report
from benchmarks.cost.model import Demand
from benchmarks.latency import mean_seconds
from benchmarks.report.stored import Results
from benchmarks.report.tables import Table
from registry.errors import InvalidInput

#: The fewest servers there are (`minReplicas`): when one is lost, the others have its requests.
FEWEST = 3
_NEEDED = ("warm", "cold", "scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingTargets:
    """Means over all servers above which there are too few.

    Attributes:
        processor: of the core that a server asks for, the share that it uses.
        queue_depth: tickets that wait.
        loads_from_store, loads_from_disk: that requests wait for, a second; None where the processor's part of one was
            not measured.
    """

    processor: float
    queue_depth: float
    loads_from_store: float | None
    loads_from_disk: float | None


def scaling_targets(measured: Measured, warm: Mapping[str, Any], *, utilisation: float | None = None) -> ScalingTargets:
    """Derive the targets.

    The processor's is what a core uses at `utilisation` of its capacity. The queue's is, by Little's law (requests in a
    system are their rate times the time each spends there), what is under way at half of the capacity, which is where
    latency is measured; what waits is a part of that, so it is reached above half. Loads may take what a core has left
    when one of the fewest servers is lost and the others have its requests.

    Args:
        warm: the report of `bench warm` that `measured` is of.
        utilisation: of the capacity, wanted at the peak; the cost model's by default.

    Raises:
        InvalidInput: the report lacks something, or nothing is left when a server is lost.
    """
    wanted = Demand(tenants=1, rate=1.0).utilisation if utilisation is None else utilisation
    left = 1 - wanted * FEWEST / (FEWEST - 1)
    if left <= 0:
        raise InvalidInput(f"at {wanted:.0%} of the capacity, one of {FEWEST} servers lost leaves the others none")
    try:
        a_request = warm["processor_us_per_request"] / 1e6
        under_way = warm["at_half_capacity"]["ours"]["rps"] * mean_seconds(warm["hdr"])
    except KeyError as error:
        raise InvalidInput(f"the report of `bench warm` lacks {error}", remedy="Run the bench again.") from None
    return ScalingTargets(
        processor=wanted * measured.rps * a_request,
        queue_depth=under_way,
        loads_from_store=_rate(left, measured.store_core_seconds),
        loads_from_disk=_rate(left, measured.disk_core_seconds),
    )


def scaling(results: Results) -> Table:
    """The targets, with what each is computed from; empty while one of the benches behind it has no result."""
    columns = ["a server's", "target", "since"]
    if any(results.last(bench) is None for bench in _NEEDED):
        return Table(columns, [])
    measured, warm = read_measured(results.folder), read_report(results.folder, "warm")
    found = scaling_targets(measured, warm)
    wanted = Demand(tenants=1, rate=1.0).utilisation
    half, left = warm["at_half_capacity"]["ours"], 1 - wanted * FEWEST / (FEWEST - 1)
    under_way = f"{1000 * mean_seconds(warm['hdr']):.2f} ms under way in the mean"
    rows: list[list[Any]] = [
        [
            "processor, of the core it asks for",
            f"{found.processor:.0%}",
            f"{wanted:.0%} of {measured.rps:,.0f} requests a second, {warm['processor_us_per_request']:.0f} µs each",
        ],
        [
            "tickets that wait",
            round(found.queue_depth, 1),
            f"{half['rps']:,.0f} requests a second, each {under_way}, at half of the capacity",
        ],
    ]
    for name, target, core in (
        ("store", found.loads_from_store, measured.store_core_seconds),
        ("disk", found.loads_from_disk, measured.disk_core_seconds),
    ):
        if target is not None and core is not None:
            since = f"{left:.0%} of a core is left when one of {FEWEST} servers is lost; a load takes {1000 * core:.1f} ms of it"
            rows.append([f"loads from the {name}, a second", round(target, 1), since])
    return Table(columns, rows)


def _rate(share: float, core_seconds: float | None) -> float | None:
    return share / core_seconds if core_seconds else None
