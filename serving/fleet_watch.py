"""What the fleet says now: which version each tenant serves, polled from the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from registry.errors import MacrofleetError, ModelNotFound, NotReady, TenantNotFound
from registry.fleet import Fleet, FleetEntry

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One version of one tenant's model, as the fleet names it."""

    tenant: str
    version: str
    manifest: str


class FleetSource(Protocol):
    """What the watch asks of `registry.fleet.FleetReader`."""

    def refresh(self) -> Fleet:
        """The fleet as it is now; the same object when nothing changed."""
        ...


class FleetWatch:
    """Keeps the last fleet that could be read. Owned by one event loop.

    Args:
        source: read in a thread, by one reader at a time.
        poll_seconds: pause between two readings.
        clock: seconds, never backwards.
    """

    def __init__(
        self, source: FleetSource, *, poll_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._fleet: Fleet | None = None
        self._read_at = 0.0
        self._changed = asyncio.Event()

    @property
    def fleet(self) -> Fleet | None:
        """The last fleet that was read, or None before the first."""
        return self._fleet

    @property
    def age_seconds(self) -> float | None:
        """How long ago the store last confirmed the fleet, or None before the first reading."""
        return None if self._fleet is None else self._clock() - self._read_at

    def wanted(self, tenant: str) -> ModelRef:
        """The version that a tenant shall serve.

        Raises:
            NotReady: no fleet was ever read.
            TenantNotFound: not in the fleet; whatever cannot be a tenant's name is not in it either.
            ModelNotFound: the tenant has no version to serve; the message says why where the fleet does.
        """
        if self._fleet is None:
            raise NotReady("the fleet was not read yet")
        entry = self._fleet.entries.get(tenant)
        if entry is None:
            raise TenantNotFound("there is no such tenant")
        ref = _ref(tenant, entry)
        if ref is None:
            raise ModelNotFound(f"tenant {tenant} has no model to serve: {entry.reason or 'none was published yet'}")
        return ref

    def refs(self) -> list[ModelRef]:
        """Every version that shall serve, in the order of tenants."""
        entries = self._fleet.entries if self._fleet else {}
        return [ref for tenant in sorted(entries) if (ref := _ref(tenant, entries[tenant])) is not None]

    async def next_fleet(self, after: Fleet | None) -> Fleet:
        """The current fleet, as soon as it is another one than `after`."""
        while self._fleet is None or self._fleet is after:
            await self._changed.wait()
        return self._fleet

    async def refresh(self) -> None:
        """Read the fleet once; one that cannot be read leaves the last one valid."""
        try:
            fleet = await asyncio.to_thread(self._source.refresh)
        except MacrofleetError as error:
            _LOG.warning("the fleet cannot be read", extra={"age_seconds": self.age_seconds}, exc_info=error)
            return
        except Exception:  # noqa: BLE001  # polling goes on, whatever it was
            _LOG.exception("reading the fleet failed")
            return
        self._read_at = self._clock()
        if fleet is not self._fleet:
            self._fleet = fleet
            self._changed.set()
            self._changed.clear()
            _LOG.info("fleet", extra={"generation": fleet.generation, "tenants": len(fleet.entries)})

    async def run(self) -> None:
        """Read the fleet again and again, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_seconds)


def _ref(tenant: str, entry: FleetEntry) -> ModelRef | None:
    if entry.version is None or entry.manifest is None:
        return None
    return ModelRef(tenant, entry.version, entry.manifest)
