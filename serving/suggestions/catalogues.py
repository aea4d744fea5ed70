"""Live catalogues and rules of the tenants in use: what may be suggested now, whatever a model was trained on."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Container
from concurrent.futures import Future
from dataclasses import dataclass

from registry.catalogue import MAX_CATALOGUE_BYTES, Catalogue, parse_catalogue
from registry.errors import CatalogueUnavailable, MacrofleetError, ObjectNotFound
from registry.layout import catalogue_key, tenant_settings_key
from registry.store import ObjectStore
from registry.suggestion_rules import MAX_SETTINGS_BYTES, SuggestionRules, parse_rules
from serving.engine.single_flight import SingleFlight
from serving.suggestions.policy import Policy
from serving.threads import Workers

_LOG = logging.getLogger(__name__)
# Between two readings of one catalogue, in units of the least.
_MOST_PAUSE = 1.5
# So old, in the same units, nothing is handed out while it could be read again: nobody asked for so long.
_STALE = 10
# But nobody waits for a store that does not answer for longer than this.
_PATIENCE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class _Tags:
    """Which state of both objects a policy was made of; no settings is a state of them."""

    catalogue: str
    settings: str | None


@dataclass(slots=True)
class _Entry:
    policy: Policy
    tags: _Tags
    due_at: float
    confirmed_at: float
    asked_at: float
    refreshing: asyncio.Task[None] | None = None
    refreshed_at: float = 0.0


class Catalogues:
    """Reads a tenant's catalogue and rules when they are first needed, and again in the background. Owned by one event loop.

    A request does not wait for what was read before: an old policy is handed out while both are read again, by conditional
    GETs. Only where nobody asked for so long that it is ten times as old as it may become is the reading waited for, for a
    quarter of a second at most. Where one of them cannot be read any more, both stay as they were. A tenant that has no
    settings has no rules.

    Args:
        store: read in threads.
        workers: in which is read what a request waits for.
        again: in which is read again what nobody waits for: of a thousand tenants in use, dozens a second.
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
        again: Workers,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._workers = workers
        self._again = again
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._chance = chance
        self._entries: dict[str, _Entry] = {}
        self._first_reads: SingleFlight[str, _Entry] = SingleFlight()
        self._refreshes: set[asyncio.Task[None]] = set()

    async def policy(self, tenant: str) -> Policy:
        """What may be suggested for a tenant.

        Raises:
            CatalogueUnavailable: the catalogue or the settings were never read and cannot be read now.
        """
        known = self.known(tenant)
        if known is not None:
            return known
        entry = self._entries.get(tenant)
        if entry is not None:
            if entry.refreshing is not None:
                left = entry.refreshed_at + _PATIENCE_SECONDS - self._clock()
                await asyncio.wait([entry.refreshing], timeout=max(0.0, left))
            return entry.policy
        return (await self._first_reads.run(tenant, lambda: self._first(tenant))).policy

    def known(self, tenant: str) -> Policy | None:
        """What `policy` gives where it need not wait, and otherwise None."""
        entry = self._entries.get(tenant)
        if entry is None:
            return None
        entry.asked_at = now = self._clock()
        is_stale = now - entry.confirmed_at > self._refresh_seconds * _STALE
        if entry.refreshing is None and now >= entry.due_at:
            reading = self._refresh(tenant, entry, self._workers if is_stale else self._again)
            task = asyncio.create_task(reading, name=f"catalogue {tenant}")
            entry.refreshing, entry.refreshed_at = task, now
            self._refreshes.add(task)
            task.add_done_callback(self._refreshes.discard)
        if is_stale and entry.refreshing is not None and now - entry.refreshed_at < _PATIENCE_SECONDS:
            return None
        return entry.policy

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
            # Beside each other, since a request waits for them, and back in the loop once.
            rules = self._workers.begin(self._read_rules, tenant, None)
            policy, tags = await self._workers.run(self._read_first, tenant, rules)
        except MacrofleetError as error:
            raise CatalogueUnavailable(f"the macro catalogue of tenant {tenant} cannot be read: {error}") from error
        now = self._clock()
        entry = self._entries[tenant] = _Entry(policy, tags, self._next_due(), now, now)
        return entry

    async def _refresh(self, tenant: str, entry: _Entry, workers: Workers) -> None:
        try:
            found = await workers.run(self._read_again, tenant, entry.tags)
        except Exception as error:  # noqa: BLE001  # whatever it is, the last policy stays
            _LOG.warning("a catalogue cannot be read again", extra={"tenant": tenant}, exc_info=error)
        else:
            entry.confirmed_at = self._clock()
            if found is not None:
                entry.policy, entry.tags = found
        finally:
            entry.due_at = self._next_due()
            entry.refreshing = None

    def _next_due(self) -> float:
        return self._clock() + self._refresh_seconds * (1 + self._chance() * (_MOST_PAUSE - 1))

    # In threads

    def _read_first(
        self, tenant: str, reading: Future[tuple[SuggestionRules, str | None] | None]
    ) -> tuple[Policy, _Tags]:
        """Both objects; `reading` has begun earlier, in another thread, or this one would wait for ever."""
        catalogue = self._read_catalogue(tenant, None)
        rules = reading.result()
        if catalogue is None or rules is None:
            raise CatalogueUnavailable("the store answered 'not changed' to a first read")
        return Policy(catalogue[0].macros, rules[0]), _Tags(catalogue[1], rules[1])

    def _read_again(self, tenant: str, tags: _Tags) -> tuple[Policy, _Tags] | None:
        """None where nothing changed. What did not change is fetched anew with what did: it is not kept.

        A catalogue with its actions is many times larger than what a policy has of it.
        """
        catalogue = self._read_catalogue(tenant, tags.catalogue)
        rules = self._read_rules(tenant, tags.settings)
        none_still = rules is not None and rules[1] is None and tags.settings is None
        if catalogue is None and (rules is None or none_still):
            return None
        catalogue = catalogue or self._read_catalogue(tenant, None)
        rules = rules or self._read_rules(tenant, None)
        if catalogue is None or rules is None:
            raise CatalogueUnavailable("the store answered 'not changed' to an unconditional read")
        return Policy(catalogue[0].macros, rules[0]), _Tags(catalogue[1], rules[1])

    def _read_catalogue(self, tenant: str, etag: str | None) -> tuple[Catalogue, str] | None:
        key = catalogue_key(tenant)
        found = self._store.get_if_changed(key, etag, max_bytes=MAX_CATALOGUE_BYTES)
        if found is None:
            return None
        return parse_catalogue(found.data, what=f"{self._store.url}/{key}"), found.etag

    def _read_rules(self, tenant: str, etag: str | None) -> tuple[SuggestionRules, str | None] | None:
        key = tenant_settings_key(tenant)
        try:
            found = self._store.get_if_changed(key, etag, max_bytes=MAX_SETTINGS_BYTES)
        except ObjectNotFound:
            return SuggestionRules(), None
        if found is None:
            return None
        return parse_rules(found.data, what=f"{self._store.url}/{key}"), found.etag
