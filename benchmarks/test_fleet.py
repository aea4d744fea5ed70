"""What keeping to the fleet costs; run with `make bench`."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.fleets import tenant_names
from benchmarks.interleaving import Interleaved
from registry.documents import sha256
from registry.fleet.state import FleetEntry, FleetReader, update_fleet
from registry.leases import Leases
from registry.store.local import LocalStore
from serving.engine.cache import ModelCache
from serving.engine.traffic import Traffic
from serving.fleet_watch import FleetWatch, ModelRef
from serving.threads import Workers

TENANTS = 10_000
LOADED = 1_000
_ROUNDS = 20


def test_fleet_diff(compared: Interleaved, tmp_path: Path, deaf: Any) -> None:
    """One of 10,000 tenants has another version: reading that, and finding which of 1,000 models in memory are outdated."""
    store = LocalStore(tmp_path)
    names = tenant_names(TENANTS)
    update_fleet(store, {name: (lambda _: _entry("first")) for name in names})
    version = count()

    def change_one() -> None:
        after = _entry(f"version {next(version)}")
        update_fleet(store, {names[0]: lambda _: after})

    with asyncio.Runner() as runner:
        watch = runner.run(_watch(store))
        cache = runner.run(_loaded(watch, names[:LOADED], deaf))

        def follow() -> None:
            runner.run(_refreshed(watch))
            assert cache.outdated() == names[:1]

        change_one()
        follow()
        compared(follow, beside="loop", rounds=_ROUNDS, prepare=change_one)


def test_lease_to_train(compared: Interleaved, tmp_path: Path) -> None:
    """A tenant's lease in the store taken, renewed and released: what every training of it does around its work."""
    leases = Leases(LocalStore(tmp_path), holder="a benchmark")

    def lease() -> None:
        held = leases.take("acme")
        held.check()
        held.renew()
        held.release()

    compared(lease, beside="sync")


def _entry(version: str) -> FleetEntry:
    manifest = sha256(version.encode())
    return FleetEntry(version=manifest[:16], manifest=manifest)


async def _watch(store: LocalStore) -> FleetWatch:
    watch = FleetWatch(FleetReader(store), workers=Workers("files", 1), poll_seconds=3600)
    await watch.refresh()
    return watch


async def _refreshed(watch: FleetWatch) -> None:
    await watch.refresh()


async def _loaded(watch: FleetWatch, tenants: list[str], deaf: Any) -> ModelCache[SimpleNamespace]:
    """A cache with a model of each of these tenants, of the version that the fleet names now."""

    async def load(ref: ModelRef, *, demand: bool) -> SimpleNamespace:  # noqa: ARG001  # the cache's
        return SimpleNamespace(nbytes=1)

    cache: ModelCache[SimpleNamespace] = ModelCache(
        wanted=watch.wanted,
        load=load,
        budget_bytes=1 << 40,
        traffic=Traffic(),
        pinned=watch.is_pinned,
        observer=deaf,
    )
    for tenant in tenants:
        with await cache.lease(tenant):
            pass
    return cache
