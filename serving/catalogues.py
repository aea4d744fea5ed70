"""Live catalogues of the tenants in use: what may be suggested now, whatever a model was trained on."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from registry.catalogue import MAX_CATALOGUE_BYTES, parse_catalogue
from registry.errors import CatalogueUnavailable, MacrofleetError
from registry.layout import catalogue_key
from registry.store import ObjectStore
from serving.single_flight import SingleFlight
from serving.threads import Workers

_LOG = logging.getLogger(__name__)
# Between two readings of one catalogue, in units of the least.
_MOST_PAUSE = 1.5


@dataclass(slots=True)
class _Entry:
    titles: Mapping[str, str]
    etag: str
    due_at: float
    confirmed_at: float
    asked_at: float
    refreshing: bool = False


class Catalogues:
    """Reads a tenant's catalogue when it is first needed, and again in the background. Owned by one event loop.

    A request never waits for a catalogue that was read before: an old one is handed out while it is read again, by a
    conditional GET. One that cannot be read any more stays as it was.

    Args:
        store: read in the threads of `workers`.
        workers: they run beside the event loop.
        refresh_seconds: least age at which a catalogue is read again; up to half as much more, by chance, so that those
            which were read together are not read together for ever.
        clock: seconds, never backwards.
        chance: a number from 0 to 1.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        workers: Workers,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._workers = workers
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._chance = chance
        self._entries: dict[str, _Entry] = {}
        self._first_reads: SingleFlight[str, _Entry] = SingleFlight()
        self._refreshes: set[asyncio.Task[None]] = set()

    async def titles(self, tenant: str) -> Mapping[str, str]:
        """Title by id of the macros that may be suggested to anybody.

        Raises:
            CatalogueUnavailable: the catalogue was never read and cannot be read now.
        """
        known = self.known(tenant)
        if known is not None:
            return known
        return (await self._first_reads.run(tenant, lambda: self._first(tenant))).titles

    def known(self, tenant: str) -> Mapping[str, str] | None:
        """What `titles` gives at once where the catalogue was read before, and otherwise None."""
        entry = self._entries.get(tenant)
        if entry is None:
            return None
        entry.asked_at = now = self._clock()
        if not entry.refreshing and now >= entry.due_at:
            entry.refreshing = True
            task = asyncio.create_task(self._refresh(tenant, entry), name=f"catalogue {tenant}")
            self._refreshes.add(task)
            task.add_done_callback(self._refreshes.discard)
        return entry.titles

    def oldest_seconds(self) -> float:
        """Age of the catalogue in use that was confirmed the longest time ago; 0 while there is none.

        In use is what was asked for within the longest pause between two readings: what nobody asks for is not read again,
        and its age says nothing of the store.
        """
        now = self._clock()
        since = now - self._refresh_seconds * _MOST_PAUSE
        used = (entry.confirmed_at for entry in self._entries.values() if entry.asked_at >= since)
        return now - min(used, default=now)

    def forget_all_but(self, tenants: Container[str]) -> None:
        """Drop the catalogues of tenants that are not in the fleet any more."""
        self._entries = {tenant: entry for tenant, entry in self._entries.items() if tenant in tenants}

    async def close(self) -> None:
        """End the readings that are under way."""
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def _first(self, tenant: str) -> _Entry:
        try:
            found = await self._workers.run(self._read, tenant, None)
        except MacrofleetError as error:
            raise CatalogueUnavailable(f"the macro catalogue of tenant {tenant} cannot be read: {error}") from error
        if found is None:
            raise CatalogueUnavailable(f"the store answered 'not changed' to a first read of tenant {tenant}")
        titles, etag = found
        now = self._clock()
        entry = self._entries[tenant] = _Entry(titles, etag, self._next_due(), now, now)
        return entry

    async def _refresh(self, tenant: str, entry: _Entry) -> None:
        try:
            found = await self._workers.run(self._read, tenant, entry.etag)
        except Exception as error:  # noqa: BLE001  # whatever it is, the last catalogue stays
            _LOG.warning("a catalogue cannot be read again", extra={"tenant": tenant}, exc_info=error)
        else:
            entry.confirmed_at = self._clock()
            if found is not None:
                entry.titles, entry.etag = found
        finally:
            entry.due_at = self._next_due()
            entry.refreshing = False

    def _next_due(self) -> float:
        return self._clock() + self._refresh_seconds * (1 + self._chance() * (_MOST_PAUSE - 1))

    def _read(self, tenant: str, etag: str | None) -> tuple[Mapping[str, str], str] | None:
        """Runs in a thread. Only titles are kept: a catalogue with its actions is many times larger."""
        key = catalogue_key(tenant)
        found = self._store.get_if_changed(key, etag, max_bytes=MAX_CATALOGUE_BYTES)
        if found is None:
            return None
        catalogue = parse_catalogue(found.data, what=f"{self._store.url}/{key}")
        return {macro.id: macro.title for macro in catalogue.suggestible().values()}, found.etag
