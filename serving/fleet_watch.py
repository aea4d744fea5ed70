"""What the fleet says now: which version each tenant serves, polled from the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from registry.errors import MacrofleetError, ModelNotFound, NotReady, TenantNotFound
from registry.fleet.state import Fleet, FleetEntry
from serving.threads import Workers

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One version of one tenant's model, as the fleet names it."""

    tenant: str
    version: str
    manifest: str


class FleetSource(Protocol):
    """What the watch asks of `registry.fleet.state.FleetReader`."""

    def refresh(self) -> Fleet:
        """The fleet as it is now; the same object when nothing changed."""
        ...


class FleetWatch:
    """Keeps the last fleet that could be read. Owned by one event loop.

    Args:
        source: read in a thread, by one reader at a time.
        workers: threads to read in.
        poll_seconds: pause between two readings.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        source: FleetSource,
        *,
        workers: Workers,
        poll_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._workers = workers
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._fleet: Fleet | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def fleet(self) -> Fleet | None:
        """The last one read, or None before the first."""
        return self._fleet

    @property
    def age_seconds(self) -> float | None:
        """Since the store last confirmed the fleet, or None before the first reading."""
        return None if self._fleet is None else self._clock() - self._read_at

    def entry(self, tenant: str) -> FleetEntry:
        """What the fleet says of a tenant.

        Raises:
            NotReady: no fleet was ever read.
            TenantNotFound: not in the fleet; whatever cannot be a tenant's name is not in it either.
        """
        if self._fleet is None:
            raise NotReady("the fleet was not read yet")
        entry = self._fleet.entries.get(tenant)
        if entry is None:
            raise TenantNotFound("there is no such tenant")
        return entry

    def wanted(self, tenant: str) -> ModelRef:
        """The version that a tenant shall serve.

        Raises:
            NotReady, TenantNotFound: see `entry`.
            ModelNotFound: the tenant has no version to serve; the message says why where the fleet does.
        """
        entry = self.entry(tenant)
        ref = _ref(tenant, entry)
        if ref is None:
            raise ModelNotFound(f"tenant {tenant} has no model to serve: {entry.reason or 'none was published yet'}")
        return ref

    def is_pinned(self, tenant: str) -> bool:
        """Whether a tenant's model shall be kept in memory."""
        entry = self._fleet.entries.get(tenant) if self._fleet else None
        return entry is not None and entry.keep_loaded

    def serves(self, tenant: str) -> bool:
        """Whether the fleet names a version for a tenant."""
        entry = self._fleet.entries.get(tenant) if self._fleet else None
        return entry is not None and entry.serves

    def knows(self, tenant: str) -> bool:
        """Whether the fleet has a tenant. May be called from any thread.

        A store without a fleet has all of them: it is more likely to be the wrong one than to have lost every tenant.
        """
        fleet = self._fleet
        return fleet is None or not fleet.generation or tenant in fleet.entries

    async def next_fleet(self, after: Fleet | None) -> Fleet:
        """The current fleet, as soon as it is another one than `after`."""
        while self._fleet is None or self._fleet is after:
            await self._changed.wait()
        return self._fleet

    async def refresh(self) -> Fleet:
        """Read the fleet now; what was written before the call is in it.

        Raises:
            StoreError: it cannot be read; the last one stays valid.
        """
        async with self._reading:
            fleet = await self._workers.run(self._source.refresh)
            self._read_at = self._clock()
            if fleet is not self._fleet:
                self._fleet = fleet
                self._changed.set()
                self._changed.clear()
                _LOG.info("fleet", extra={"generation": fleet.generation, "tenants": len(fleet.entries)})
            return fleet

    async def run(self) -> None:
        """Read the fleet again and again, until cancelled; one that cannot be read leaves the last one valid."""
        while True:
            try:
                await self.refresh()
            except MacrofleetError as error:
                _LOG.warning("the fleet cannot be read", extra={"age_seconds": self.age_seconds}, exc_info=error)
            except Exception:  # noqa: BLE001  # polling goes on, whatever it was
                _LOG.exception("reading the fleet failed")
            await asyncio.sleep(self._poll_seconds)


def model_refs(fleet: Fleet) -> list[ModelRef]:
    """Every version that shall serve."""
    found = (_ref(tenant, entry) for tenant, entry in fleet.entries.items())
    return [ref for ref in found if ref is not None]


def _ref(tenant: str, entry: FleetEntry) -> ModelRef | None:
    if entry.version is None or entry.manifest is None:
        return None
    return ModelRef(tenant, entry.version, entry.manifest)
