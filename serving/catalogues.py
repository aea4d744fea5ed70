"""Live catalogues of the tenants in use: what may be suggested now, whatever a model was trained on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.catalogue import MAX_CATALOGUE_BYTES, parse_catalogue
from registry.errors import CatalogueUnavailable, MacrofleetError
from registry.layout import catalogue_key
from registry.store import ObjectStore
from serving.single_flight import SingleFlight

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    titles: Mapping[str, str]
    etag: str
    checked_at: float
    refreshing: bool = False


class Catalogues:
    """Reads a tenant's catalogue when it is first needed, and again in the background. Owned by one event loop.

    A request never waits for a catalogue that was read before: an old one is handed out while it is read again, by a
    conditional GET. One that cannot be read any more stays as it was.

    Args:
        store: read in threads.
        refresh_seconds: least age at which a catalogue is read again.
        clock: seconds, never backwards.
    """

    def __init__(
        self, store: ObjectStore, *, refresh_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._first_reads: SingleFlight[str, _Entry] = SingleFlight()
        self._refreshes: set[asyncio.Task[None]] = set()

    async def titles(self, tenant: str) -> Mapping[str, str]:
        """Title by id of the macros that may be suggested to anybody.

        Raises:
            CatalogueUnavailable: the catalogue was never read and cannot be read now.
        """
        entry = self._entries.get(tenant)
        if entry is None:
            entry = await self._first_reads.run(tenant, lambda: self._first(tenant))
        elif not entry.refreshing and self._clock() - entry.checked_at >= self._refresh_seconds:
            entry.refreshing = True
            task = asyncio.create_task(self._refresh(tenant, entry), name=f"catalogue {tenant}")
            self._refreshes.add(task)
            task.add_done_callback(self._refreshes.discard)
        return entry.titles

    async def close(self) -> None:
        """End the readings that are under way."""
        for task in self._refreshes:
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def _first(self, tenant: str) -> _Entry:
        try:
            found = await asyncio.to_thread(self._read, tenant, None)
        except MacrofleetError as error:
            raise CatalogueUnavailable(f"the macro catalogue of tenant {tenant} cannot be read: {error}") from error
        if found is None:
            raise CatalogueUnavailable(f"the store answered 'not changed' to a first read of tenant {tenant}")
        titles, etag = found
        entry = self._entries[tenant] = _Entry(titles, etag, self._clock())
        return entry

    async def _refresh(self, tenant: str, entry: _Entry) -> None:
        try:
            found = await asyncio.to_thread(self._read, tenant, entry.etag)
        except Exception as error:  # noqa: BLE001  # whatever it is, the last catalogue stays
            _LOG.warning("a catalogue cannot be read again", extra={"tenant": tenant}, exc_info=error)
        else:
            if found is not None:
                entry.titles, entry.etag = found
        finally:
            entry.checked_at = self._clock()
            entry.refreshing = False

    def _read(self, tenant: str, etag: str | None) -> tuple[Mapping[str, str], str] | None:
        """Runs in a thread. Only titles are kept: a catalogue with its actions is many times larger."""
        key = catalogue_key(tenant)
        found = self._store.get_if_changed(key, etag, max_bytes=MAX_CATALOGUE_BYTES)
        if found is None:
            return None
        catalogue = parse_catalogue(found.data, what=f"{self._store.url}/{key}")
        return {macro.id: macro.title for macro in catalogue.suggestible().values()}, found.etag
