"""What an operator does to the fleet: pin, limit, preload, roll back, promote, shadow. Every edit is one write for all named.

Doing the same again changes nothing. What cannot be done for one tenant is done for none, and the error names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, cast, get_args

from pydantic import ValidationError

from registry.errors import BundleCorrupt, InvalidInput, MacrofleetError, ModelNotFound, PublishConflict, TenantNotFound
from registry.fleet.state import (
    MAX_HOLDBACK,
    UNSET,
    Fleet,
    FleetEdit,
    FleetEntry,
    PreloadPlan,
    TenantLimits,
    Unset,
    edit_fleet,
    in_threads,
)
from registry.garbage.collecting import claim_version
from registry.models import read_manifest
from registry.names import check_tenant
from registry.store import ObjectStore

_NAMED = 10
_VERSION = re.compile(r"[0-9a-f]{16}")
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*(|b|kb|mb|gb|tb|kib|mib|gib|tib)", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "b": 1} | {f"{letter}b": 1000 ** (i + 1) for i, letter in enumerate("kmgt")}
_UNITS |= {f"{letter}ib": 1024 ** (i + 1) for i, letter in enumerate("kmgt")}
_MOST = 2**63 - 1
_PLAN_REMEDY = "It is one of: all, pinned, share, none, top N, bytes SIZE."

_Models = Literal["all", "pinned", "top", "bytes", "share", "none"]
_Entry = Callable[[FleetEntry], FleetEntry]


def select(store: ObjectStore, fleet: Fleet, tenants: Sequence[str]) -> dict[str, FleetEntry]:
    """The entries of these tenants, in this order. Raises TenantNotFound, naming all that the fleet does not have."""
    return _known(store, {tenant: fleet.entries.get(tenant) for tenant in _names(tenants)})


def pin(store: ObjectStore, tenants: Sequence[str], *, pinned: bool = True, write: bool = True) -> FleetEdit:
    """Keep tenants' models loaded everywhere (`pinned`), or no longer.

    Args:
        write: False only says what would be written; here and below.

    Raises:
        TenantNotFound: one is not in the fleet.
    """
    return _edit(store, tenants, lambda entry: entry.model_copy(update={"keep_loaded": pinned}), write=write)


def limit(
    store: ObjectStore,
    tenants: Sequence[str],
    *,
    concurrency: int | Unset = UNSET,
    requests_per_second: float | Unset = UNSET,
    write: bool = True,
) -> FleetEdit:
    """Set what tenants may use of each replica; a limit that is not given stays as it is.

    Raises:
        InvalidInput: no limit given, or one out of bounds.
        TenantNotFound: one is not in the fleet.
    """
    given = {"concurrency": concurrency, "requests_per_second": requests_per_second}
    update = {name: value for name, value in given.items() if not isinstance(value, Unset)}
    if not update:
        raise InvalidInput("no limit is given", remedy="Give --concurrency, --requests-per-second, or --none.")
    try:
        TenantLimits.model_validate(update)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InvalidInput(f"the limit {first['loc'][0]} cannot be used: {first['msg']}") from None

    def limited(entry: FleetEntry) -> FleetEntry:
        limits = (entry.limits or TenantLimits()).model_copy(update=update)
        return entry.model_copy(update={"limits": limits})

    return _edit(store, tenants, limited, write=write)


def unlimit(store: ObjectStore, tenants: Sequence[str], *, write: bool = True) -> FleetEdit:
    """Take tenants' own limits away: each replica's settings hold again. Raises TenantNotFound."""
    return _edit(store, tenants, lambda entry: entry.model_copy(update={"limits": None}), write=write)


def hold_back(store: ObjectStore, tenants: Sequence[str], share: float | None, *, write: bool = True) -> FleetEdit:
    """Set of which share of their views with something to show tenants see nothing; None leaves it to each replica.

    Raises:
        InvalidInput: no such share.
        TenantNotFound: one is not in the fleet.
    """
    if share is not None and not 0 <= share <= MAX_HOLDBACK:
        raise InvalidInput(
            f"{share:g} is not a share of views that can be held back",
            remedy=f"Give 0 to {MAX_HOLDBACK:g}; 0.03 is usual.",
        )
    return _edit(store, tenants, lambda entry: entry.model_copy(update={"holdback": share}), write=write)


def set_preload(store: ObjectStore, plan: PreloadPlan | None, *, write: bool = True) -> FleetEdit:
    """Set the preload plan of every replica; None leaves it to each replica's settings."""
    return edit_fleet(store, (), lambda found: found, preload=plan, write=write)


