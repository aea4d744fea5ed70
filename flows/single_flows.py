"""Flows around one step each, so that a schedule, an API call or an event can have what the command line has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.lake_tidying import tidy_lakes
from flows.retrain_fleet import retrain_fleet
from flows.run_book import run_book
from flows.runs import UNDONE
from flows.tenant_deletion import open_deletion
from flows.verify_report import differences_page, found_text, open_lines
from registry.errors import InvalidInput
from registry.fleet import control as fleet_control
from registry.garbage import store_garbage as garbage
from registry.garbage.retention import Retention
from registry.names import check_tenant
from registry.regions import copying as regions
from registry.settings import CopyStoreSettings, StoreSettings, TrackingSettings, read_settings
from registry.store import ObjectStore, open_store
from registry.tracking.models import Tracking
from registry.verify import reconcile
from training.connectors.zendesk_run import sync_zendesk
from training.connectors.zendesk_sync import SYNCED_DAYS, SyncOptions, SyncReport
from training.importers import read_tickets
from training.mapping import read_mapping
from training.tenants import import_examples, read_catalogue_file

# Whoever emits it has its tenant retrained: `retrain_tenant` is triggered by it.
RETRAIN_EVENT = "macrofleet.tenant.retrain"
TENANT_RESOURCE = "macrofleet.tenant"


@flow(name="retrain_tenant", validate_parameters=False)
def retrain_tenant(tenant: str, *, force: bool = False, precision: float | None = None) -> State[None]:
    """Retrain one tenant as `retrain_fleet` does, and fail where it cannot be trained.

    Args:
        tenant: whom.
        force, precision: see `retrain_fleet`.

    Raises:
        MacrofleetError: see `retrain_fleet`.
    """
    # The flow's function: a flow run within a flow run takes a second of its own.
    summary = retrain_fleet.fn([tenant], force=force, precision=precision, shards=0)
    (outcome,) = summary.outcomes
    said = f"{outcome.state} {outcome.version} {outcome.reason}".strip()
    return Failed(message=said) if outcome.state in (*UNDONE, "unknown") else Completed(message=said)


@flow(name="rollback", validate_parameters=False)
def rollback(tenants: list[str], *, to: str | None = None, release: bool = False) -> State[None]:
    """Serve tenants' previous versions again and hold them there, or lift that: `macrofleet fleet rollback`.

    Args:
        tenants: one or more; all are changed in one write.
        to: a version of the one tenant named, instead of the previous one.
        release: lift the hold.

    Raises:
        MacrofleetError: see `registry.fleet.control.roll_back`.
    """
    store = open_store(read_settings(StoreSettings))
    with run_book(store) as book:
        book.begin()
        edited = fleet_control.release(store, tenants) if release else fleet_control.roll_back(store, tenants, to=to)
    changed = ", ".join(sorted(edited.changed())) or "none"
    return Completed(message=f"fleet generation {edited.generation}; changed: {changed}")


@flow(name="import_tickets", validate_parameters=False)
def import_tickets(
    tenant: str,
    path: str | None = None,
    *,
    file_format: str | None = None,
    mapping: str | None = None,
    macros: str | None = None,
    add_macros: bool = False,
    label_separator: str | None = None,
    skip_invalid: bool = False,
    zendesk: str | None = None,
    since: str | None = None,
    audits: int | None = None,
    mask: bool = True,
    retrain: bool = False,
) -> State[None]:
    """Import labelled tickets from a file that this machine can read, or from Zendesk: `macrofleet tickets import`, `sync`.

    Args:
        tenant: whose they are.
        path: of the file.
        file_format: "csv" or "jsonl"; None takes it from the file's name.
        mapping: a file that says which column is which field.
        macros: a file with the tenant's catalogue, which replaces the old one.
        add_macros: labels that are in no catalogue become macros.
        label_separator: what stands between the labels of one row, where it has several.
        skip_invalid: leave out rows that cannot be used.
        zendesk: an account's subdomain, instead of a file. The worker's environment has the credentials, and the address is
            always Zendesk's: who may start flows may not have them sent elsewhere.
        since: a day such as 2026-03-01, for the first synchronisation with Zendesk; by default a year ago.
        audits: read those of so many of Zendesk's tickets at most.
        mask: replace personal data.
        retrain: have the tenant retrained afterwards, where the import changed anything; needs a Prefect server.

    Raises:
        MacrofleetError: see `training.importers.read_tickets`, `training.tenants.import_examples` and
            `training.connectors.zendesk_run.sync_zendesk`.
    """
    check_tenant(tenant)
    if (path is None) == (zendesk is None):
        raise InvalidInput("there is no source, or more than one", remedy="Give a path or a Zendesk subdomain.")
    store = open_store(read_settings(StoreSettings))
    with run_book(store) as book:
        book.begin()
        if zendesk is not None:
            report = _from_zendesk(store, tenant, zendesk, since=since, audits=audits, mask=mask)
            changed = report.catalogue_changed or report.added or report.changed or report.removed
            said = f"added {report.added}, changed {report.changed}, removed {report.removed}, waiting {report.waiting}"
        else:
            found = read_tickets(
                Path(str(path)),
                file_format=file_format,
                mapping=read_mapping(Path(mapping)) if mapping else None,
                label_separator=label_separator,
                skip_invalid=skip_invalid,
                mask=mask,
            )
            merge = import_examples(
                store,
                tenant,
                found.examples,
                titles=found.titles,
                catalogue=read_catalogue_file(Path(macros)) if macros else None,
                add_macros=add_macros,
            )
            changed = merge.added or merge.changed
            left_out = len(found.problems)
            said = f"added {merge.added}, changed {merge.changed}, unchanged {merge.unchanged}, left out {left_out}"
    if retrain and changed:
        emit_event(RETRAIN_EVENT, {"prefect.resource.id": f"{TENANT_RESOURCE}.{tenant}", TENANT_RESOURCE: tenant})
    return Completed(message=f"tenant {tenant}: {said}")


def _from_zendesk(
    store: ObjectStore, tenant: str, subdomain: str, *, since: str | None, audits: int | None, mask: bool
) -> SyncReport:
    try:
        begin = datetime.fromisoformat(since) if since else datetime.now(UTC) - timedelta(days=SYNCED_DAYS)
    except ValueError:
        raise InvalidInput("since is no day", remedy="Write it like 2026-03-01.") from None
    begin = begin if begin.tzinfo else begin.replace(tzinfo=UTC)
    options = SyncOptions(since=int(begin.timestamp()), audits=audits, mask=mask)
    log = get_run_logger()
    return sync_zendesk(
        store, tenant, subdomain=subdomain, options=options, step=lambda text, _share: log.info("%s", text)
    )


@flow(name="collect_garbage", validate_parameters=False)
def collect_garbage(*, keep: int | None = None, dry_run: bool = False) -> State[None]:
    """Delete what nobody needs any more from the store: `macrofleet garbage collect`.

    Args:
        keep: of each tenant, so many versions published last; None for the usual number.
        dry_run: only say what would go.

    Raises:
        MacrofleetError: see `registry.garbage.store_garbage.collect_garbage`.
    """
    store = open_store(read_settings(StoreSettings))
    with run_book(store) as book:
        book.begin()
        retention = Retention() if keep is None else Retention(keep=keep)
        done = garbage.collect_garbage(store, retention=retention, dry_run=dry_run)
    verb = "would delete" if dry_run else "deleted"
    return Completed(message=f"{verb} {len(done.deleted)} versions, {done.objects} objects, {done.bytes} bytes in all")


@flow(name="tidy_lake", validate_parameters=False)
def tidy_lake(tenants: list[str] | None = None, *, dry_run: bool = False) -> State[None]:
    """Remove tickets and feedback that are too old, and pack feedback: `macrofleet garbage lake`.

    Fails where a tenant could not be tidied; the log says why.

    Args:
        tenants: None for all.
        dry_run: only say what would go.

    Raises:
        MacrofleetError: see `flows.lake_tidying.tidy_lakes`.
    """
    store = open_store(read_settings(StoreSettings))
    with run_book(store) as book:
        book.begin()
        done = tidy_lakes(tenants, dry_run=dry_run)
        for problem in done.problems:
            get_run_logger().error("not tidied: %s", problem)
    if done.problems:
        return Failed(message=f"{done.sentence()}; {len(done.problems)} tenants were not tidied, see the log")
    return Completed(message=done.sentence())


@flow(name="copy_region", validate_parameters=False)
def copy_region(*, collect: bool = False) -> State[None]:
    """Bring the copy in another region up to date: `macrofleet regions copy`.

    Fails where something that the fleet names is not whole in the store: all else is copied, and the log names this.

    Args:
        collect: then delete there what nobody needs any more.

    Raises:
        InvalidInput: MACROFLEET_COPY_STORE_URL names no copy.
        MacrofleetError: see `registry.regions.copying.copy_region`.
    """
    store, there = open_store(read_settings(StoreSettings)), read_settings(CopyStoreSettings).as_store()
    if there is None:
        raise InvalidInput(
            "nobody says where the copy is", remedy="Set MACROFLEET_COPY_STORE_URL where runs are worked off."
        )
    copied_to = open_store(there)
    with run_book(store) as book:
        book.begin()
        done = regions.copy_region(store, copied_to)
        gone = len(garbage.collect_garbage(copied_to).deleted) if collect else 0
        for version in (*done.missing, *done.damaged):
            get_run_logger().error("not whole in the store, and not copied: %s", version)
    said = f"generation {done.generation} (was {done.before}): {done.models} models, {done.documents} other objects"
    said += f"; removed {done.removed} objects and {gone} old models"
    if not done.whole:
        return Failed(message=f"{said}; {len(done.missing) + len(done.damaged)} versions are not whole, see the log")
    return Completed(message=said)


@flow(name="delete_tenant", validate_parameters=False)
def delete_tenant(tenant: str, *, dry_run: bool = False) -> State[None]:
    """Delete a tenant for good, everywhere: `macrofleet tenants delete`. Fails where something is left, and says what.

    Args:
        tenant: whom. Prefect keeps the parameter as long as it keeps the run, as the record of who had what deleted.
        dry_run: only say what there is.

    Raises:
        MacrofleetError: see `registry.deletion.deleting.delete_tenant`.
    """
    check_tenant(tenant)
    work = open_deletion(own=flow_run.id)
    with run_book(work.store) as book:
        book.begin()
        done = work.run(tenant, dry_run=dry_run)
    # In words without the name, and so is the run's record.
    if dry_run:
        return Completed(message="; ".join(f"{name}: {len(there)}" for name, there in done.left.items()))
    gone = f"removed {sum(done.removed.values())} traces"
    for name, left in done.left.items():
        for trace in left:
            get_run_logger().error("left in %s: %s", name, trace)
    if not done.complete:
        left_in = ", ".join(f"{name} ({len(left)})" for name, left in done.left.items() if left)
        return Failed(message=f"{gone}; left, see the log: {left_in}")
    return Completed(message=f"{gone}; nothing is left")


@flow(name="verify_fleet", validate_parameters=False)
def verify_fleet(tenants: list[str] | None = None, *, repair: bool = False, deep: bool = False) -> State[None]:
    """Compare the store and MLflow with the fleet, and fail where something is left for somebody to see to.

    That is `macrofleet fleet verify`; a page in Prefect has every difference.

    Args:
        tenants: None for all.
        repair: mend what follows from the fleet; tenants that others work on are left out.
        deep: download and hash every file that the fleet names.

    Raises:
        MacrofleetError: see `registry.verify.reconcile.verify_fleet`.
    """
    settings = read_settings(StoreSettings)
    store = open_store(settings)
    with run_book(store) as book:
        book.begin()
        tracking = Tracking.from_settings(read_settings(TrackingSettings), settings)
        found = reconcile.verify_fleet(store, tracking, tenants=tenants or None, repair=repair, deep=deep)
        book.report(differences_page(found), "what differs from the fleet", warnings=open_lines(found))
    return Failed(message=found_text(found)) if found.open else Completed(message=found_text(found))
