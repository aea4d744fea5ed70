"""What the tests of garbage collection share: bundles of a tenant, and what becomes of them in a store in memory."""

from __future__ import annotations

from pathlib import Path

from registry.fleet.state import Change, FleetEntry, update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS, model_key, models_prefix
from registry.model.bundle import Manifest
from registry.publishing import publish_bundle
from registry.store import ObjectStore
from tests.registry.tiny_models import bundle

TENANT = "acme"
HOUR = 3600.0


def made(number: int) -> tuple[Path, Manifest]:
    """The folder and the manifest of one of the tenant's models."""
    return bundle(TENANT, number, "a" * 64)


def version(number: int) -> str:
    """The version of one of the tenant's models."""
    return made(number)[1].version


def publish(store: ObjectStore, number: int) -> str:
    """Publish one of the tenant's models; the fleet does not hear of it."""
    return publish_bundle(store, made(number)[0], tenant=TENANT).version


def serve(store: ObjectStore, number: int) -> None:
    """Have the fleet serve one of the tenant's models."""
    update_fleet(store, {TENANT: serving(number)})


def serving(number: int) -> Change:
    """The change of the fleet that has it serve one of the tenant's models."""
    manifest = made(number)[1]
    return lambda entry: (entry or FleetEntry()).published(manifest.version, manifest.digest)


def is_whole(store: ObjectStore, wanted: str) -> bool:
    """Whether all of a version is there."""
    keys = {info.key for info in store.list(models_prefix(TENANT))}
    return {model_key(TENANT, wanted, name) for name in (WEIGHTS, LABELS, MANIFEST)} <= keys


def versions(store: ObjectStore) -> set[str]:
    """The versions of which the store keeps anything."""
    return {state.key.split("/")[3] for state in store.states(models_prefix(TENANT))}
