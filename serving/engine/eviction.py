"""Who stays in memory: W-TinyLFU, by bytes and exact counts, with pins. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, Literal, TypeAlias

from serving.engine.holding import M, Slot

Cause: TypeAlias = Literal["budget", "not_admitted"]
# How many of the least recently leased models are compared when one has to go.
_SAMPLE = 16


class Region(Generic[M]):
    """Slots whose models share a budget, least recently leased first."""

    __slots__ = ("budget", "nbytes", "slots")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0
        self.slots: OrderedDict[str, Slot[M]] = OrderedDict()


class WindowTinyLfu(Generic[M]):
    """Two regions of slots that serve, and who of them has to go. Owned by one event loop.

    New models enter a small window (5 % of the budget); what the window cannot hold asks for a place in the main region.
    It is given where there is room, or where its tenant's recent traffic is at least that of all those together who would
    have to go: of the 16 least recently leased the least busy first. So a scan of the long tail passes through the window,
    and one model as large as a hundred others must be as busy as they are together. (W-TinyLFU, Einziger et al. 2017,
    arXiv:1512.00727; comparing with all victims together is "AV" of Einziger et al. 2021, arXiv:2105.08770. Our counts
    are exact.) Pinned models are never victims. Each region exceeds its budget only by what is leased or pinned.

    Every slot in it has a model that serves; the slot is told to `add` and `remove` while it has.

    Args:
        budget_bytes: what all models together may count.
        weight: a tenant's recent traffic, for comparing it with others'.
        pinned: whether a tenant's model shall never be evicted.

    Attributes:
        crowded: whether a region is over its budget; a plain attribute, since every end of a lease looks at it.
    """

    WINDOW_SHARE = 0.05

    def __init__(self, budget_bytes: int, *, weight: Callable[[str], float], pinned: Callable[[str], bool]) -> None:
        self._weight = weight
        self._pinned = pinned
        window = int(budget_bytes * self.WINDOW_SHARE)
        self.window: Region[M] = Region(window)
        self.main: Region[M] = Region(budget_bytes - window)
        self.crowded = False

    def __len__(self) -> int:
        """How many models serve."""
        return len(self.window.slots) + len(self.main.slots)

    def slots(self) -> Iterator[Slot[M]]:
        """All of them, the window's first."""
        yield from self.window.slots.values()
        yield from self.main.slots.values()

    def touch(self, slot: Slot[M]) -> None:
        """Its model was leased."""
        tenant = slot.tenant
        (self.window if tenant in self.window.slots else self.main).slots.move_to_end(tenant)

    def add(self, slot: Slot[M]) -> None:
        """Its first model serves."""
        self._put(self.window, slot)

    def resize(self, slot: Slot[M], by: int) -> None:
        """A model so many bytes larger takes the place of its own."""
        self._region_of(slot).nbytes += by
        self._look_at_budgets()

    def remove(self, slot: Slot[M]) -> None:
        """Its model is about to be let go."""
        self._take(self._region_of(slot), slot)

    def make_room(self) -> Iterator[tuple[Slot[M], Cause]]:
        """Make both regions keep to their budgets, as far as leases and pins permit.

        Returns:
            Whose models are to be let go, and why; each has left its region when it comes. To be read to the end.
        """
        for slot in list(self.window.slots.values()) if self.window.nbytes > self.window.budget else ():
            yield from self._leave_window(slot)
            if self.window.nbytes <= self.window.budget:
                break
        yield from self._evicted(self._victims(self.main.nbytes - self.main.budget))

    def _leave_window(self, slot: Slot[M]) -> Iterator[tuple[Slot[M], Cause]]:
        """Move a model to the main region, or evict it where others have the better right; a leased one may stay."""
        assert slot.serving is not None
        excess = self.main.nbytes + slot.serving.nbytes - self.main.budget
        if excess > 0 and not self._pinned(slot.tenant):
            if slot.serving.leases:
                return
            victims = self._victims(excess)
            weight = sum(self._weight(victim.tenant) for victim in victims)
            freed = sum(victim.serving.nbytes for victim in victims if victim.serving)
            if freed < excess or weight > self._weight(slot.tenant):
                self._take(self.window, slot)
                yield slot, "not_admitted"
                return
            yield from self._evicted(victims)
        self._take(self.window, slot)
        self._put(self.main, slot)

    def _victims(self, excess: int) -> list[Slot[M]]:
        """Who would have to go for so many bytes; fewer bytes where all others are leased or pinned.

        Of a few that were leased longest ago the least busy: one of the hot set happens to pause for longer than a tail
        model is there.
        """
        free = (
            slot
            for slot in self.main.slots.values()
            if slot.serving is not None and not slot.serving.leases and not self._pinned(slot.tenant)
        )
        victims: list[Slot[M]] = []
        while excess > 0 and (oldest := list(islice(free, _SAMPLE))):
            for slot in sorted(oldest, key=lambda slot: self._weight(slot.tenant)):
                if excess <= 0:
                    break
                assert slot.serving is not None
                victims.append(slot)
                excess -= slot.serving.nbytes
        return victims

    def _evicted(self, victims: list[Slot[M]]) -> Iterator[tuple[Slot[M], Cause]]:
        for victim in victims:
            self._take(self.main, victim)
            yield victim, "budget"

    def _region_of(self, slot: Slot[M]) -> Region[M]:
        return self.window if slot.tenant in self.window.slots else self.main

    def _put(self, region: Region[M], slot: Slot[M]) -> None:
        assert slot.serving is not None
        region.slots[slot.tenant] = slot
        region.nbytes += slot.serving.nbytes
        self._look_at_budgets()

    def _take(self, region: Region[M], slot: Slot[M]) -> None:
        assert slot.serving is not None
        del region.slots[slot.tenant]
        region.nbytes -= slot.serving.nbytes
        self._look_at_budgets()

    def _look_at_budgets(self) -> None:
        self.crowded = self.window.nbytes > self.window.budget or self.main.nbytes > self.main.budget