def roll_back(store: ObjectStore, tenants: Sequence[str], *, to: str | None = None, write: bool = True) -> FleetEdit:
    """Serve tenants' previous versions again, and hold them, so that the next training run does not undo it.

    What served becomes the previous version. A tenant that is held already stays as it is, so that a second run does
    not undo the first. The store is asked whether the version is there and is the tenant's before anything is written.

    Args:
        to: a version of the one tenant named, instead of the previous one; also where a version is held.

    Raises:
        InvalidInput: `to` is not a version, or stands with several tenants.
        TenantNotFound: one is not in the fleet.
        ModelNotFound: one has no previous version, or the store does not have it.
        BundleCorrupt: the version in the store is not what its name, its tenant or the fleet says it is.
        PublishConflict: another version was published meanwhile.
    """
    names = _names(tenants)
    _check_version(names, to, option="--to")
    found = _known(store, edit_fleet(store, names, lambda entries: entries, write=False).before)
    targets = _all_or_none(
        lambda tenant, entry: _target(store, tenant, entry, to), found, "cannot be rolled back", remedy="Roll back"
    )
    if write and to is not None and to not in {entry.version for entry in found.values()}:
        # A version that no fleet names may be garbage, and about to go.
        claim_version(store, names[0], to)

    def back(tenant: str, entry: FleetEntry) -> FleetEntry:
        version, manifest = targets[tenant]
        # One's own success, found again after its answer was lost, is not undone; neither is what came in between.
        if to is None and entry.version not in {version, found[tenant].version}:
            raise PublishConflict(
                f"tenant {tenant} was given version {entry.version} meanwhile; nothing was written",
                remedy="Look at it with `macrofleet fleet show`, and roll back again if it shall go too.",
            )
        return entry.with_version(version, manifest).model_copy(update={"hold_version": True})

    def edit(entries: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
        return {tenant: back(tenant, entry) for tenant, entry in _known(store, entries).items()}

    return edit_fleet(store, names, edit, write=write)


def release(store: ObjectStore, tenants: Sequence[str], *, write: bool = True) -> FleetEdit:
    """Lift the hold of a roll-back: what serves stays, until the next training run. Raises TenantNotFound."""
    return _edit(store, tenants, lambda entry: entry.model_copy(update={"hold_version": False}), write=write)


def promote(store: ObjectStore, tenants: Sequence[str], *, version: str | None = None, write: bool = True) -> FleetEdit:
    """Have what waits as a candidate or runs as a shadow serve; what served becomes the previous version.

    A hold is lifted: whoever promotes has looked. The store is asked whether the version is there before anything is written.

    Args:
        version: which one, of the one tenant named; needed where candidate and shadow differ. One that serves already
            changes nothing.

    Raises:
        InvalidInput: `version` is not a version, or stands with several tenants; candidate and shadow differ.
        TenantNotFound: one is not in the fleet.
        ModelNotFound: nothing waits, or not that version, or the store does not have it.
        BundleCorrupt: the version in the store is not what its name, its tenant or the fleet says it is.
        PublishConflict: another candidate or shadow took its place meanwhile.
    """
    names = _names(tenants)
    _check_version(names, version, option="--version")
    found = _known(store, edit_fleet(store, names, lambda entries: entries, write=False).before)
    targets = _all_or_none(
        lambda tenant, entry: _waiting(store, tenant, entry, version), found, "cannot be promoted", remedy="Promote"
    )

    def forward(tenant: str, entry: FleetEntry) -> FleetEntry:
        wanted, manifest = targets[tenant]
        if entry.version == wanted:
            return entry
        if wanted not in {entry.candidate, entry.shadow}:
            raise PublishConflict(
                f"version {wanted} of tenant {tenant} does not wait any more; nothing was written",
                remedy="Look at what does with `macrofleet fleet show`, and promote again.",
            )
        return entry.with_version(wanted, manifest).model_copy(update={"hold_version": False})

    def edit(entries: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
        return {tenant: forward(tenant, entry) for tenant, entry in _known(store, entries).items()}

    return edit_fleet(store, names, edit, write=write)


def set_shadow(store: ObjectStore, tenant: str, version: str, *, write: bool = True) -> FleetEdit:
    """Have a version of a tenant compared with the one that serves, without being shown.

    Raises:
        InvalidInput: `version` is not a version, or is the one that serves.
        TenantNotFound: it is not in the fleet.
        ModelNotFound: the tenant serves nothing to compare with, or the store does not have the version.
        BundleCorrupt: the version in the store is not what its name or its tenant says it is.
    """
    names = _names([tenant])
    _check_version(names, version, option="--version")
    (entry,) = _known(store, edit_fleet(store, names, lambda entries: entries, write=False).before).values()
    known = entry.shadow_manifest if version == entry.shadow else None
    manifest = read_manifest(store, tenant, version, digest=known).digest

    def beside(entry: FleetEntry) -> FleetEntry:
        if not entry.serves:
            raise ModelNotFound(
                f"tenant {tenant} serves nothing that a shadow could be compared with",
                remedy="Promote a version first: macrofleet fleet promote.",
            )
        if entry.version == version:
            raise InvalidInput(f"version {version} of tenant {tenant} serves already", remedy="Name another one.")
        return entry.model_copy(update={"shadow": version, "shadow_manifest": manifest})

    after = beside(entry)
    if write and after != entry and version not in {entry.previous, entry.candidate}:
        # As for a roll-back: what no fleet names may be about to go.
        claim_version(store, tenant, version)
    return _edit(store, names, beside, write=write)


def stop_shadow(store: ObjectStore, tenants: Sequence[str], *, write: bool = True) -> FleetEdit:
    """End comparisons; what serves stays. Raises TenantNotFound."""
    none = {"shadow": None, "shadow_manifest": None}
    return _edit(store, tenants, lambda entry: entry.model_copy(update=none), write=write)


def make_plan(models: str, bound: str | None = None) -> PreloadPlan:
    """A preload plan from words: `all`, `pinned`, `share`, `none`, `top` with a number, `bytes` with a size (`8GiB`).

    Raises:
        InvalidInput: anything else.
    """
    if models not in get_args(_Models):
        raise InvalidInput(f"{models[:80]!r} is not a preload plan", remedy=_PLAN_REMEDY)
    if (bound is not None) != (models in {"top", "bytes"}):
        lack = "needs a number" if bound is None else f"takes no {bound[:80]!r}"
        raise InvalidInput(f"the preload plan {models} {lack}", remedy=_PLAN_REMEDY)
    if bound is None:
        return PreloadPlan(models=cast(_Models, models))
    if models == "bytes":
        return PreloadPlan(models="bytes", bytes=parse_size(bound))
    if not (bound.isascii() and bound.isdecimal() and len(bound) < 10 and int(bound) > 0):
        raise InvalidInput(f"{bound[:80]!r} is not a number of tenants", remedy="Write: top 100.")
    return PreloadPlan(models="top", top=int(bound))


def parse_size(text: str) -> int:
    """A number of bytes from `8GiB`, `500MB` or plain digits (kB to TB count by 1000, KiB to TiB by 1024).

    Raises:
        InvalidInput: anything else, less than one byte, or more than any disk has.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(Decimal(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if not 1 <= size <= _MOST:
        raise InvalidInput(f"{text[:80]!r} is not a size", remedy="Write 8GiB, 500MB or a number of bytes.")
    return size


def _edit(store: ObjectStore, tenants: Sequence[str], change: _Entry, *, write: bool) -> FleetEdit:
    def edit(entries: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
        return {tenant: change(entry) for tenant, entry in _known(store, entries).items()}

    return edit_fleet(store, _names(tenants), edit, write=write)


def _names(tenants: Sequence[str]) -> list[str]:
    if not tenants:
        raise InvalidInput("no tenant is named", remedy="Name one or more.")
    return [check_tenant(tenant) for tenant in dict.fromkeys(tenants)]


def _known(store: ObjectStore, entries: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry]:
    found = {tenant: entry for tenant, entry in entries.items() if entry is not None}
    if len(found) < len(entries):
        raise _not_in_fleet(store, sorted(entries.keys() - found.keys()))
    return found


def _not_in_fleet(store: ObjectStore, tenants: Sequence[str]) -> TenantNotFound:
    named = ", ".join(tenants[:_NAMED]) + (f" and {len(tenants) - _NAMED} more" if len(tenants) > _NAMED else "")
    return TenantNotFound(
        f"not in the fleet of {store.url}: {named}",
        remedy="`macrofleet fleet show` lists the tenants it has.",
    )


def _target(store: ObjectStore, tenant: str, entry: FleetEntry, to: str | None) -> tuple[str, str]:
    """The version a tenant shall serve, and its manifest's digest; found in the store, unless it serves already."""
    if (
        entry.version is not None
        and entry.manifest is not None
        and (to == entry.version or (not to and entry.hold_version))
    ):
        return entry.version, entry.manifest
    version = to or entry.previous
    if version is None:
        raise ModelNotFound(
            f"tenant {tenant} has no previous version to roll back to", remedy="Name one that the store has: --to."
        )
    digest = entry.previous_manifest if version == entry.previous else None
    return version, read_manifest(store, tenant, version, digest=digest).digest


def _waiting(store: ObjectStore, tenant: str, entry: FleetEntry, version: str | None) -> tuple[str, str]:
    """The version of a tenant that is to be promoted, and its manifest's digest; found in the store."""
    if entry.version is not None and entry.manifest is not None and version == entry.version:
        return entry.version, entry.manifest
    there = {entry.candidate: entry.candidate_manifest, entry.shadow: entry.shadow_manifest}
    waiting = {each: manifest for each, manifest in there.items() if each is not None and manifest is not None}
    if version is None and len(waiting) > 1:
        raise InvalidInput(
            f"tenant {tenant} has candidate {entry.candidate} and shadow {entry.shadow}",
            remedy="Say which one: --version.",
        )
    wanted = version or next(iter(waiting), None)
    if wanted is None or wanted not in waiting:
        named = "no version" if version is None else f"not version {version}"
        raise ModelNotFound(
            f"{named} of tenant {tenant} waits to be promoted",
            remedy="`macrofleet fleet show` lists candidates and shadows; any other version: `macrofleet fleet rollback --to`.",
        )
    return wanted, read_manifest(store, tenant, wanted, digest=waiting[wanted]).digest


def _check_version(names: Sequence[str], version: str | None, *, option: str) -> None:
    if version is not None and len(names) > 1:
        raise InvalidInput(f"{option} names a version of one tenant", remedy="Do the others in a command each.")
    if version is not None and not _VERSION.fullmatch(version):
        raise InvalidInput(f"{version[:80]!r} is not a model version", remedy="A version is 16 hexadecimal digits.")


def _all_or_none(
    resolve: Callable[[str, FleetEntry], tuple[str, str]], found: Mapping[str, FleetEntry], what: str, *, remedy: str
) -> dict[str, tuple[str, str]]:
    """A version and its manifest's digest for every tenant, side by side; or one error that names all who have none."""

    def attempt(item: tuple[str, FleetEntry]) -> tuple[str, str] | MacrofleetError:
        try:
            return resolve(*item)
        except (ModelNotFound, BundleCorrupt, InvalidInput) as problem:
            return problem

    targets: dict[str, tuple[str, str]] = {}
    problems: list[MacrofleetError] = []
    for tenant, target in zip(found, in_threads(attempt, found.items()), strict=True):
        if isinstance(target, MacrofleetError):
            problems.append(target)
        else:
            targets[tenant] = target
    if len(problems) == 1:
        raise problems[0]
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise type(problems[0])(
            f"{len(problems)} tenants {what}, and nothing was written: "
            + "; ".join(problem.what for problem in problems[:_NAMED])
            + more,
            remedy=f"{remedy} the others without them.",
        )
    return targets
