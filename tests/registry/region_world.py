"""What the tests of regions share: two stores, tenants whose models are a few bytes, and what a reader has to find."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from registry.catalogue import Macro, make_catalogue, read_catalogue, write_catalogue
from registry.deletion.places import FleetPlace, forget_own
from registry.deletion.tombstones import bury, lift
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.layout import MANIFEST, PROGRAM_FILES, catalogue_key, model_key, program_key
from registry.model.bundle import Manifest, parse_manifest
from registry.model.program import parse_program_files, publish_program
from registry.publishing import publish_bundle
from registry.store import ObjectInfo, ObjectState, ObjectStore, StoredObject
from tests.registry.memory_store import Killed, MemoryStore
from tests.registry.tiny_models import bundle

TENANTS = ("acme", "beta", "gamma")


@cache
def program() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="macrofleet-test-"))
    (folder / "program.json").write_bytes(b"{}")
    (folder / "saved_model.pb").write_bytes(b"a program, for all that a store knows")
    return folder


@cache
def digest_of_program() -> str:
    return publish_program(MemoryStore(versioned=False), program())


def made(tenant: str, number: int) -> tuple[Path, Manifest]:
    """The folder and the manifest of one of a tenant's models."""
    return bundle(tenant, number, digest_of_program())


def a_store(name: str, *, versioned: bool = False) -> MemoryStore:
    store = MemoryStore(versioned=versioned)
    store.url = f"memory://{name}"
    return store


# What becomes of a home store


def serve(store: ObjectStore, tenant: str, number: int) -> None:
    """Publish a model and have the fleet serve it, after the catalogue, as training does."""
    publish_program(store, program())
    if read_catalogue(store, tenant) is None:
        rename(store, tenant, 0)
    folder, manifest = made(tenant, number)
    publish_bundle(store, folder, tenant=tenant)
    update_fleet(store, {tenant: lambda entry: (entry or FleetEntry()).published(manifest.version, manifest.digest)})


def rename(store: ObjectStore, tenant: str, number: int) -> None:
    """Change a tenant's catalogue."""
    found = read_catalogue(store, tenant)
    catalogue = make_catalogue([Macro(id="m0", title=f"Macro {number}"), Macro(id="m1", title="One")])
    write_catalogue(store, tenant, catalogue, etag=found[1] if found else None)


def delete(store: ObjectStore, tenant: str) -> None:
    """Delete a tenant, in the order of `registry.deletion.deleting`."""
    bury(store, tenant, token=1)
    FleetPlace(store).remove(tenant)
    forget_own(store, tenant)


def bring_back(store: ObjectStore, tenant: str) -> None:
    lift(store, tenant)
    serve(store, tenant, 7)


# What a reader finds


def complaints(store: ObjectStore) -> list[str]:
    """What a server would miss that reads the fleet now."""
    missing = []
    for tenant, entry in read_fleet(store).serving().items():
        assert entry.version
        try:
            data = store.get(model_key(tenant, entry.version, MANIFEST)).data
            manifest = parse_manifest(data, tenant=tenant, digest=entry.manifest, what="manifest")
            for name, file in manifest.files.items():
                assert store.head(model_key(tenant, entry.version, name)).size == file.size
            store.get(catalogue_key(tenant))
            listing = store.get(program_key(manifest.program, PROGRAM_FILES)).data
            for name in parse_program_files(listing, digest=manifest.program, what="program").files:
                store.head(program_key(manifest.program, name))
        except Exception as problem:  # noqa: BLE001  # whatever it is, it is missed
            missing.append(f"{tenant}: {problem!r}")
    return missing


def traces(store: MemoryStore, tenant: str) -> list[str]:
    """Objects that have a tenant's name in their key or content, in any version that is kept."""
    name = tenant.encode()
    return [
        key
        for key, kept in store._kept.items()
        if name in key.encode() or any(name in (one.data or b"") for one in kept)
    ]


class Watched:
    """A store that tells of every request: before one that reads, before and after one that writes.

    Args:
        asked: told before each request.
        wrote: told after each that changed something.
        dies: at which write the process ends: before it, or after it took effect.
    """

    def __init__(
        self,
        store: MemoryStore,
        *,
        asked: Callable[[], None] = lambda: None,
        wrote: Callable[[], None] = lambda: None,
        dies: tuple[int, bool] | None = None,
    ) -> None:
        self.url = store.url
        self.writes = 0
        self._store = store
        self._asked = asked
        self._wrote = wrote
        self._dies = dies

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self._asked()
        return self._store.get(key)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        self._asked()
        return self._store.get_if_changed(key, etag)

    def open(self, key: str) -> IO[bytes]:
        self._asked()
        return self._store.open(key)

    def head(self, key: str) -> ObjectInfo:
        self._asked()
        return self._store.head(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._asked()
        return self._store.list(prefix)

    def names(self, prefix: str = "") -> Sequence[str]:
        self._asked()
        return self._store.names(prefix)

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        self._asked()
        return self._store.states(prefix)

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        with _Write(self):
            return self._store.put(key, data, if_match=if_match, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        return self.put(key, path.read_bytes(), if_absent=if_absent)

    def delete(self, key: str) -> None:
        with _Write(self):
            self._store.delete(key)

    def purge(self, states: Iterable[ObjectState]) -> None:
        for state in list(states):  # one after the other: a crash may come in between
            with _Write(self):
                self._store.purge([state])


class _Write:
    def __init__(self, store: Watched) -> None:
        self._to = store

    def __enter__(self) -> None:
        self._to._asked()
        self._to.writes += 1
        if self._to._dies == (self._to.writes, False):
            raise Killed

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._to._wrote()
            if self._to._dies == (self._to.writes, True):
                raise Killed
