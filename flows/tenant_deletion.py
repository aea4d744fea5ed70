"""`macrofleet tenants delete`: everything that there is of a tenant, and the proof that it is gone.

Nothing but typer is imported before the command runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from registry.console_output import print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.deletion import Deletion, Place

_SHOWN = 20


def delete(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Delete a tenant for good: its place in the fleet, tickets, models, MLflow's and Prefect's records, local copies.

    Servers forget it at their next look at the fleet. At the end all places are searched, and the exit code is 1 if one
    still has something, which is then named. Running it again finishes what was interrupted.

    Example: macrofleet tenants delete acme --yes
    """
    from registry.deletion import delete_tenant
    from registry.errors import InvalidInput
    from registry.names import check_tenant

    check_tenant(tenant)
    if not yes:
        if as_json or not _somebody_is_there():
            raise InvalidInput(f"deleting tenant {tenant} cannot be undone", remedy="Add --yes if you mean it.")
        typer.confirm(f"Delete tenant {tenant} for good: tickets, models, records?", abort=True)
    with progress(as_json) as step:
        done = delete_tenant(tenant, _places(), step=step)
    if as_json:
        print_json(done.as_dict())
    else:
        _report(done)
    if not done.complete:
        raise typer.Exit(1)


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _places() -> Sequence[Place]:
    """Where to look: the fleet first, which stops the servers, and last what its lease lies in."""
    from flows.command import set_defaults

    set_defaults()
    from flows.prefect_traces import PrefectPlace
    from flows.settings import FlowSettings
    from registry.settings import StoreSettings, read_settings
    from registry.store import open_store
    from registry.tenant_places import DiskPlace, FleetPlace, StorePlace
    from registry.tracking import Tracking
    from registry.tracking_deletion import TrackingPlace

    settings, store_settings = read_settings(FlowSettings), read_settings(StoreSettings)
    store = open_store(store_settings)
    tracking = Tracking(
        tracking_uri=settings.tracking_uri,
        store=store_settings,
        experiment=settings.experiment,
        artifact_location=settings.artifact_location,
    )
    tiers = [settings.disk_folder, settings.disk_folder / "champions"]
    return [FleetPlace(store), TrackingPlace(tracking), PrefectPlace(), DiskPlace(tiers, store), StorePlace(store)]


def _report(done: Deletion) -> None:
    print_table(
        ["place", "removed", "left"],
        [[name, str(count), str(len(done.left[name]))] for name, count in done.removed.items()],
    )
    if done.complete:
        found = sum(done.removed.values())
        typer.echo(f"nothing is left of tenant {done.tenant}" + ("" if found else ", of which there was nothing"))
        return
    for name, left in done.left.items():
        for trace in left[:_SHOWN]:
            typer.echo(f"left in {name}: {trace}", err=True)
        if len(left) > _SHOWN:
            typer.echo(f"left in {name}: {len(left) - _SHOWN} more (--json lists them)", err=True)
        if left:
            typer.echo(f"{name}: {done.remedies[name]}", err=True)
