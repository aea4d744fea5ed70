"""A simulated replica out of what was measured of a real one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.cost.measured import Measured
from benchmarks.simulation.engine import Replica

_MOST_TICKETS = 32
# A normal variable's 99th percentile, in standard deviations.
_NORMAL_P99 = 2.3263
# Of a first answer, where its processor time was not measured apart: the server's part of a fetch that hashes and writes
# 10 MB (docs/benchmarks.md: 13 to 30 ms in the server that answers), and mapping what is on disk.
_STORE_CORE_SHARE = 0.5
_DISK_CORE_SHARE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a user sets of every replica, in bytes; None for `disk` is all."""

    memory: float
    disk: float | None = None


def replica_of(measured: Measured, sizes: Sizes) -> Replica:
    """Solve the cost of a batch and of a ticket from two measured figures.

    A request alone takes `warm_seconds` (a batch of one), and a full core answers `rps` in full batches:
    batch + ticket = warm, batch / 32 + ticket = 1 / rps. Where the machine was too busy for that to have a solution,
    everything is the ticket's, and what a request alone takes longer is spent outside the core.
    """
    full, alone = 1 / measured.rps, measured.warm_seconds
    ticket = (full - alone / _MOST_TICKETS) / (1 - 1 / _MOST_TICKETS)
    batch = alone - ticket
    if ticket <= 0 or batch < 0:
        ticket, batch = full, 0.0
    from_disk = max(0.0, measured.disk_seconds - alone)
    from_store = max(0.0, measured.store_seconds - alone)
    return Replica(
        batch_seconds=batch,
        ticket_seconds=ticket,
        most_tickets=_MOST_TICKETS,
        outside_seconds=max(0.0, alone - batch - ticket),
        disk_seconds=from_disk,
        store_seconds=from_store,
        disk_spread=_spread(from_disk, measured.disk_p99_seconds - alone),
        store_spread=_spread(from_store, measured.store_p99_seconds - alone),
        disk_core_seconds=_core(measured.disk_core_seconds, from_disk, _DISK_CORE_SHARE),
        store_core_seconds=_core(measured.store_core_seconds, from_store, _STORE_CORE_SHARE),
        model_bytes=measured.model_bytes,
        memory_models=sizes.memory / measured.model_bytes,
        disk_models=None if sizes.disk is None else sizes.disk / measured.model_bytes,
    )


def _core(measured: float | None, seconds: float, share: float) -> float:
    """Of a load that takes `seconds`, the core's part; some of it may have been another core's, at the same time."""
    return seconds * share if measured is None else min(measured, seconds)


def _spread(median: float, p99: float) -> float:
    """Of a log-normal time with that median and 99th percentile."""
    return math.log(p99 / median) / _NORMAL_P99 if p99 > median > 0 else 0.0


def described(replica: Replica) -> dict[str, Any]:
    """For a report; times in milliseconds."""
    return {
        "batch_ms": round(1000 * replica.batch_seconds, 3),
        "ticket_ms": round(1000 * replica.ticket_seconds, 3),
        "disk_ms": round(1000 * replica.disk_seconds, 2),
        "store_ms": round(1000 * replica.store_seconds, 2),
        "disk_core_ms": round(1000 * replica.disk_core_seconds, 2),
        "store_core_ms": round(1000 * replica.store_core_seconds, 2),
        "disk_spread": round(replica.disk_spread, 3),
        "store_spread": round(replica.store_spread, 3),
        "rps": round(replica.rps, 1),
        "memory_models": int(replica.memory_models),
        "disk_models": None if replica.disk_models is None else int(replica.disk_models),
        "model_bytes": replica.model_bytes,
    }
