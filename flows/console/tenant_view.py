"""What the page of one tenant shows, gathered from the store; and what an operator's action would change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flows.settings import FlowSettings
from registry.errors import BundleCorrupt, InvalidInput, ModelNotFound, ObjectNotFound
from registry.fleet import control as fleet_control
from registry.fleet.state import FleetEdit, FleetEntry, edit_fleet, in_threads
from registry.layout import MANIFEST, PROVENANCE, model_key, models_prefix
from registry.model.bundle import MAX_MANIFEST_BYTES
from registry.models import read_manifest
from registry.store import ObjectStore
from registry.tenant_settings import TenantSettings, check_known, read_tenant_settings
from training.record import TrainingRecord, read_record
from training.settings import TrainingSettings

_MOST_VERSIONS = 60
_SHOWN_VERSIONS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version of a tenant's model.

    Attributes:
        roles: "serving", "previous", "candidate", "shadow", "halted".
        created_at: when it was made; None where its provenance does not say.
        metrics: from its manifest, as fractions.
        problem: why it cannot be shown.
    """

    version: str
    roles: Sequence[str]
    created_at: datetime | None = None
    program: str = ""
    why: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = None
    bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantView:
    """One tenant, as the store has it.

    Attributes:
        entry: what the fleet says; one that says nothing where the tenant is not in it.
        in_fleet: whether it is.
        more_versions: how many older ones are not listed.
        settings: name, value and where that is from ("tenant", "environment" or "default").
        settings_problem: why they cannot be read.
    """

    tenant: str
    entry: FleetEntry
    in_fleet: bool
    record: TrainingRecord | None
    versions: Sequence[VersionRow]
    more_versions: int
    own: TenantSettings
    settings: Sequence[tuple[str, Any, str]]
    settings_problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a tenant has, beside what it must have to be given a model."""

    eligible: bool
    tickets: int
    least_tickets: int
    macros: int
    least_macros: int
    months: int
    reason: str


def read_view(store: ObjectStore, tenant: str, run: FlowSettings) -> TenantView:
    """Gather a tenant's page. Raises TenantNotFound, InvalidTenant and what the store raises."""
    check_known(store, tenant)
    found = _found(store, tenant)
    entry = found or FleetEntry()
    roles = roles_of(entry)
    prefix = models_prefix(tenant)
    names = {
        info.key.removeprefix(prefix).split("/")[0] for info in store.list(prefix) if info.key.endswith(f"/{MANIFEST}")
    }
    # Those with a part to play come first, whatever there is beside them.
    listed = [*roles, *sorted(names - roles.keys())][:_MOST_VERSIONS]
    rows = in_threads(lambda version: _version(store, tenant, version, roles.get(version, ())), listed)
    oldest = datetime.min.replace(tzinfo=UTC)
    rows.sort(key=lambda row: (bool(row.roles) and "serving" in row.roles, row.created_at or oldest), reverse=True)
    shown = [row for place, row in enumerate(rows) if row.roles or place < _SHOWN_VERSIONS]
    problem, own = "", TenantSettings()
    try:
        own = read_tenant_settings(store, tenant)
    except InvalidInput as error:
        problem = str(error)
    return TenantView(
        tenant=tenant,
        entry=entry,
        in_fleet=found is not None,
        record=read_record(store, tenant).record,
        versions=shown,
        more_versions=len(names | roles.keys()) - len(shown),
        own=own,
        settings=_settings(run, own),
        settings_problem=problem,
    )


def entry_of(store: ObjectStore, tenant: str) -> FleetEntry:
    """What the fleet says of a tenant; one that says nothing where it is not in there. Raises StoreError."""
    return _found(store, tenant) or FleetEntry()


def _found(store: ObjectStore, tenant: str) -> FleetEntry | None:
    return edit_fleet(store, [tenant], lambda entries: entries, write=False).before[tenant]


def roles_of(entry: FleetEntry) -> dict[str, tuple[str, ...]]:
    """The versions that a fleet entry names, and as what; the one that serves comes first."""
    roles: dict[str, tuple[str, ...]] = {}
    for version, role in (
        (entry.version, "serving"),
        (entry.candidate, "candidate"),
        (entry.shadow, "shadow"),
        (entry.previous, "previous"),
        (entry.rollout.version if entry.rollout and entry.rollout.stage == "halted" else None, "halted"),
    ):
        if version is not None:
            roles[version] = (*roles.get(version, ()), role)
    return roles


