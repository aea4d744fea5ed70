"""The memory tier of one simulated replica: who stays, by the rules of `serving.engine.eviction`, all models alike in size.

W-TinyLFU with exact counts: a new model enters a window; what the window cannot hold takes the place of the least busy of
those least recently leased, where it was at least as busy. A test holds this to the real cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

_SAMPLE = 16
_WINDOW_SHARE = 0.05


class SimulatedCache:
    """Tenants in memory.

    Args:
        budget: models that fit.
        half_life: seconds after which a request counts half.
    """

    __slots__ = ("_growth_rate", "_main", "_main_budget", "_weights", "_window", "_window_budget")

    def __init__(self, budget: float, *, half_life: float = 600.0) -> None:
        # Budgets are in models, and a part of a model is no room: as with bytes that a whole model does not fit into.
        self._window_budget = int(budget * _WINDOW_SHARE)
        self._main_budget = int(budget - budget * _WINDOW_SHARE)
        self._window: OrderedDict[int, None] = OrderedDict()
        self._main: OrderedDict[int, None] = OrderedDict()
        self._weights: dict[int, float] = {}
        self._growth_rate = 1.0 / half_life

    def __len__(self) -> int:
        return len(self._window) + len(self._main)

    def __contains__(self, tenant: int) -> bool:
        return tenant in self._main or tenant in self._window

    def hit(self, tenant: int, now: float) -> bool:
        """A request at `now`; whether its model was in memory. It counts when the request gets its model."""
        region = self._main if tenant in self._main else self._window
        if tenant not in region:
            return False
        region.move_to_end(tenant)
        self._count(tenant, now)
        return True

    def loaded(self, tenant: int, waiting: int, now: float) -> None:
        """A model was loaded, and so many requests that waited for it get it now."""
        self._window[tenant] = None
        self._keep_window(tenant if waiting else None)
        for _ in range(waiting):
            self.hit(tenant, now)
        self._keep_window(None)

    def preload(self, tenants: Iterable[int]) -> None:
        """Fill the main region, as far as there is room, the first with the greatest right to it."""
        for tenant in islice(tenants, self._main_budget):
            self._main[tenant] = None

    def _count(self, tenant: int, now: float) -> None:
        self._weights[tenant] = self._weights.get(tenant, 0.0) + 2.0 ** (now * self._growth_rate)

    def _keep_window(self, leased: int | None) -> None:
        """Make the window keep to its budget; the last to come may stay while it is leased."""
        while len(self._window) > self._window_budget:
            oldest = next(iter(self._window))
            if oldest == leased:
                break
            self._leave_window(oldest)

    def _leave_window(self, tenant: int) -> None:
        weights = self._weights
        if len(self._main) >= self._main_budget:
            victims = sorted(islice(self._main, _SAMPLE), key=lambda each: weights.get(each, 0.0))
            if not victims or weights.get(victims[0], 0.0) > weights.get(tenant, 0.0):
                del self._window[tenant]
                return
            del self._main[victims[0]]
        del self._window[tenant]
        self._main[tenant] = None
