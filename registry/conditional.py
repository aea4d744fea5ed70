"""Writing an object over the one that was read, and only over that one."""

from __future__ import annotations

from contextlib import suppress

from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed
from registry.store import ObjectStore


def put_over(store: ObjectStore, key: str, data: bytes, *, etag: str | None) -> str:
    """Write over the object with `etag` (None: where none is) and return the new entity tag.

    Finding the same content there is success: one's own retry, or a writer who wanted the same.

    Raises:
        PreconditionFailed: another writer changed it meanwhile.
    """
    try:
        return store.put(key, data, if_match=etag, if_absent=etag is None)
    except PreconditionFailed:
        # An object longer than ours is not ours, and InvalidInput; one that is gone was deleted by another writer.
        with suppress(ObjectNotFound, InvalidInput):
            found = store.get(key, max_bytes=len(data))
            if found.data == data:
                return found.etag
        raise
