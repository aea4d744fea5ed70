"""Notes that tenants were deleted, so that what was begun before cannot bring one back.

A training, a publisher or an import may be stopped in the middle, for hours, and go on after its tenant was deleted. A
lease keeps it from nothing that it is just about to write. So a deletion and everybody who writes for a tenant keep to this
order:

    deletion                                       whoever writes
    1. write the tombstone                         a. write
    2. look for everything, and remove it          b. read the tombstone: where it stands, remove what was written

Either a came before 2, and the deletion sees it; or 1 came before b, and the writer sees the tombstone. The fleet is
written under a condition, so there nothing has to be removed: a writer reads the tombstone after the root, and the
deletion writes the root after the tombstone, whether the tenant was in the fleet or not. A writer that is killed between
a and b leaves something for garbage collection, which removes what it finds of a tenant with a tombstone
(`registry.garbage.store_garbage`).

Whoever imports tickets wants the tenant back, and lifts the tombstone first. It stays for its token, above which later
leases start: what was begun before the deletion publishes nothing after the return either. Garbage collection forgets
tombstones after a month, when nobody goes on any more.

A tombstone holds no name, but a digest of one: whoever knows the name can find out that there was such a tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from registry.documents import Document
from registry.errors import ObjectNotFound, PreconditionFailed, PublishConflict, StoreError, TenantDeleted
from registry.layout import TOMBSTONES_PREFIX, tombstone_key
from registry.store import ObjectStore

_MAX_BYTES = 4096
_ATTEMPTS = 8


class Tombstone(Document):
    """That a tenant was deleted.

    Attributes:
        token: of the greatest lease that it had.
        stands: False once the tenant was brought back.
        deleted_at: for people.
    """

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    token: Annotated[int, Field(ge=0)] = 0
    stands: bool = True
    deleted_at: datetime


def read_tombstone(store: ObjectStore, tenant: str) -> Tombstone | None:
    """A tenant's tombstone, standing or lifted. Raises StoreError."""
    return _read(store, tombstone_key(tenant))[0]


def is_buried(store: ObjectStore, tenant: str) -> bool:
    """Whether a tenant was deleted and not brought back. Raises StoreError."""
    found = read_tombstone(store, tenant)
    return found is not None and found.stands


def buried_among(store: ObjectStore, tenants: Iterable[str]) -> frozenset[str]:
    """Those of some tenants that were deleted; one request where nobody was. Raises StoreError."""
    keys = {info.key for info in store.list(TOMBSTONES_PREFIX)}
    return frozenset(name for name in tenants if tombstone_key(name) in keys and is_buried(store, name))


def bury(store: ObjectStore, tenant: str, *, token: int) -> None:
    """Have a tombstone stand.

    Args:
        token: of the greatest lease that is known; a greater one in the tombstone stays.

    Raises:
        StoreError: it cannot be written.
    """
    now = datetime.now(UTC)

    def change(found: Tombstone | None) -> Tombstone:
        if found is None:
            return Tombstone(token=token, deleted_at=now)
        when = found.deleted_at if found.stands else now
        return found.model_copy(update={"stands": True, "token": max(token, found.token), "deleted_at": when})

    _edit(store, tombstone_key(tenant), change)


def settle(store: ObjectStore, key: str, other: Tombstone) -> None:
    """Have a tombstone count that was written elsewhere or earlier (a backup's), unless the one that is here came later.

    Which came later their tokens tell, which grow with every deletion; then when the tenant was deleted; and of one deletion
    that the tenant was brought back.

    Raises:
        StoreError: it cannot be read or written.
    """

    def change(found: Tombstone | None) -> Tombstone:
        if found is None:
            return other
        return max(found, other, key=lambda one: (one.token, one.deleted_at.timestamp(), not one.stands))

    _edit(store, key, change)


def lift(store: ObjectStore, tenant: str) -> None:
    """Have a tombstone stand no more, where there is one: somebody brings the tenant back. Raises StoreError."""
    _edit(store, tombstone_key(tenant), lambda found: found and found.model_copy(update={"stands": False}))


def refuse_deleted(store: ObjectStore, tenant: str, *, remedy: str) -> None:
    """Return where a tenant was not deleted, or was brought back.

    Raises:
        TenantDeleted: it was; `remedy` says how it may come back.
        StoreError: that cannot be read.
    """
    if is_buried(store, tenant):
        raise TenantDeleted(f"tenant {tenant} was deleted", remedy=remedy)


@contextmanager
def unless_deleted(store: ObjectStore, tenant: str, undo: Callable[[], object]) -> Iterator[None]:
    """Write for a tenant in this context; what was written is removed where the tenant was deleted meanwhile.

    Args:
        undo: removes whatever the context may have written. Doing so twice, or beside a deletion, must do no harm.

    Raises:
        TenantDeleted: it was, in place of whatever the context raised.
    """

    def look() -> None:
        if is_buried(store, tenant):
            undo()
            raise TenantDeleted(
                f"tenant {tenant} was deleted meanwhile", remedy="Import its tickets again if it is to come back."
            )

    try:
        yield
    except Exception:
        look()
        raise
    look()


def _edit(store: ObjectStore, key: str, change: Callable[[Tombstone | None], Tombstone | None]) -> None:
    for _ in range(_ATTEMPTS):
        before, etag = _read(store, key)
        after = change(before)
        if after is None or after == before:
            return
        with suppress(PreconditionFailed):
            store.put(key, after.to_bytes(), if_match=etag, if_absent=etag is None)
            return
    raise PublishConflict(f"{store.url}/{key} kept changing under this writer", remedy="Run it again.")


def _read(store: ObjectStore, key: str) -> tuple[Tombstone | None, str | None]:
    try:
        found = store.get(key, max_bytes=_MAX_BYTES)
    except ObjectNotFound:
        return None, None
    return Tombstone.parse(found.data, what=f"{store.url}/{key}", error=StoreError), found.etag
