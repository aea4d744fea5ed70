"""`macrofleet report`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.console_output import open_configured_store, print_json, print_table, progress

if TYPE_CHECKING:
    from registry.feedback.report import Figures

_COLUMNS = ("views", "shown", "held_back", "abstained", "answered")
_RATES = ("coverage", "abstention", "acceptance_at_1", "acceptance_at_3", "unprompted_at_3")
_SHOWN = 20


def report(
    tenant: Annotated[str | None, typer.Option("--tenant", help="One tenant; by default the whole fleet.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="So many days, today included (UTC).")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What was shown and what agents applied: coverage, abstention, acceptance, by day; macros never used or never suggested.

    Acceptance is of views with macros that feedback came to; `unprompted at 3` is the same of views that were held back.
    Feedback is here once servers have shipped it, within a quarter of an hour by default.

    Example: macrofleet report --tenant acme --days 7
    """
    from registry.feedback.report import report_fleet, report_tenant
    from registry.names import check_tenant

    store = open_configured_store()
    if tenant is not None:
        found = report_tenant(store, check_tenant(tenant), days=days)
        if as_json:
            print_json({"days": days, **found.as_dict()})
            return
        _print_series(found.total, found.days)
        _print_names("never used", [*found.never_used])
        _print_names(
            "applied by hand, never suggested", [f"{name} ({count})" for name, count in found.never_suggested.items()]
        )
        return
    with progress(as_json) as step:
        total, series, tenants = report_fleet(store, days=days, step=step)
    if as_json:
        print_json(
            {
                "days": days,
                **total.as_dict(),
                "series": [{"day": day.isoformat(), **series[day].as_dict()} for day in sorted(series)],
                "tenants": {name: figures.as_dict() for name, figures in tenants.items()},
            }
        )
        return
    _print_series(total, series)
    worst = sorted(tenants, key=lambda name: tenants[name].rates["acceptance_at_3"] or 0.0)[:_SHOWN]
    if worst:
        typer.echo("")
        print_table(["tenant", *_heads()], [[name, *_cells(tenants[name])] for name in worst])
    if len(tenants) > len(worst):
        typer.echo(f"{len(tenants) - len(worst)} tenants with more acceptance are left out: --json lists them")


def _print_series(total: Figures, series: Mapping[date, Figures]) -> None:
    if not total.views:
        typer.echo("no views were recorded in these days")
        return
    rows = [[day.isoformat(), *_cells(series[day])] for day in sorted(series)]
    print_table(["day", *_heads()], [*rows, ["all", *_cells(total)]])


def _print_names(what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        typer.echo(f"{what}: {', '.join(names[:_SHOWN])}{more}")


def _heads() -> list[str]:
    return [name.replace("_", " ") for name in (*_COLUMNS, *_RATES)]


def _cells(figures: Figures) -> list[str]:
    told: dict[str, Any] = figures.as_dict()
    return [*(str(told[name]) for name in _COLUMNS), *(_percent(told[name]) for name in _RATES)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