def standing(store: ObjectStore, tenant: str, run: FlowSettings, *, now: datetime) -> Standing:
    """Whether a tenant is eligible for a model, and what is missing. Reads its tickets. Raises MacrofleetError."""
    from flows.need import NO_WISH, read_tenant

    found = read_tenant(store, tenant, run, NO_WISH)
    judged, settings = found.eligibility(now), found.settings
    return Standing(
        eligible=judged.eligible,
        tickets=judged.tickets,
        least_tickets=settings.least_tickets,
        macros=judged.macros,
        least_macros=settings.least_macros,
        months=settings.months,
        reason=judged.reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something an operator may do to a tenant.

    Attributes:
        title: of its button.
        past: what was done, as the rest of a sentence about the tenant.
        takes_version: whether it is about one of its versions; such are shown before they are done.
        apply: does it, or says what it would do.
    """

    title: str
    past: str
    takes_version: bool
    apply: Callable[[ObjectStore, str, str, bool], FleetEdit]


ACTIONS: Mapping[str, Action] = {
    "pin": Action(
        title="Pin",
        past="is kept loaded on every server",
        takes_version=False,
        apply=lambda store, tenant, _, write: fleet_control.pin(store, [tenant], write=write),
    ),
    "unpin": Action(
        title="Unpin",
        past="may be evicted again",
        takes_version=False,
        apply=lambda store, tenant, _, write: fleet_control.pin(store, [tenant], pinned=False, write=write),
    ),
    "release": Action(
        title="Release the hold",
        past="follows its trainings again",
        takes_version=False,
        apply=lambda store, tenant, _, write: fleet_control.release(store, [tenant], write=write),
    ),
    "unshadow": Action(
        title="End the comparison",
        past="has no shadow any more",
        takes_version=False,
        apply=lambda store, tenant, _, write: fleet_control.stop_shadow(store, [tenant], write=write),
    ),
    "promote": Action(
        title="Promote",
        past="serves {version}",
        takes_version=True,
        apply=lambda store, tenant, version, write: fleet_control.promote(
            store, [tenant], version=version, write=write
        ),
    ),
    "rollback": Action(
        title="Roll back",
        past="serves {version} and holds it until it is released",
        takes_version=True,
        apply=lambda store, tenant, version, write: fleet_control.roll_back(store, [tenant], to=version, write=write),
    ),
    "shadow": Action(
        title="Compare as a shadow",
        past="compares {version} with what serves",
        takes_version=True,
        apply=lambda store, tenant, version, write: fleet_control.set_shadow(store, tenant, version, write=write),
    ),
}
_SHOWN_FIELDS = {
    "version": "Serves",
    "previous": "Previous version",
    "candidate": "Waits",
    "shadow": "Shadow",
    "hold_version": "Held",
    "keep_loaded": "Pinned",
    "rollout": "Roll-out",
}


def differences(edit: FleetEdit, tenant: str) -> list[tuple[str, str, str]]:
    """What an edit changes of a tenant: name, before, after."""
    before, after = edit.before[tenant] or FleetEntry(), edit.after[tenant] or FleetEntry()
    rows = []
    for name, title in _SHOWN_FIELDS.items():
        was, now = _text(getattr(before, name)), _text(getattr(after, name))
        if was != now:
            rows.append((title, was, now))
    return rows


def given_settings(form: Mapping[str, str]) -> dict[str, object]:
    """Settings of training from a form, by name: None for what is left empty; what is no field of it stays as it is.

    Raises:
        InvalidInput: one that is a number is none.
    """
    changes: dict[str, object] = {}
    for name in TrainingSettings.model_fields.keys() & form.keys():
        text = form[name].strip()
        if not text:
            changes[name] = None
        elif name in {"program", "weights", "promotion"}:
            changes[name] = text
        else:
            try:
                changes[name] = int(text) if text.isdecimal() else float(text)
            except ValueError:
                raise InvalidInput(
                    f"the setting {name} is a number", remedy="Leave it empty for the default."
                ) from None
    return changes


def _version(store: ObjectStore, tenant: str, version: str, roles: Sequence[str]) -> VersionRow:
    try:
        manifest = read_manifest(store, tenant, version, digest=None)
    except (ModelNotFound, BundleCorrupt, InvalidInput) as problem:
        return VersionRow(version=version, roles=roles, problem=problem.what)
    told: dict[str, Any] = {}
    with suppress(ObjectNotFound, ValueError, InvalidInput):
        read = json.loads(store.get(model_key(tenant, version, PROVENANCE), max_bytes=MAX_MANIFEST_BYTES).data)
        told = read if isinstance(read, dict) else {}
    created = None
    with suppress(ValueError):
        created = datetime.fromisoformat(str(told.get("created_at", "")))
    return VersionRow(
        version=version,
        roles=roles,
        created_at=created if created is None or created.tzinfo else created.replace(tzinfo=UTC),
        program=str(told.get("program", "")),
        why=str(told.get("why", "")),
        metrics=manifest.metrics,
        threshold=manifest.threshold,
        bytes=sum(file.size for file in manifest.files.values()),
    )


def _settings(run: FlowSettings, own: TenantSettings) -> list[tuple[str, Any, str]]:
    rows = []
    for name, value in run.overlaid(own).model_dump().items():
        from_run = "environment" if name in run.model_fields_set else "default"
        rows.append((name, value, from_run if getattr(own, name) is None else "tenant"))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    stage = getattr(value, "stage", None)
    return f"{stage} {value.version}" if stage else str(value)
