"""How the collector of garbage and those who publish keep out of each other's way, by reads and writes of the store alone.

A version that nobody names any more may be wanted again: the same data make the same version, and an operator may roll
back to it. Whoever is about to name a version first claims it, and whoever is about to delete it first gives notice:

    claim                                          collection, a tenant at a time
    1. rewrite the manifest (it is young now)      a. write the notice: which versions are to go
    2. read the notice: is it named there?         b. look again: what is named, what is young
    3. look: is all of it there?                   c. delete what is still garbage, and was in the notice
                                                   d. remove the notice

Either 1 comes before b, and the collector sees that the version is young; or a came before 2, and the claim sees the
notice, unless d came before 2 as well: then the deleting is over, and 3 sees what it left. So a claim that succeeds is
of a version that is whole and stays so: for a day because it is young, and afterwards if the fleet names it by then. This
needs neither a lock nor a conditional delete, which most buckets do not have, nor that two machines agree on the time.

What it needs is that a collector stops deleting within the hour after which another one takes its notice for one of a
process that died: it looks at the clock before each request. In a folder or a bucket with versions not even that: there, only
what was seen by b is deleted, whatever took its name since.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from registry.documents import Document
from registry.errors import ModelNotFound, ObjectNotFound, PreconditionFailed, StoreError, StoreUnavailable
from registry.layout import MANIFEST, collecting_key, model_key
from registry.model.bundle import Manifest
from registry.models import read_manifest
from registry.store import ObjectStore

# A collector that has not finished a tenant by then gives up; one that finds an older notice takes the tenant over.
NOTICE_SECONDS = 900.0
STALE_SECONDS = 3600.0
_MAX_BYTES = 1024 * 1024


class Notice(Document):
    """Versions of a tenant that are about to be deleted.

    Attributes:
        collector: who is about to.
    """

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    collector: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    versions: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")], ...]


def claim(store: ObjectStore, manifest: Manifest, *, young: bool = False) -> bool:
    """Have a version that was published stay: for a day, and as long as the fleet names it.

    Args:
        young: its manifest has just been written.

    Returns:
        False when it is being deleted, or is not whole: it has to be published once more.
    """
    tenant, version = manifest.tenant, manifest.version
    if not young:
        store.put(model_key(tenant, version, MANIFEST), manifest.to_bytes())
    notice = _find(store, tenant)
    if notice is not None and version in notice[0].versions:
        return False
    sizes = {MANIFEST: len(manifest.to_bytes())} | {name: file.size for name, file in manifest.files.items()}
    there = {info.key: info.size for info in store.list(model_key(tenant, version, ""))}
    return all(there.get(model_key(tenant, version, name)) == size for name, size in sizes.items())


def claim_version(store: ObjectStore, tenant: str, version: str) -> None:
    """Have a version that lies in the store stay there, before the fleet names it (again).

    Whatever puts a version into the fleet that is neither in it nor just published calls this first.

    Raises:
        ModelNotFound: the store does not have it, or not whole, or is about to have it no longer.
        BundleCorrupt: it is not what its name says.
    """
    if not claim(store, read_manifest(store, tenant, version, digest=None)):
        raise ModelNotFound(
            f"version {version} of tenant {tenant} is not whole in {store.url}, or is being deleted as garbage",
            remedy="Choose another version, or train the tenant again.",
        )


class Announcement:
    """A notice that stands.

    Attributes:
        versions: what may be deleted under it; greater than what was asked for where a dead collector left off.
    """

    def __init__(self, versions: frozenset[str], *, until: float, clock: Callable[[], float]) -> None:
        self.versions = versions
        self._until = until
        self._clock = clock

    def check(self) -> None:
        """Return while there is time left to delete something. Raises StoreUnavailable."""
        if self._clock() >= self._until:
            raise StoreUnavailable(
                "the store took too long over the garbage of one tenant; nothing more of it was deleted",
                remedy="Run it again.",
            )


@contextmanager
def announced(
    store: ObjectStore, tenant: str, versions: Iterable[str], *, now: Callable[[], float]
) -> Iterator[Announcement | None]:
    """Give notice that versions are about to be deleted, for as long as the context lasts.

    Args:
        now: the time by the store's clock.

    Returns:
        None where another collector is at work on the tenant.

    Raises:
        StoreUnavailable: the time was up; the notice stays, and a later collector finishes.
    """
    key = collecting_key(tenant)
    began = now()
    found = _find(store, tenant)
    if found is not None and not _is_stale(store, key, began):
        yield None
        return
    left_over = frozenset(found[0].versions) if found else frozenset()
    notice = Notice(collector=uuid.uuid4().hex, versions=tuple(sorted({*versions, *left_over})))
    try:
        store.put(key, notice.to_bytes(), if_match=found[1] if found else None, if_absent=found is None)
    except PreconditionFailed:
        # Our own write perhaps, whose answer was lost.
        now_there = _find(store, tenant)
        if now_there is None or now_there[0] != notice:
            yield None
            return
    standing = Announcement(frozenset(notice.versions), until=began + NOTICE_SECONDS, clock=now)
    yield standing
    # Not where something failed, or the time is up: the notice might be another's by then, and readers of it must wait.
    standing.check()
    store.purge(list(store.states(key)))


def _is_stale(store: ObjectStore, key: str, now: float) -> bool:
    return all(now - state.modified > STALE_SECONDS for state in store.states(key) if state.kind == "current")


def _find(store: ObjectStore, tenant: str) -> tuple[Notice, str] | None:
    key = collecting_key(tenant)
    try:
        found = store.get(key, max_bytes=_MAX_BYTES)
    except ObjectNotFound:
        return None
    return Notice.parse(found.data, what=f"{store.url}/{key}", error=StoreError), found.etag
