"""Publishing API keys: from the database, where they are made, to the store, where servers read them.

What is published is a function of the database's state, and bears the count of its changes as its generation. A publisher
reads what the store has first and the database after that, so the database is never behind; it writes over what it read and
over nothing else. So of two publishers at once, the one with the older state loses, and with the next reading finds its
work done. One that died after its change left a store that is behind: the next one, whatever it came for, publishes both.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Protocol

from registry.conditional import put_over
from registry.errors import ObjectNotFound, PreconditionFailed, PublishConflict, StoreError
from registry.keys.published import MAX_BYTES, PublishedKeys, parse_keys
from registry.layout import ACCESS_KEYS
from registry.store import ObjectStore

_ATTEMPTS = 12


class KeySource(Protocol):
    """What publishing asks of `registry.keys.book.KeyBook`."""

    def published(self) -> PublishedKeys:
        """What servers shall know."""
        ...

    def overtake(self, generation: int) -> None:
        """Count on from a generation."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What the store holds now, and whether it had to be written for that."""

    generation: int
    keys: int
    written: bool


def publish_keys(book: KeySource, store: ObjectStore, *, force: bool = False) -> Publication:
    """Have the store hold what the database says.

    Args:
        force: also where the store's keys came from another database, or from a later state of this one.

    Raises:
        PublishConflict: they did, without `force`; or other publishers kept winning.
        StoreError: the store failed.
    """
    for attempt in range(_ATTEMPTS):
        etag, there = _read(store, force=force)
        keys = book.published()
        if there is not None and there == keys:
            return Publication(generation=keys.generation, keys=len(keys.keys), written=False)
        if there is not None and (there.source != keys.source or there.generation >= keys.generation):
            if not force:
                raise PublishConflict(
                    f"the keys in {store.url} come from another database, or from a later state of this one",
                    remedy="Check MACROFLEET_DATABASE_URL; if this database shall replace them: macrofleet keys publish --force.",
                )
            book.overtake(there.generation)
            keys = book.published()
        try:
            put_over(store, ACCESS_KEYS, keys.to_bytes(), etag=etag)
        except PreconditionFailed:
            time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)))  # noqa: S311  # jitter between writers, not a secret
            continue
        return Publication(generation=keys.generation, keys=len(keys.keys), written=True)
    raise PublishConflict(
        f"the keys in {store.url} kept changing under this writer",
        remedy="Run `macrofleet keys publish`; if it persists, look for a writer that loops.",
    )


def is_published(book: KeySource, store: ObjectStore) -> bool:
    """Whether the store holds what the database says. Raises StoreError."""
    _, there = _read(store, force=True)
    return there == book.published()


def _read(store: ObjectStore, *, force: bool) -> tuple[str | None, PublishedKeys | None]:
    """What is there, and its entity tag. Damage is an error, unless it is to be written over."""
    try:
        found = store.get(ACCESS_KEYS, max_bytes=MAX_BYTES)
    except ObjectNotFound:
        return None, None
    try:
        return found.etag, parse_keys(found.data, where=f"{store.url}/{ACCESS_KEYS}")
    except StoreError:
        if force:
            return found.etag, None
        raise
