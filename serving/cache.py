"""The memory tier: models in memory under a byte budget, loaded on demand and leased to requests."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from registry.errors import NotReady
from serving.fleet_watch import ModelRef

_LOG = logging.getLogger(__name__)


class Sized(Protocol):
    """What the cache asks of a model."""

    @property
    def nbytes(self) -> int:
        """What it counts against the budget."""
        ...


M = TypeVar("M", bound=Sized)


class _State(enum.Enum):
    FETCHING = enum.auto()
    READY = enum.auto()
    RETIRING = enum.auto()


@dataclass(slots=True, eq=False)
class _Holding(Generic[M]):
    """One version of one tenant's model on its way through the states. `leases` counts those who wait, too."""

    ref: ModelRef
    state: _State = _State.FETCHING
    leases: int = 0
    model: M | None = None
    error: Exception | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Slot(Generic[M]):
    """A tenant: the holding that serves, those being fetched, and the version that the fleet named last."""

    wanted: ModelRef
    serving: _Holding[M] | None = None
    fetching: dict[ModelRef, _Holding[M]] = field(default_factory=dict)
    failed: ModelRef | None = None
    retry_at: float = 0.0


class ModelCache(Generic[M]):
    """Leases models by tenant; loading, sharing, swapping and eviction are hidden.

    A version of a model is in one of four states:

        absent ──lease──▶ fetching ──loaded──▶ ready ──swapped or evicted──▶ retiring ──last lease ends──▶ absent
                             │                                                  ▲
                             ├──failed: its waiters hear why──▶ absent          │
                             └──loaded, but the fleet went on meanwhile─────────┘

    - One load a version, however many ask; it is nobody's in particular, so a caller that gives up harms no other.
    - Waiting counts as a lease: a model cannot be evicted between its load and its first use.
    - A leased model is never dropped. When all are leased, the budget is exceeded until leases end.
    - When the fleet names another version, the next lease starts its load beside; what serves goes on until the new
      one is ready, and longer where that fails (it is tried again after a while). Leases end on what they began with.
    - A failed load is not cached: with nothing that serves, the next lease tries again.

    Everything happens on one event loop, which owns all state: between two `await`s nothing changes, so nothing locks.

    Args:
        wanted: the version that a tenant shall serve; its errors reach the caller of `lease`.
        load: makes a model; may be called for several at once.
        budget_bytes: what all models together may count.
        retry_seconds: how long a version that failed to replace another is left alone.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[str], ModelRef],
        load: Callable[[ModelRef], Awaitable[M]],
        budget_bytes: int,
        retry_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._load = load
        self._budget = budget_bytes
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._slots: OrderedDict[str, _Slot[M]] = OrderedDict()  # least recently leased first
        self._bytes = 0
        self._loads: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lease(self, tenant: str) -> AsyncIterator[M]:
        """A tenant's model, kept in memory until the context ends.

        Raises:
            MacrofleetError: what `wanted` or `load` raised; NotReady when the cache was closed meanwhile.
        """
        holding = await self._acquire(tenant)
        try:
            assert holding.model is not None
            yield holding.model
        finally:
            self._release(holding)

    async def close(self) -> None:
        """End the loads that are under way. Leases that are out stay valid."""
        for load in self._loads:
            load.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)

    async def _acquire(self, tenant: str) -> _Holding[M]:
        ref = self._wanted(tenant)
        slot = self._slots.get(tenant)
        if slot is None:
            slot = self._slots[tenant] = _Slot(ref)
        self._slots.move_to_end(tenant)
        slot.wanted = ref
        serving = slot.serving
        if serving is None:
            return await self._wait(slot.fetching.get(ref) or self._fetch(slot, ref))
        if serving.ref != ref and ref not in slot.fetching and self._may_try(slot, ref):
            self._fetch(slot, ref)
        serving.leases += 1
        return serving

    def _may_try(self, slot: _Slot[M], ref: ModelRef) -> bool:
        return slot.failed != ref or self._clock() >= slot.retry_at

    async def _wait(self, holding: _Holding[M]) -> _Holding[M]:
        holding.leases += 1
        try:
            await holding.settled.wait()
            if holding.error is not None:
                raise holding.error
        except BaseException:
            self._release(holding)
            raise
        return holding

    def _fetch(self, slot: _Slot[M], ref: ModelRef) -> _Holding[M]:
        holding: _Holding[M] = _Holding(ref)
        slot.fetching[ref] = holding
        load = asyncio.create_task(self._fetched(slot, holding), name=f"load {ref.tenant}")
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        return holding

    async def _fetched(self, slot: _Slot[M], holding: _Holding[M]) -> None:
        """Load, then move the holding on. Never raises: whoever waits finds the error in the holding."""
        try:
            model = await self._load(holding.ref)
        except asyncio.CancelledError:
            self._fail(slot, holding, NotReady("the server is stopping"))
        except Exception as error:  # noqa: BLE001  # whatever it was, the waiters hear it
            self._fail(slot, holding, error)
        else:
            self._succeed(slot, holding, model)
        finally:
            holding.settled.set()

    def _succeed(self, slot: _Slot[M], holding: _Holding[M], model: M) -> None:
        del slot.fetching[holding.ref]
        holding.model = model
        holding.state = _State.READY
        self._bytes += model.nbytes
        if holding.ref == slot.wanted or slot.serving is None:
            replaced, slot.serving = slot.serving, holding
        else:
            replaced = holding
        if replaced is not None:
            self._retire(replaced)
        self._trim()

    def _fail(self, slot: _Slot[M], holding: _Holding[M], error: Exception) -> None:
        del slot.fetching[holding.ref]
        holding.error = error
        holding.state = _State.RETIRING
        if slot.serving is not None:
            slot.failed, slot.retry_at = holding.ref, self._clock() + self._retry_seconds
            extra = {"tenant": holding.ref.tenant, "version": holding.ref.version, "serving": slot.serving.ref.version}
            _LOG.warning("a new version cannot be loaded, the old one goes on serving", extra=extra, exc_info=error)
        self._forget_if_empty(holding.ref.tenant, slot)

    def _release(self, holding: _Holding[M]) -> None:
        holding.leases -= 1
        if holding.leases:
            return
        if holding.state is _State.RETIRING:
            self._drop(holding)
        elif self._bytes > self._budget:
            self._trim()

    def _retire(self, holding: _Holding[M]) -> None:
        holding.state = _State.RETIRING
        if not holding.leases:
            self._drop(holding)

    def _drop(self, holding: _Holding[M]) -> None:
        # Dropping the last reference is what unmaps: the arrays keep the mapping alive.
        if holding.model is not None:
            self._bytes -= holding.model.nbytes
            holding.model = None

    def _trim(self) -> None:
        """Evict what nobody leases, least recently leased first, until the budget holds."""
        for tenant, slot in list(self._slots.items()) if self._bytes > self._budget else ():
            if slot.serving is not None and not slot.serving.leases:
                self._retire(slot.serving)
                slot.serving = None
                self._forget_if_empty(tenant, slot)
                if self._bytes <= self._budget:
                    return

    def _forget_if_empty(self, tenant: str, slot: _Slot[M]) -> None:
        if slot.serving is None and not slot.fetching:
            del self._slots[tenant]
