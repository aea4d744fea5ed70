"""Whether a tenant needs training: what is read of it, and what its last training says. The store is all that is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flows.settings import FlowSettings
from registry.catalogue import Catalogue, read_catalogue
from registry.deletion.tombstones import read_tombstone
from registry.errors import BundleCorrupt, MacrofleetError, ModelNotFound, NotEnoughData, ObjectNotFound, TenantNotFound
from registry.feedback.records import Feedback, Shown, read_feedback
from registry.fleet.state import FleetEntry, in_threads
from registry.layout import catalogue_key, model_key
from registry.model.program import RELEASED_PROGRAMS
from registry.models import read_manifest
from registry.store import ObjectStore
from registry.tenant_settings import ProgramChoice, TenantSettings, read_tenant_settings
from training.choosing import programs_of
from training.eligibility import Eligibility, judge_eligibility
from training.examples import Example
from training.feedback import join_feedback, poor_acceptance
from training.fitting import FitSettings
from training.inputs import Inputs, inputs_of
from training.lake import Lake
from training.record import FoundRecord, TrainingRecord, read_record, settle_record
from training.settings import TrainingSettings
from training.why import Why, why

# How every tenant's weights are fitted, but for what its settings say.
FIT = FitSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one run asks for beyond the settings.

    Attributes:
        force: serve what was made whatever the gate says.
        retrain: train where nothing changed, too.
        precision, program: instead of each tenant's own.
        fleet_run: the name of the fleet run in MLflow that models are registered under; none for runs of their own.
            Nothing is decided by it.
    """

    force: bool = False
    retrain: bool = False
    precision: float | None = None
    program: ProgramChoice | None = None
    fleet_run: str | None = None


NO_WISH = Wish()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What there is to know of a tenant before it is trained.

    Attributes:
        examples: its tickets, with what feedback says of them.
        settings: its own over the run's.
    """

    name: str
    examples: Sequence[Example]
    catalogue: Catalogue | None
    settings: TrainingSettings

    def eligibility(self, now: datetime) -> Eligibility:
        """Whether it has enough for a model."""
        return judge_eligibility(self.examples, self.catalogue, self.settings, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What an eligible tenant is made of, and what is to be done about it.

    Attributes:
        entry: its fleet entry.
        inputs: what a model would be made of.
        found: the record of its last training.
    """

    tenant: Tenant
    entry: FleetEntry | None
    inputs: Inputs
    found: FoundRecord
    why: Why

    @property
    def record(self) -> TrainingRecord:
        """The record, where there is one: always, where nothing is to be trained."""
        assert self.found.record is not None
        return self.found.record


def is_there(store: ObjectStore, name: str) -> bool:
    """Whether a tenant has tickets or macros, without reading either; what a deletion has not removed yet does not count."""
    return last_token(store, name) is not None


def last_token(store: ObjectStore, name: str) -> int | None:
    """The greatest token of the leases that a tenant had before it was deleted and brought back; 0 where it never was.

    Returns:
        None for a tenant that is not there.
    """
    tombstone = read_tombstone(store, name)
    if tombstone is not None and tombstone.stands:
        return None
    if not Lake(store).has(name):
        try:
            store.head(catalogue_key(name))
        except ObjectNotFound:
            return None
    return tombstone.token if tombstone is not None else 0


def read_tenant(store: ObjectStore, name: str, run: FlowSettings, wish: Wish) -> Tenant:
    """Read a tenant's tickets, macros, settings and feedback.

    Raises:
        TenantNotFound: it has neither tickets nor macros.
        InvalidInput, StoreError: one of them cannot be read.
    """
    return _with_feedback(store, name, run, wish, list(read_feedback(store, name)))


def _with_feedback(
    store: ObjectStore, name: str, run: FlowSettings, wish: Wish, feedback: Sequence[Shown | Feedback]
) -> Tenant:
    examples = Lake(store).read(name)
    found = read_catalogue(store, name)
    if not examples and found is None:
        raise unknown(store, name)
    asked = TenantSettings(precision=wish.precision, program=wish.program)
    return Tenant(
        name=name,
        examples=join_feedback(
            examples, feedback, known=frozenset(macro.id for macro in found[0].macros) if found else None
        ),
        catalogue=found[0] if found else None,
        settings=run.overlaid(read_tenant_settings(store, name), asked),
    )


def find_need(
    store: ObjectStore, name: str, entry: FleetEntry | None, run: FlowSettings, wish: Wish, now: datetime
) -> Need:
    """Find out what is to be done about a tenant.

    Raises:
        NotEnoughData: it is not eligible.
        TenantNotFound, InvalidInput: as `read_tenant`.
    """
    feedback = list(read_feedback(store, name))
    tenant = _with_feedback(store, name, run, wish, feedback)
    eligibility = tenant.eligibility(now)
    if not eligibility.eligible:
        raise NotEnoughData(
            f"tenant {name} is not eligible: {eligibility.reason}",
            remedy="Import more, or ask for less with `macrofleet tenants set`.",
        )
    inputs = _inputs(tenant, run)
    found = read_record(store, name)
    decided = why(
        found.record,
        inputs,
        entry,
        now,
        retrain_after_days=tenant.settings.retrain_after_days,
        retrain=wish.retrain,
        force=wish.force,
        poor_acceptance=poor_acceptance(
            name, feedback, found.record, entry, now, least=tenant.settings.least_acceptance
        ),
    )
    if decided.action == "settle" and not _is_published(store, name, found.record):
        decided = Why(action="train", reason="its last version is gone from the store")
    return Need(tenant=tenant, entry=entry, inputs=inputs, found=found, why=decided)


def unknown(store: ObjectStore, name: str) -> TenantNotFound:
    """What to say of a name that no tenant has."""
    return TenantNotFound(
        f"tenant {name} has no tickets and no macros in {store.url}",
        remedy="Check the name, or import its tickets: macrofleet tickets import.",
    )


def fit_settings(settings: TrainingSettings) -> FitSettings:
    """How a tenant's weights are fitted."""
    return replace(FIT, embedding=settings.weights)


def settle(store: ObjectStore, served: Iterable[tuple[str, str]]) -> list[str]:
    """Note in their records that fleet and alias follow the last training of tenants, given with their manifests.

    Returns:
        What could not be noted: a rerun sees to it.
    """

    def one(item: tuple[str, str]) -> str | None:
        try:
            settle_record(store, *item)
        except MacrofleetError as problem:
            return f"the record of tenant {item[0]} was not completed: {problem}"
        return None

    return [problem for problem in in_threads(one, served) if problem is not None]


def _inputs(tenant: Tenant, run: FlowSettings) -> Inputs:
    settings = tenant.settings
    programs = programs_of(settings.program)
    chosen_by = {"latency_budget_milliseconds": run.latency_budget_milliseconds} if len(programs) > 1 else {}
    return inputs_of(
        tenant.examples,
        tenant.catalogue,
        programs={name: RELEASED_PROGRAMS[name] for name in programs},
        settings={**fit_settings(settings).as_dict(), "precision": settings.precision, **chosen_by},
    )


def _is_published(store: ObjectStore, name: str, record: TrainingRecord | None) -> bool:
    """Whether the bundle that a record names is in the store, whole: what serves nobody may have been collected."""
    if record is None or record.version is None:
        return False
    try:
        manifest = read_manifest(store, name, record.version, digest=record.manifest)
        for file in manifest.files:
            store.head(model_key(name, record.version, file))
    except (ModelNotFound, BundleCorrupt, ObjectNotFound):
        return False
    return True
