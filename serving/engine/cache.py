"""The memory tier: models in memory under a byte budget, loaded on demand and leased to requests."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from registry.errors import LoadBackingOff, MacrofleetError, NotReady, Overloaded, StoreError
from serving.engine.traffic import Traffic
from serving.fleet_watch import ModelRef

_LOG = logging.getLogger(__name__)
# How many of the least recently leased models are compared when one has to go.
_SAMPLE = 16
# What a load may fail of without anything being wrong with the model.
_NOT_THE_MODELS_FAULT = (Overloaded, NotReady, StoreError)


class Sized(Protocol):
    """What the cache asks of a model."""

    @property
    def nbytes(self) -> int:
        """What it counts against the budget."""
        ...


M = TypeVar("M", bound=Sized)
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
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Slot(Generic[M]):
    """A tenant that has something in memory or on its way there."""

    tenant: str
    serving: _Holding[M] | None = None
    fetching: dict[ModelRef, _Holding[M]] = field(default_factory=dict)
    hits: int = 0
    last_used: float | None = None
    load_seconds: float | None = None
    wait_seconds: float | None = None


@dataclass(slots=True)
class _Failure:
    ref: ModelRef
    error: str
    retry_at: float
    pause: float


class _Region(Generic[M]):
    """Slots whose models share a budget, least recently leased first."""

    __slots__ = ("budget", "nbytes", "slots")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0
        self.slots: OrderedDict[str, _Slot[M]] = OrderedDict()

    def add(self, slot: _Slot[M], nbytes: int) -> None:
        self.slots[slot.tenant] = slot
        self.nbytes += nbytes

    def remove(self, slot: _Slot[M], nbytes: int) -> None:
        del self.slots[slot.tenant]
        self.nbytes -= nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """What a replica knows of one tenant's model.

    Attributes:
        version: what the fleet wants served.
        serving_version: what is served; None when nothing is in memory.
        state: "absent", "fetching" (the first load is under way) or "ready".
        bytes: mapped.
        pinned: kept in memory whatever happens.
        leases: requests that use it or wait for it now.
        hits: requests since it is in memory.
        last_used_seconds: since the last request.
        load_ms: the last load took.
        wait_ms: the first request waited.
        error: why the last load failed, where one did.
    """

    tenant: str
    version: str
    serving_version: str | None = None
    state: str = "absent"
    bytes: int = 0
    pinned: bool = False
    leases: int = 0
    hits: int = 0
    last_used_seconds: float | None = None
    load_ms: float | None = None
    wait_ms: float | None = None
    error: str | None = None


class Lease(Generic[M]):
    """A model that stays in memory until `release`, which is the end of the `with` block."""

    __slots__ = ("_cache", "_holding", "model")

    def __init__(self, cache: ModelCache[M], holding: _Holding[M]) -> None:
        assert holding.model is not None
        self._cache = cache
        self._holding: _Holding[M] | None = holding
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

    A version of a model is in one of four states:

        absent ──lease or renew──▶ fetching ──loaded──▶ ready ──swapped or evicted──▶ retiring ──last lease ends──▶ absent
                                     │                                                  ▲
                                     ├──failed: its waiters hear why──▶ absent          │
                                     └──loaded, but nobody wants it any more────────────┘

    - One load a version, however many ask; it is nobody's in particular, so a caller that gives up harms no other.
    - Waiting counts as a lease: a model cannot be evicted between its load and its first use.
    - A leased model is never dropped.
    - A lease takes what serves. `renew` brings what the fleet names, beside it; what serves goes on until the new one is
      ready, and longer where that fails. Leases end on what they began with.
    - A failed load reaches those who wait and leaves nothing behind but a pause, which doubles with every failure in a
      row: within it, the next lease is refused at once.

    **Who stays.** New models enter a small window (5 % of the budget); what the window cannot hold asks for a place in
    the main region. It is given where there is room, or where its tenant's recent traffic is at least that of all those
    together who would have to go: of the 16 least recently leased the least busy first. So a scan of the long tail passes
    through the window, and one model as large as a hundred others must be as busy as they are together. (W-TinyLFU,
    Einziger et al. 2017, arXiv:1512.00727; comparing with all victims together is "AV" of Einziger et al. 2021,
    arXiv:2105.08770. Our counts are exact.) Pinned models are never victims. Each region exceeds its budget only by what
    is leased or pinned.

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

    WINDOW_SHARE = 0.05

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
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._slots: dict[str, _Slot[M]] = {}
        window = int(budget_bytes * self.WINDOW_SHARE)
        self._window: _Region[M] = _Region(window)
        self._main: _Region[M] = _Region(budget_bytes - window)
        self._failures: dict[str, _Failure] = {}
        self._nbytes = 0
        self._loads: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of all models in memory, those retiring included."""
        return self._nbytes

    def __len__(self) -> int:
        """How many models serve."""
        return len(self._window.slots) + len(self._main.slots)

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
            self._refuse_within_pause(ref)
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
            self._refuse_within_pause(ref)
            holding = self._fetch(ref, demand=False)
        await holding.settled.wait()
        if holding.error is not None:
            raise holding.error

    def outdated(self) -> list[str]:
        """Tenants in memory for whom the fleet names another version than the one that serves."""
        return [slot.tenant for slot in self._serving() if not self._is_current(slot)]

    def retain(self, keep: Callable[[str], bool]) -> None:
        """Follow a new fleet: let go of the models of tenants that have left it, and of those that fit only while pinned."""
        for slot in list(self._serving()):
            if not keep(slot.tenant):
                self._evict(slot, "left_fleet")
        self._failures = {tenant: failure for tenant, failure in self._failures.items() if keep(tenant)}
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
        slot, failure = self._slots.get(ref.tenant), self._failures.get(ref.tenant)
        said = ModelStatus(
            tenant=ref.tenant,
            version=ref.version,
            pinned=self._pinned(ref.tenant),
            error=failure.error if failure is not None and failure.ref == ref else None,
        )
        if slot is None:
            return said
        serving = slot.serving
        return ModelStatus(
            tenant=said.tenant,
            version=said.version,
            pinned=said.pinned,
            error=said.error,
            serving_version=serving.ref.version if serving else None,
            state="ready" if serving else "fetching",
            bytes=_nbytes(serving) if serving else 0,
            leases=sum(each.leases for each in (*slot.fetching.values(), *([serving] if serving else []))),
            hits=slot.hits,
            last_used_seconds=None if slot.last_used is None else round(self._clock() - slot.last_used, 3),
            load_ms=_milliseconds(slot.load_seconds),
            wait_ms=_milliseconds(slot.wait_seconds),
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

    def _lease(self, slot: _Slot[M] | None, holding: _Holding[M]) -> Lease[M]:
        holding.leases += 1
        self._traffic.count(holding.ref.tenant)
        if slot is not None and slot.serving is holding:
            slot.hits += 1
            slot.last_used = self._clock()
            self._region_of(slot).slots.move_to_end(slot.tenant)
        return Lease(self, holding)

    def _release(self, holding: _Holding[M]) -> None:
        holding.leases -= 1
        if holding.leases:
            return
        if holding.state is _State.RETIRING:
            self._drop(holding)
        elif self._window.nbytes > self._window.budget or self._main.nbytes > self._main.budget:
            self._balance()

    # Loads

    def _refuse_within_pause(self, ref: ModelRef) -> None:
        failure = self._failures.get(ref.tenant)
        if failure is None or failure.ref != ref:
            return
        left = failure.retry_at - self._clock()
        if left > 0:
            raise LoadBackingOff(
                f"the model of tenant {ref.tenant} failed to load a moment ago: {failure.error}",
                retry_after_seconds=left,
            )

    def _fetch(self, ref: ModelRef, *, demand: bool) -> _Holding[M]:
        if self._closed:
            raise NotReady("the server is stopping")
        slot = self._slots.setdefault(ref.tenant, _Slot(ref.tenant))
        holding: _Holding[M] = _Holding(ref)
        slot.fetching[ref] = holding
        load = asyncio.create_task(self._fetched(slot, holding, demand=demand), name=f"load {ref.tenant}")
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        return holding

    async def _fetched(self, slot: _Slot[M], holding: _Holding[M], *, demand: bool) -> None:
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

    def _succeed(self, slot: _Slot[M], holding: _Holding[M], model: M) -> None:
        del slot.fetching[holding.ref]
        self._failures.pop(slot.tenant, None)
        holding.model = model
        holding.state = _State.READY
        self._nbytes += model.nbytes
        replaced = slot.serving
        if replaced is None:
            slot.serving = holding
            self._window.add(slot, model.nbytes)
            self._catch_up(slot)
        elif self._is_wanted(holding.ref):
            region = self._region_of(slot)
            region.nbytes += model.nbytes - _nbytes(replaced)
            slot.serving = holding
            self._retire(replaced)
            self._observer.swapped("done")
        else:
            self._retire(holding)  # the fleet went on meanwhile
        self._balance()

    def _catch_up(self, slot: _Slot[M]) -> None:
        """Where the fleet went on while a first load was under way, go after it; its callers have what they asked for."""
        with suppress(MacrofleetError):
            wanted = self._wanted(slot.tenant)
            if slot.serving is not None and slot.serving.ref != wanted and wanted not in slot.fetching:
                self._refuse_within_pause(wanted)
                self._fetch(wanted, demand=False)

    def _fail(self, slot: _Slot[M], holding: _Holding[M], error: Exception) -> None:
        ref = holding.ref
        del slot.fetching[ref]
        holding.error = error
        holding.state = _State.RETIRING
        holding.gone.set()
        self._observer.load_failed(error)
        if not isinstance(error, _NOT_THE_MODELS_FAULT):
            self._note_failure(ref, error)
        if slot.serving is not None:
            self._observer.swapped("failed")
            extra = {"tenant": ref.tenant, "version": ref.version, "serving": slot.serving.ref.version}
            _LOG.warning("a new version cannot be loaded, the old one goes on serving", extra=extra, exc_info=error)
        self._forget_if_empty(slot)

    def _note_failure(self, ref: ModelRef, error: Exception) -> None:
        before = self._failures.get(ref.tenant)
        shortest, longest = self._pause_seconds
        pause = shortest if before is None or before.ref != ref else min(before.pause * 2, longest)
        # The text of what is not the domain's may quote anything.
        said = str(error) if isinstance(error, MacrofleetError) else type(error).__name__
        self._failures[ref.tenant] = _Failure(ref, said, self._clock() + pause, pause)

    def _is_wanted(self, ref: ModelRef) -> bool:
        try:
            return self._wanted(ref.tenant) == ref
        except MacrofleetError:
            return False

    def _is_current(self, slot: _Slot[M]) -> bool:
        return slot.serving is not None and self._is_wanted(slot.serving.ref)

    # Who stays

    def _serving(self) -> Iterator[_Slot[M]]:
        yield from self._window.slots.values()
        yield from self._main.slots.values()

    def _region_of(self, slot: _Slot[M]) -> _Region[M]:
        return self._window if slot.tenant in self._window.slots else self._main

    def _balance(self) -> None:
        """Make both regions keep to their budgets, as far as leases and pins permit."""
        for slot in list(self._window.slots.values()) if self._window.nbytes > self._window.budget else ():
            self._leave_window(slot)
            if self._window.nbytes <= self._window.budget:
                break
        excess = self._main.nbytes - self._main.budget
        for slot in self._victims(excess) or () if excess > 0 else ():
            self._evict(slot, "budget")

    def _leave_window(self, slot: _Slot[M]) -> None:
        """Move a model to the main region, or evict it where others have the better right; a leased one may stay."""
        assert slot.serving is not None
        nbytes = _nbytes(slot.serving)
        excess = self._main.nbytes + nbytes - self._main.budget
        if excess > 0 and not self._pinned(slot.tenant):
            if slot.serving.leases:
                return
            victims = self._victims(excess)
            weight = sum(self._traffic.weight(victim.tenant) for victim in victims)
            freed = sum(_nbytes(victim.serving) for victim in victims if victim.serving)
            if freed < excess or weight > self._traffic.weight(slot.tenant):
                self._evict(slot, "not_admitted")
                return
            for victim in victims:
                self._evict(victim, "budget")
        self._window.remove(slot, nbytes)
        self._main.add(slot, nbytes)

    def _victims(self, excess: int) -> list[_Slot[M]]:
        """Who would have to go for so many bytes; fewer bytes where all others are leased or pinned.

        Of a few that were leased longest ago the least busy: one of the hot set happens to pause for longer than a tail
        model is there.
        """
        free = (
            slot
            for slot in self._main.slots.values()
            if slot.serving is not None and not slot.serving.leases and not self._pinned(slot.tenant)
        )
        victims: list[_Slot[M]] = []
        while excess > 0 and (oldest := list(islice(free, _SAMPLE))):
            for slot in sorted(oldest, key=lambda slot: self._traffic.weight(slot.tenant)):
                if excess <= 0:
                    break
                assert slot.serving is not None
                victims.append(slot)
                excess -= _nbytes(slot.serving)
        return victims

    def _evict(self, slot: _Slot[M], cause: str) -> None:
        holding = slot.serving
        assert holding is not None
        assert holding.model is not None
        self._region_of(slot).remove(slot, holding.model.nbytes)
        slot.serving = None
        self._observer.evicted(holding.model, cause)
        self._retire(holding)
        self._forget_if_empty(slot)

    def _retire(self, holding: _Holding[M]) -> None:
        holding.state = _State.RETIRING
        if not holding.leases:
            self._drop(holding)

    def _drop(self, holding: _Holding[M]) -> None:
        # Dropping the last reference is what unmaps: the arrays keep the mapping alive.
        if holding.model is not None:
            self._nbytes -= holding.model.nbytes
            holding.model = None
            holding.gone.set()

    def _forget_if_empty(self, slot: _Slot[M]) -> None:
        if slot.serving is None and not slot.fetching and self._slots.get(slot.tenant) is slot:
            del self._slots[slot.tenant]


def _nbytes(holding: _Holding[M]) -> int:
    assert holding.model is not None
    return holding.model.nbytes


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
