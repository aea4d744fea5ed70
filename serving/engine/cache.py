"""The memory tier: models in memory under a byte budget, loaded on demand and leased to requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from registry.errors import MacrofleetError, NotReady
from serving.engine.backoff import LoadBackoff
from serving.engine.eviction import WindowTinyLfu
from serving.engine.holding import Holding, M, Sized, Slot, State
from serving.engine.model_status import ModelStatus, status_of
from serving.engine.traffic import Traffic
from serving.fleet_watch import ModelRef

_LOG = logging.getLogger(__name__)
M_co = TypeVar("M_co", bound=Sized, covariant=True)
M_contra = TypeVar("M_contra", bound=Sized, contravariant=True)


class Loader(Protocol[M_co]):
    """Makes a model; may be called for several at once."""

    async def __call__(self, ref: ModelRef, *, demand: bool) -> M_co:
        """A model in memory.

        Args:
            ref: which version.
            demand: a request waits for it; otherwise it is a swap or a preload, which may take its time.
        """
        ...


class Observer(Protocol[M_contra]):
    """What the cache tells of itself. Called on the event loop; must not raise."""

    def hit(self) -> None:
        """A lease found its model in memory."""

    def waited(self, seconds: float) -> None:
        """A lease got its model after a load."""

    def loaded(self, seconds: float) -> None:
        """A load succeeded."""

    def load_failed(self, error: BaseException) -> None:
        """A load failed."""

    def swapped(self, outcome: str) -> None:
        """A version took the place of another ("done"), or could not ("failed")."""

    def evicted(self, model: M_contra, cause: str) -> None:
        """A model left the cache: "budget", "not_admitted", "unloaded" or "left_fleet". It may still be leased."""


class Lease(Generic[M]):
    """A model that stays in memory until `release`, which is the end of the `with` block."""

    __slots__ = ("_cache", "_holding", "model")

    def __init__(self, cache: ModelCache[M], holding: Holding[M]) -> None:
        assert holding.model is not None
        self._cache = cache
        self._holding: Holding[M] | None = holding
        self.model = holding.model

    def release(self) -> None:
        """Give the model back; once is enough."""
        holding, self._holding = self._holding, None
        if holding is not None:
            del self.model  # or the lease would keep it mapped
            self._cache._release(holding)

    def __enter__(self) -> M:
        return self.model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class ModelCache(Generic[M]):
    """Leases models by tenant; loading, sharing, swapping and eviction are hidden.

    Moves each version through its states (`serving.engine.holding`), and counts who uses it. Who has to go is for
    `serving.engine.eviction` to say, what must not be tried again yet for `serving.engine.backoff`.

    - One load a version, however many ask; it is nobody's in particular, so a caller that gives up harms no other.
    - Waiting counts as a lease: a model cannot be evicted between its load and its first use.
    - A leased model is never dropped.
    - A lease takes what serves. `renew` brings what the fleet names, beside it; what serves goes on until the new one is
      ready, and longer where that fails. Leases end on what they began with.
    - A failed load reaches those who wait and leaves nothing behind but a pause, which doubles with every failure in a
      row: within it, the next lease is refused at once.

    Everything happens on one event loop, which owns all state: between two `await`s nothing changes, so nothing locks.

    Args:
        wanted: the version that a tenant shall serve; its errors reach the caller of `lease`.
        load: makes a model.
        budget_bytes: what all models together may count.
        traffic: recent requests by tenant; the cache counts them.
        pinned: whether a tenant's model shall never be evicted.
        observer: hears what happens.
        pause_seconds: after the first failed load of a version, and the longest.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[str], ModelRef],
        load: Loader[M],
        budget_bytes: int,
        traffic: Traffic,
        pinned: Callable[[str], bool],
        observer: Observer[M],
        pause_seconds: tuple[float, float] = (0.5, 60.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._load = load
        self._traffic = traffic
        self._pinned = pinned
        self._observer = observer
        self._clock = clock
        self._slots: dict[str, Slot[M]] = {}
        self._eviction: WindowTinyLfu[M] = WindowTinyLfu(budget_bytes, weight=traffic.weight, pinned=pinned)
        self._backoff = LoadBackoff(pause_seconds, clock=clock)
        self._nbytes = 0
        self._loads: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of all models in memory, those retiring included."""
        return self._nbytes

    def __len__(self) -> int:
        """How many models serve."""
        return len(self._eviction)

    def try_lease(self, tenant: str) -> Lease[M] | None:
        """A lease at once where the model is in memory; the quick half of `lease`."""
        slot = self._slots.get(tenant)
        if slot is None or slot.serving is None:
            return None
        self._observer.hit()
        return self._lease(slot, slot.serving)

    async def lease(self, tenant: str) -> Lease[M]:
        """A tenant's model, kept in memory until the lease is released.

        Raises:
            LoadBackingOff: its load failed a moment ago.
            MacrofleetError: what `wanted` or `load` raised; NotReady when the cache was closed meanwhile.
        """
        lease = self.try_lease(tenant)
        if lease is not None:
            return lease
        ref = self._wanted(tenant)
        slot = self._slots.get(tenant)
        holding = slot.fetching.get(ref) if slot is not None else None
        if holding is None:
            self._backoff.check(ref)
            holding = self._fetch(ref, demand=True)
        began = self._clock()
        holding.leases += 1
        try:
            await holding.settled.wait()
            if holding.error is not None:
                raise holding.error
        except BaseException:
            self._release(holding)
            raise
        waited = self._clock() - began
        self._observer.waited(waited)
        slot = self._slots.get(tenant)
        if slot is not None and slot.serving is holding and slot.wait_seconds is None:
            slot.wait_seconds = waited
        holding.leases -= 1  # the lease takes over what waiting counted
        return self._lease(slot, holding)

    async def renew(self, tenant: str) -> None:
        """Have in memory what the fleet names for a tenant, beside what serves; done when it has taken over.

        A load under way is waited for. A version whose load failed is left alone for its pause.

        Raises:
            MacrofleetError: it cannot be had; what serves goes on.
        """
        ref = self._wanted(tenant)
        slot = self._slots.get(tenant)
        if slot is not None and slot.serving is not None and slot.serving.ref == ref:
            return
        holding = slot.fetching.get(ref) if slot is not None else None
        if holding is None:
            self._backoff.check(ref)
            holding = self._fetch(ref, demand=False)
        await holding.settled.wait()
        if holding.error is not None:
            raise holding.error

    def outdated(self) -> list[str]:
        """Tenants in memory for whom the fleet names another version than the one that serves."""
        return [slot.tenant for slot in self._eviction.slots() if not self._is_current(slot)]

    def retain(self, keep: Callable[[str], bool]) -> None:
        """Follow a new fleet: let go of the models of tenants that have left it, and of those that fit only while pinned."""
        for slot in list(self._eviction.slots()):
            if not keep(slot.tenant):
                self._evict(slot, "left_fleet")
        self._backoff.retain(keep)
        self._balance()

    async def unload(self, tenant: str) -> None:
        """Let go of a tenant's model; done when its last lease has ended and its memory is free.

        A load under way is waited for and let go as well. The next lease loads the model again.
        """
        slot = self._slots.get(tenant)
        if slot is None:
            return
        present = [*slot.fetching.values(), *([slot.serving] if slot.serving else [])]
        for holding in present:
            await holding.settled.wait()
            if slot.serving is holding:
                self._evict(slot, "unloaded")
        for holding in present:
            await holding.gone.wait()

    def tenants(self) -> Collection[str]:
        """Who has something in memory, or on its way there."""
        return self._slots.keys()

    def status(self, ref: ModelRef) -> ModelStatus:
        """What is known of the model that the fleet names for a tenant."""
        return status_of(
            ref,
            self._slots.get(ref.tenant),
            pinned=self._pinned(ref.tenant),
            error=self._backoff.error_of(ref),
            now=self._clock(),
        )

    async def close(self) -> None:
        """End the loads that are under way. Leases that are out stay valid."""
        self._closed = True
        for load in self._loads:
            load.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        for slot in list(self._slots.values()):
            for holding in list(slot.fetching.values()):  # its task was cancelled before it began
                self._fail(slot, holding, NotReady("the server is stopping"))
                holding.settled.set()

    # Leases

    def _lease(self, slot: Slot[M] | None, holding: Holding[M]) -> Lease[M]:
        holding.leases += 1
        self._traffic.count(holding.ref.tenant)
        if slot is not None and slot.serving is holding:
            slot.hits += 1
            slot.last_used = self._clock()
            self._eviction.touch(slot)
        return Lease(self, holding)

    def _release(self, holding: Holding[M]) -> None:
        holding.leases -= 1
        if holding.leases:
            return
        if holding.state is State.RETIRING:
            self._nbytes -= holding.drop()
        elif self._eviction.crowded:
            self._balance()

    # Loads

    def _fetch(self, ref: ModelRef, *, demand: bool) -> Holding[M]:
        if self._closed:
            raise NotReady("the server is stopping")
        slot = self._slots.setdefault(ref.tenant, Slot(ref.tenant))
        holding: Holding[M] = Holding(ref)
        slot.fetching[ref] = holding
        load = asyncio.create_task(self._fetched(slot, holding, demand=demand), name=f"load {ref.tenant}")
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        return holding

    async def _fetched(self, slot: Slot[M], holding: Holding[M], *, demand: bool) -> None:
        """Load, then move the holding on. Never raises: whoever waits finds the error in the holding."""
        began = self._clock()
        try:
            model = await self._load(holding.ref, demand=demand)
        except asyncio.CancelledError:
            self._fail(slot, holding, NotReady("the server is stopping"))
        except Exception as error:  # noqa: BLE001  # whatever it was, the waiters hear it
            self._fail(slot, holding, error)
        else:
            slot.load_seconds = self._clock() - began
            self._observer.loaded(slot.load_seconds)
            self._succeed(slot, holding, model)
        finally:
            holding.settled.set()

    def _succeed(self, slot: Slot[M], holding: Holding[M], model: M) -> None:
        del slot.fetching[holding.ref]
        self._backoff.forget(slot.tenant)
        holding.become_ready(model)
        self._nbytes += model.nbytes
        replaced = slot.serving
        if replaced is None:
            slot.serving = holding
            self._eviction.add(slot)
            self._catch_up(slot)
        elif self._is_wanted(holding.ref):
            self._eviction.resize(slot, by=model.nbytes - replaced.nbytes)
            slot.serving = holding
            self._retire(replaced)
            self._observer.swapped("done")
        else:
            self._retire(holding)  # the fleet went on meanwhile
        self._balance()

    def _catch_up(self, slot: Slot[M]) -> None:
        """Where the fleet went on while a first load was under way, go after it; its callers have what they asked for."""
        with suppress(MacrofleetError):
            wanted = self._wanted(slot.tenant)
            if slot.serving is not None and slot.serving.ref != wanted and wanted not in slot.fetching:
                self._backoff.check(wanted)
                self._fetch(wanted, demand=False)

    def _fail(self, slot: Slot[M], holding: Holding[M], error: Exception) -> None:
        ref = holding.ref
        del slot.fetching[ref]
        holding.fail(error)
        self._observer.load_failed(error)
        self._backoff.note(ref, error)
        if slot.serving is not None:
            self._observer.swapped("failed")
            extra = {"tenant": ref.tenant, "version": ref.version, "serving": slot.serving.ref.version}
            _LOG.warning("a new version cannot be loaded, the old one goes on serving", extra=extra, exc_info=error)
        self._forget_if_empty(slot)

    def _is_wanted(self, ref: ModelRef) -> bool:
        try:
            return self._wanted(ref.tenant) == ref
        except MacrofleetError:
            return False

    def _is_current(self, slot: Slot[M]) -> bool:
        return slot.serving is not None and self._is_wanted(slot.serving.ref)

    # Who goes

    def _balance(self) -> None:
        for slot, cause in self._eviction.make_room():
            self._let_go(slot, cause)

    def _evict(self, slot: Slot[M], cause: str) -> None:
        self._eviction.remove(slot)
        self._let_go(slot, cause)

    def _let_go(self, slot: Slot[M], cause: str) -> None:
        holding = slot.serving
        assert holding is not None
        assert holding.model is not None
        slot.serving = None
        self._observer.evicted(holding.model, cause)
        self._retire(holding)
        self._forget_if_empty(slot)

    def _retire(self, holding: Holding[M]) -> None:
        self._nbytes -= holding.retire()

    def _forget_if_empty(self, slot: Slot[M]) -> None:
        if slot.serving is None and not slot.fetching and self._slots.get(slot.tenant) is slot:
            del self._slots[slot.tenant]
