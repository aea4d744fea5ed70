"""A tenant's API keys as traces of it: in the control plane's database, and in what is published of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from registry.database import DatabaseSettings, opened_database
from registry.errors import ObjectNotFound, StoreError
from registry.keys.book import KeyBook
from registry.keys.published import MAX_BYTES, PublishedKeys, parse_keys
from registry.keys.publishing import publish_keys
from registry.layout import ACCESS_KEYS
from registry.store import ObjectStore


class KeysPlace:
    """Every key that a tenant has or had. Where no key was ever made, no database is either."""

    name = "keys"
    remedy = "Run it again; servers go by what `macrofleet keys publish` publishes."
    certain = True

    def __init__(self, store: ObjectStore, settings: DatabaseSettings) -> None:
        self._store = store
        self._settings = settings

    def remove(self, tenant: str) -> int:
        """Forget the tenant's keys, and publish what is left: servers refuse them at their next look.

        Raises:
            DatabaseUnavailable: and whatever `publish_keys` raises, as where the keys are of another database.
        """
        with self._book() as book:
            forgotten = 0 if book is None else book.forget(tenant)
            if book is not None and (forgotten or self._names(tenant)):
                publish_keys(book, self._store)
        return forgotten

    def find(self, tenant: str) -> list[str]:
        """The prefixes of the tenant's keys, and whether servers are told of any."""
        with self._book() as book:
            found = [] if book is None else [f"key mf_{record.prefix}_…" for record in book.records(tenant=tenant)]
        return [*found, ACCESS_KEYS] if self._names(tenant) else found

    @contextmanager
    def _book(self) -> Iterator[KeyBook | None]:
        file = self._settings.file
        if file is not None and not file.exists():
            yield None
            return
        with opened_database(self._settings) as database:
            yield KeyBook(database)

    def _names(self, tenant: str) -> bool:
        published = self._published()
        return published is not None and any(key.tenant == tenant for key in published.keys)

    def _published(self) -> PublishedKeys | None:
        """What servers are told; None where that is nothing, or cannot be read: `StorePlace` looks at it as well."""
        try:
            return parse_keys(self._store.get(ACCESS_KEYS, max_bytes=MAX_BYTES).data, where=ACCESS_KEYS)
        except (ObjectNotFound, StoreError):
            return None
