"""`macrofleet tenants delete`: everything that there is of a tenant, and the proof that it is gone.

Nothing but typer is imported before the command runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from registry.console_output import print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.deletion.deleting import Deletion, Place
    from registry.leases import Leases
    from registry.store import ObjectStore

_SHOWN = 20
# What a deletion leaves on purpose, or because nobody can remove it: docs/deletion.md.
KEPT = (
    "deleted/…: a tombstone without the name, for 30 days",
    "events in Prefect, which takes no request to delete one, until it forgets them (seven days by default)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDeletion:
    """What deletes tenants, as the environment says. Made by `open_deletion`."""

    store: ObjectStore
    places: Sequence[Place]
    leases: Leases

    def run(
        self, tenant: str, *, dry_run: bool = False, step: Callable[[str, float], None] = lambda _text, _share: None
    ) -> Deletion:
        """See `registry.deletion.deleting.delete_tenant`."""
        from registry.deletion.deleting import delete_tenant

        return delete_tenant(self.store, tenant, self.places, leases=self.leases, dry_run=dry_run, step=step)


def open_deletion(*, own: str | None = None) -> TenantDeletion:
    """Open all places that may hold something of a tenant: a new kind of place is a line here.

    Args:
        own: the id of the flow run that deletes, if there is one.
    """
    from flows.deployments import FLOWS
    from flows.prefect_traces import PrefectPlace
    from flows.run_traces import RunsPlace
    from flows.settings import FlowSettings
    from registry.database import DatabaseSettings
    from registry.deletion.key_place import KeysPlace
    from registry.deletion.places import DiskPlace, FleetPlace, HiddenPlace, LeasePlace, StorePlace
    from registry.leases import Leases, this_process
    from registry.settings import StoreSettings, read_settings
    from registry.store import open_store
    from registry.tracking.deletion import TrackingPlace
    from registry.tracking.models import Tracking

    settings, store_settings = read_settings(FlowSettings), read_settings(StoreSettings)
    store = open_store(store_settings)
    tracking = Tracking(
        tracking_uri=settings.tracking_uri,
        store=store_settings,
        experiment=settings.experiment,
        artifact_location=settings.artifact_location,
    )
    tiers = [settings.disk_folder, settings.disk_folder / "champions"]
    places: list[Place] = [
        FleetPlace(store),
        KeysPlace(store, read_settings(DatabaseSettings)),
        RunsPlace(store),
        HiddenPlace(store),
        TrackingPlace(tracking),
        PrefectPlace([flow.name for flow in FLOWS], own=own),
        DiskPlace(tiers, store),
        StorePlace(store),
        LeasePlace(store),
    ]
    leases = Leases(store, holder=f"deletion by {this_process()}", seconds=settings.lease_seconds)
    return TenantDeletion(store=store, places=places, leases=leases)


def delete(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what there is of it; delete nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Delete a tenant for good: its place in the fleet, tickets, models, MLflow's and Prefect's records, local copies.

    Servers forget it at their next look at the fleet. A training that is under way loses the tenant; that may take a
    minute. At the end all places are searched, and the exit code is 1 if one still has something, which is then named.
    Running it again finishes what was interrupted.

    Example: macrofleet tenants delete acme --yes
    """
    from registry.errors import InvalidInput
    from registry.names import check_tenant

    check_tenant(tenant)
    if not (yes or dry_run):
        if as_json or not _somebody_is_there():
            raise InvalidInput(f"deleting tenant {tenant} cannot be undone", remedy="Add --yes if you mean it.")
        typed = typer.prompt(
            f"This deletes tenant {tenant} for good: tickets, models, records. Type its name to go on", type=str
        )
        if typed != tenant:
            raise InvalidInput(f"{typed[:80]!r} is not {tenant}: nothing was deleted", remedy="Type the tenant's name.")
    from flows.command import set_defaults

    with progress(as_json) as step:
        set_defaults()  # before Prefect is imported
        done = open_deletion().run(tenant, dry_run=dry_run, step=step)
    if as_json:
        print_json({**done.as_dict(), "kept": list(KEPT)})
    elif dry_run:
        _list(done)
    else:
        _report(done)
    if not (done.complete or dry_run):
        raise typer.Exit(1)


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _list(there: Deletion) -> None:
    print_table(["place", "there"], [[name, str(len(left))] for name, left in there.left.items()])
    for name, left in there.left.items():
        for trace in left:
            typer.echo(f"{name}: {trace}")
    typer.echo(f"would delete tenant {there.tenant}")


def _report(done: Deletion) -> None:
    print_table(
        ["place", "removed", "left"],
        [[name, str(count), str(len(done.left[name]))] for name, count in done.removed.items()],
    )
    for kept in KEPT:
        typer.echo(f"kept on purpose: {kept}")
    if done.complete:
        typer.echo(f"nothing is left of tenant {done.tenant}")
        return
    for name, left in done.left.items():
        for trace in left[:_SHOWN]:
            typer.echo(f"left in {name}: {trace}", err=True)
        if len(left) > _SHOWN:
            typer.echo(f"left in {name}: {len(left) - _SHOWN} more (--json lists them)", err=True)
        if left:
            typer.echo(f"{name}: {done.remedies[name]}", err=True)
