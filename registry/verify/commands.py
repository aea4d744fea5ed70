"""`macrofleet fleet verify`: what differs between the fleet, the object store and MLflow.

Nothing but typer is imported before it runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from registry.console_output import open_configured_store, print_json, print_table, progress

if TYPE_CHECKING:
    from registry.verify.reconcile import Finding


def verify(
    tenants: Annotated[
        list[str] | None, typer.Option("--tenant", metavar="TENANT", help="Only this one. Repeatable; by default all.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Download and hash every file that the fleet names.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended from the fleet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Compare the object store and MLflow with the fleet. Exit code 1 if something is left for somebody to see to.

    Example: macrofleet fleet verify --repair
    """
    from registry.settings import StoreSettings, TrackingSettings, read_settings
    from registry.tracking.models import Tracking
    from registry.verify.reconcile import verify_fleet

    store = open_configured_store()
    tracking = Tracking.from_settings(read_settings(TrackingSettings), read_settings(StoreSettings))
    began = time.perf_counter()
    with progress(as_json) as step:
        found = verify_fleet(store, tracking, tenants=tenants or None, deep=deep, repair=repair, step=step)
    report = {**found.as_dict(), "deep": deep, "seconds": round(time.perf_counter() - began, 1)}
    if as_json:
        print_json(report)
    else:
        if found.findings:
            print_table(["tenant", "difference", "what", "where", "state"], [_row(one) for one in found.findings])
        typer.echo(
            f"{report['tenants']} tenants and {report['versions']} registered versions in {report['seconds']} s: "
            f"{len(found.findings)} differences, {report['mended']} mended, {report['open']} open"
        )
    if found.left_out and not as_json:
        typer.echo(f"left out, since others work on them: {', '.join(found.left_out)}", err=True)
    if found.open:
        raise typer.Exit(1)


def _row(finding: Finding) -> list[str]:
    difference = finding.difference
    if finding.mended:
        state = "mended"
    elif finding.problem:
        state = f"not mended: {finding.problem}"
    else:
        state = f"--repair: {difference.remedy}" if difference.repair else difference.remedy
    return [difference.tenant or "-", difference.kind, difference.what, difference.where, state]
