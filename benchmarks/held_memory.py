"""What operations hold in memory for a large fleet: `python -m benchmarks.held_memory keys|backup|verify [N]`.

Made-up keys and listings, of which nothing is held here; prints a JSON object. The figures are in
docs/access.md, docs/operations.md and docs/verify.md.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from registry.backup.backups import take_backup
from registry.backup.documents import BackedUp
from registry.backup.lists import ListWriter
from registry.errors import ObjectNotFound
from registry.files import ContentDigest
from registry.keys.published import PublishedKey, PublishedKeys
from registry.layout import ACCESS_KEYS, LABELS, MANIFEST, PROVENANCE, WEIGHTS, catalogue_key, model_key
from registry.store import ObjectInfo, ObjectStore
from registry.store.local import LocalStore
from registry.verify.stored import Listings

_FILES = sorted((WEIGHTS, LABELS, MANIFEST, PROVENANCE))
_VERSIONS = 3
_NEXT_LOOK_SECONDS = 0.001


def keys(count: int, folder: Path) -> dict[str, Any]:
    """A document of so many keys: making it, and what a server takes to read it, keeps of it, and is held up by."""
    from serving.access import PublishedAccess

    began = time.process_time()
    made = tuple(
        PublishedKey(
            prefix=_digest(n)[:10], digest=_digest(n), tenant=f"tenant-{n // 2:06d}", scopes=("suggest", "feedback")
        )
        for n in range(count)
    )
    data = PublishedKeys(source="0" * 32, generation=1, keys=made).to_bytes()
    making = time.process_time() - began
    store = LocalStore(folder)
    store.put(ACCESS_KEYS, data)
    size = len(data)
    del made, data
    gc.collect()
    gc.freeze()  # as servers do
    access, late, over = PublishedAccess(store, poll_seconds=1, stale_seconds=1), [0.0], threading.Event()

    def look() -> None:
        last = time.perf_counter()
        while not over.wait(_NEXT_LOOK_SECONDS):
            last, before = time.perf_counter(), last
            late.append(last - before - _NEXT_LOOK_SECONDS)

    watching = threading.Thread(target=look)
    watching.start()
    began = time.thread_time()
    access._reader.refresh()
    reading = time.thread_time() - began
    over.set()
    watching.join()
    held, peak = _traced(PublishedAccess(store, poll_seconds=1, stale_seconds=1)._reader.refresh)
    return {
        "keys": count,
        "document_bytes": size,
        "make_seconds": round(making, 2),
        "read_seconds": round(reading, 2),
        "others_late_ms": [round(1000 * one, 1) for one in sorted(late)[-3:]],
        "held_bytes_per_key": round(held / count),
        "peak_bytes": peak,
    }


def backup(count: int, folder: Path) -> dict[str, Any]:
    """A backup of so many objects, all of which the last one has."""
    place = LocalStore(folder / "place")
    writer = ListWriter(folder)
    with writer.opened():
        for info in _Listed(count).list():
            content = ContentDigest(sha256=_digest(hash(info.key)), size=info.size)
            writer.add(info.key, BackedUp(content=content, etag=info.etag))
    writer.publish(place, "20260101T000000Z", source="s", generation=0, databases={})
    (there,) = place.list("backups/")

    def take() -> object:
        store = cast("ObjectStore", _Listed(count))
        return take_backup(store, place, dump_keys=lambda _: False, dump_tracking=lambda _: False, threads=2)

    _, peak = _traced(take)
    return {
        "objects": count,
        "peak_bytes": peak,
        "peak_bytes_per_object": round(peak / count),
        "at_rest_bytes_per_object": round(there.size / count, 1),
    }


def verify(count: int, _folder: Path) -> dict[str, Any]:
    """A listing of so many objects, three versions a tenant."""
    tenants = count // (1 + _VERSIONS * len(_FILES))

    def listing() -> Iterator[ObjectInfo]:
        for n in range(tenants):
            tenant = f"tenant-{n:06d}"
            yield ObjectInfo(key=catalogue_key(tenant), size=1, etag="")
            for version in sorted(_digest(f"{n}-{place}")[:16] for place in range(_VERSIONS)):
                for name in _FILES:
                    yield ObjectInfo(key=model_key(tenant, version, name), size=10_000_000, etag="")

    held, peak = _traced(lambda: {tenant: stored for tenant, stored, _ in Listings().by_tenant(listing())})
    return {"objects": count, "held_bytes_per_object": round(held / count), "peak_bytes": peak}


class _Listed:
    """As much of a store as a backup asks of one in which nothing has changed."""

    url = "memory://listed"

    def __init__(self, count: int) -> None:
        self._count = count

    def list(self, _prefix: str = "") -> Iterator[ObjectInfo]:
        for n in range(self._count):
            key = (
                f"lake/tenants/tenant-{n // 30:06d}/feedback/2026-11-{n % 30 + 1:02d}/packed-{_digest(n)[:32]}.jsonl.gz"
            )
            yield ObjectInfo(key=key, size=1, etag=_digest(key)[:32])

    def get(self, key: str, *, max_bytes: int | None = None) -> Any:  # noqa: ARG002  # there is no fleet
        raise ObjectNotFound(key)


def _traced(work: Callable[[], object]) -> tuple[int, int]:
    """Bytes that are held after some work by what it returns, and at most meanwhile."""
    gc.collect()
    tracemalloc.start()
    kept = work()
    found = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return found


def _digest(what: object) -> str:
    return hashlib.sha256(str(what).encode()).hexdigest()


if __name__ == "__main__":
    measured = {"keys": (keys, 400_000), "backup": (backup, 200_000), "verify": (verify, 200_000)}
    measure, usual = measured[sys.argv[1]]
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(json.dumps(measure(int(sys.argv[2]) if len(sys.argv) > 2 else usual, Path(scratch))) + "\n")
