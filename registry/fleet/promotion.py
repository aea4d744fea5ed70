"""What becomes of a fleet entry between "trained" and "serves": waiting, beside, on trial, settled, taken back. Pure.

Each of these leaves an entry as it is that it was applied to before, so that a writer may repeat itself.
"""

from __future__ import annotations

from registry.fleet.state import FleetEntry, Rollout

WAITS = "a model waits to be promoted"


def waits(entry: FleetEntry | None, version: str, manifest: str) -> FleetEntry:
    """The entry once a version waits for a person; one that serves already waits for nobody."""
    before = entry or FleetEntry()
    if before.version == version:
        return before.model_copy(update={"candidate": None, "candidate_manifest": None})
    update: dict[str, object] = {"candidate": version, "candidate_manifest": manifest}
    if not before.serves:
        update["reason"] = WAITS
    return before.model_copy(update=update)


def shadows(entry: FleetEntry | None, version: str, manifest: str) -> FleetEntry:
    """The entry once a version is to be compared with what serves. Where nothing serves it waits instead.

    An older candidate has been overtaken.
    """
    if entry is None or not entry.serves:
        return waits(entry, version, manifest)
    update: dict[str, object] = {"candidate": None, "candidate_manifest": None}
    if entry.version != version:
        update |= {"shadow": version, "shadow_manifest": manifest}
    return entry.model_copy(update=update)


def tries(entry: FleetEntry, version: str, manifest: str, *, token: int = 0) -> FleetEntry:
    """The entry once a version serves ahead of the rest of its roll-out; a hold stays stronger.

    There is no trial where nothing served before: there would be nothing to go back to.

    Args:
        token: as `FleetEntry.published` takes it.
    """
    after = entry.published(version, manifest, token=token)
    if not entry.serves or after.manifest == entry.manifest:
        return after
    trial = Rollout(
        stage="canary",
        version=version,
        manifest=manifest,
        previous=entry.previous,
        previous_manifest=entry.previous_manifest,
    )
    return after.model_copy(update={"rollout": trial})


def settles(entry: FleetEntry) -> FleetEntry:
    """The entry once its trial ended well."""
    return entry.model_copy(update={"rollout": None}) if entry.is_canary else entry


def takes_back(entry: FleetEntry) -> FleetEntry:
    """The entry once its trial was ended: as before it, with a note of the version that is not to be tried again.

    A tenant that is on no trial any more, because somebody rolled it back or published meanwhile, stays as it is; so
    does one whose version somebody holds.
    """
    trial = entry.rollout
    if trial is None or not entry.is_canary or entry.hold_version or not entry.previous or not entry.previous_manifest:
        return entry
    return entry.model_copy(
        update={
            "version": entry.previous,
            "manifest": entry.previous_manifest,
            "previous": trial.previous,
            "previous_manifest": trial.previous_manifest,
            "rollout": Rollout(stage="halted", version=trial.version, manifest=trial.manifest),
        }
    )


def was_taken_back(entry: FleetEntry | None, version: str) -> bool:
    """Whether a roll-out of this very version was halted at this tenant."""
    return (
        entry is not None
        and entry.rollout is not None
        and (entry.rollout.stage, entry.rollout.version) == ("halted", version)
    )
