"""What a tenant wants of its training and its suggestions, where that is not what everybody gets: one small object a tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from registry.conditional import put_over
from registry.deletion.tombstones import unless_deleted
from registry.documents import Document
from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, PublishConflict, TenantNotFound
from registry.fleet.state import edit_fleet
from registry.layout import catalogue_key, examples_key, tenant_settings_key
from registry.names import check_tenant
from registry.store import ObjectStore
from registry.suggestion_rules import MAX_SETTINGS_BYTES, ExcludedMacros, Groups

_ATTEMPTS = 8

ProgramChoice: TypeAlias = Literal["auto", "bag", "encoder"]
Weights: TypeAlias = Literal["float32", "int8"]
Promotion: TypeAlias = Literal["auto", "manual", "shadow"]
Precision: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
Months: TypeAlias = Annotated[int, Field(ge=1, le=1200)]
Days: TypeAlias = Annotated[int, Field(ge=1, le=36_500)]
Acceptance: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class TenantSettings(Document):
    """A tenant's own settings. None takes the training run's, or for suggestions: no such rule.

    A field that is not known is refused: a setting that nobody follows would be worse than an error.

    Attributes:
        program: the program its models are fitted for; `auto` takes the one that does best on its validation rows.
        precision: how often one of the three macros shown shall be right; a model abstains where it is less sure.
        weights: the type of most of a model's weights; int8 is a quarter of the size.
        least_tickets, least_macros, months: so many tickets with a shared macro in so many months, and so many macros
            used in them, are needed for a model.
        keep_months: tickets and feedback are removed when they are so old (`training.lake_retention`).
        retrain_after_days: train again after so long, although nothing changed.
        least_acceptance: train again where agents apply one of the macros shown less often than this; 0 is never.
        promotion: whether what passes the gate serves at once (`auto`), waits for a person (`manual`), or is compared on
            live traffic first (`shadow`).
        exclude_macros: ids of macros that are never suggested; servers follow it within their `catalogue_seconds`.
        off_groups: ids of groups: whoever is in one of them gets no suggestions.
    """

    program: ProgramChoice | None = None
    precision: Precision | None = None
    weights: Weights | None = None
    least_tickets: Count | None = None
    least_macros: Count | None = None
    months: Months | None = None
    keep_months: Months | None = None
    retrain_after_days: Days | None = None
    least_acceptance: Acceptance | None = None
    promotion: Promotion | None = None
    exclude_macros: ExcludedMacros | None = None
    off_groups: Groups | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsEdit:
    """What an edit found and what it left."""

    before: TenantSettings
    after: TenantSettings


def read_tenant_settings(store: ObjectStore, tenant: str) -> TenantSettings:
    """A tenant's own settings; none are set where it has no such object.

    Raises:
        InvalidInput: the object is not such a document; says which field.
    """
    return _read(store, tenant)[0]


def edit_tenant_settings(
    store: ObjectStore, tenants: Sequence[str], changes: Mapping[str, object]
) -> dict[str, SettingsEdit]:
    """Change some settings of tenants (None: no longer their own); the others stay, those of another writer too.

    Nothing is written where nothing differs, and nothing at all where something is wrong for one of them.

    Raises:
        InvalidInput: a setting that there is not, a value that it cannot have, or settings that cannot be read.
        TenantNotFound: nobody knows one of the tenants.
        TenantDeleted: one was deleted meanwhile; nothing of what was set is left.
        PublishConflict: other writers kept winning.
    """
    update = _validated(changes)
    for tenant in tenants:
        check_known(store, tenant)
        read_tenant_settings(store, tenant)
    return {tenant: _edit(store, tenant, update) for tenant in dict.fromkeys(tenants)}


def _edit(store: ObjectStore, tenant: str, update: Mapping[str, Any]) -> SettingsEdit:
    key = tenant_settings_key(tenant)
    for _ in range(_ATTEMPTS):
        before, etag = _read(store, tenant)
        after = before.model_copy(update=update)
        edit = SettingsEdit(before=before, after=after)
        if after == before:
            return edit
        with suppress(PreconditionFailed):
            with unless_deleted(store, tenant, lambda: store.purge(list(store.states(key)))):
                put_over(store, key, after.to_bytes(), etag=etag)
            return edit
    raise PublishConflict(f"the settings of tenant {tenant} kept changing under this writer", remedy="Run it again.")


def check_known(store: ObjectStore, tenant: str) -> None:
    """Raises TenantNotFound for a tenant that has no tickets, no catalogue and no entry in the fleet."""
    check_tenant(tenant)
    for key in (examples_key(tenant), catalogue_key(tenant)):
        with suppress(ObjectNotFound):
            store.head(key)
            return
    if edit_fleet(store, [tenant], lambda found: found, write=False).before[tenant] is None:
        raise TenantNotFound(
            f"tenant {tenant} has no tickets and no macros in {store.url}",
            remedy="Check the name, or import its tickets: macrofleet tickets import.",
        )


def _validated(changes: Mapping[str, object]) -> dict[str, Any]:
    try:
        checked = TenantSettings.model_validate(dict(changes))
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InvalidInput(
            f"the setting {first['loc'][0]} cannot be used: {first['msg']}",
            remedy="`macrofleet tenants set --help` says what each may be.",
        ) from None
    return {name: getattr(checked, name) for name in changes}


def _read(store: ObjectStore, tenant: str) -> tuple[TenantSettings, str | None]:
    key = tenant_settings_key(tenant)
    try:
        found = store.get(key, max_bytes=MAX_SETTINGS_BYTES)
    except ObjectNotFound:
        return TenantSettings(), None
    return TenantSettings.parse(found.data, what=f"{store.url}/{key}", error=InvalidInput), found.etag
