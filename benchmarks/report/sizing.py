"""The sizing guide's tables: what each kind of machine holds and answers for its money, and what losing one costs."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.cost.measured import read_measured
from benchmarks.cost.model import Demand
from benchmarks.cost.prices import read_prices
from benchmarks.report.stored import Results
from benchmarks.report.tables import Table

_NEEDED = ("warm", "cold", "scale")
_GB = 1e9


def machines(results: Results) -> Table:
    """Every machine of the default price list: models that fit, and requests at the usual utilisation, for its money.

    Empty while one of the benches behind it has no result.
    """
    columns = [
        "machine",
        "cores",
        "GiB",
        "USD an hour",
        "models that fit",
        "models a USD and hour",
        "requests/s",
        "requests/s a USD and hour",
        "requests/s a model that fits",
        "memory that is no model's",
    ]
    if any(results.last(bench) is None for bench in _NEEDED):
        return Table(columns, [])
    measured, prices, demand = read_measured(results.folder), read_prices(), Demand(tenants=1, rate=1.0)
    rows: list[list[Any]] = []
    for machine in prices.machines:
        taken = demand.reserved_bytes + machine.cores * measured.process_bytes
        models = max(0, math.floor((machine.memory_bytes - taken) / (measured.model_bytes + measured.tenant_bytes)))
        rps = machine.cores * (1 - demand.proxy_share) * measured.rps * demand.utilisation
        rows.append(
            [
                machine.name,
                machine.cores,
                machine.memory_gib,
                machine.an_hour,
                models,
                round(models / machine.an_hour),
                round(rps),
                round(rps / machine.an_hour),
                round(rps / models, 2) if models else None,
                f"{min(1.0, taken / machine.memory_bytes):.0%}",
            ]
        )
    return Table(columns, rows)


def losses(results: Results) -> Table:
    """Simulated losses of a machine: the same cores and memory, cut into machines of different sizes."""
    rows: list[list[Any]] = []
    for result in results.of("simulate"):
        report = result.report
        settings = report["settings"]
        if not settings["lose"]:
            continue
        rows.append(
            [
                result.name,
                f"{math.ceil(settings['replicas'] / settings['processes_a_machine']):,}",
                settings["processes_a_machine"],
                settings["lose"],
                f"{report['lost_share_of_tenants']:.1%}",
                f"{report['moved_beyond_lost']:.1%}",
                report["cold_loads_after_loss"],
                report["cold_loads_before_loss"],
                f"{report['before_loss']['hit_rate']:.2%}",
                f"{report['after_loss']['hit_rate']:.2%}",
                report["before_loss"]["p99_ms"],
                report["after_loss"]["p99_ms"],
                report["recovered_after_seconds"],
                round(report["bytes_fetched"] / _GB, 2),
            ]
        )
    return Table(
        [
            "result",
            "machines",
            "processes each",
            "lost",
            "tenants lost",
            "tenants moved beyond",
            "cold loads after",
            "before",
            "hit rate before",
            "after",
            "p99 ms before",
            "after",
            "seconds to 95 % of the hit rate",
            "GB fetched",
        ],
        rows,
    )
