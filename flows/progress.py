"""How far a run is, over all of its tenants, for whoever listens in the process that conducts it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

# Told of (a tenant, how many are done, of how many, their finished share); set by whoever shows progress in this process.
Listener = Callable[[str, int, int, float], None]
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class RunProgress:
    """Counts the tenants of a whole run, however it is cut into shards and wherever they are worked on.

    May be used from any thread; the listener is the one of the context that this was made in, and is told one thing at a
    time.

    Args:
        total: how many tenants the run is about.
    """

    def __init__(self, total: int) -> None:
        self._total, self._listener, self._lock = total, listener.get(), threading.Lock()
        self._shares: dict[str, float] = {}
        self._done: set[str] = set()

    def told(self, tenant: str, share: float) -> None:
        """A tenant that is worked on in this process is so far (0 to 1)."""
        with self._lock:
            if tenant not in self._done:
                self._shares[tenant] = share
                self._tell(tenant)

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """What became of a tenant, as `flows.outcome.Outcome.as_dict` gives it. Saying it again is saying it once."""
        tenant = str(outcome["tenant"])
        with self._lock:
            self._shares.pop(tenant, None)
            if tenant not in self._done:
                self._done.add(tenant)
                self._tell(tenant)

    def _tell(self, tenant: str) -> None:
        if self._listener is not None:
            done = len(self._done)
            # Rounded once: by a plain sum the share could go back a little when a tenant ends.
            share = math.fsum([done, *self._shares.values()]) / max(1, self._total)
            self._listener(tenant, done, self._total, share)
