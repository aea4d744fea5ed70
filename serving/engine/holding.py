"""A version of a model on its way through its states, and what one tenant has of them. No I/O."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from serving.fleet_watch import ModelRef


class Sized(Protocol):
    """What the cache asks of a model."""

    @property
    def nbytes(self) -> int:
        """What it counts against the budget."""
        ...


M = TypeVar("M", bound=Sized)


class State(enum.Enum):
    """Of a version that is not absent; the picture is `Holding`'s."""

    FETCHING = enum.auto()
    READY = enum.auto()
    RETIRING = enum.auto()


@dataclass(slots=True, eq=False)
class Holding(Generic[M]):
    """One version of one tenant's model, from the beginning of its load until its memory is free.

        absent ──lease or renew──▶ fetching ──loaded──▶ ready ──swapped or evicted──▶ retiring ──last lease ends──▶ absent
                                     │                                                  ▲
                                     ├──failed: its waiters hear why──▶ absent          │
                                     └──loaded, but nobody wants it any more────────────┘

    Whoever counts `leases` calls `drop` when a retiring version's last one has ended.

    Attributes:
        leases: requests that use it, and those who wait for it.
        model: from ready on, until it is dropped.
        error: why its load failed.
        settled: set when its load has ended either way.
        gone: set when its memory is free.
    """

    ref: ModelRef
    state: State = State.FETCHING
    leases: int = 0
    model: M | None = None
    error: Exception | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def nbytes(self) -> int:
        """Bytes of its model, which must be there."""
        assert self.model is not None
        return self.model.nbytes

    def become_ready(self, model: M) -> None:
        """It was loaded."""
        self.model = model
        self.state = State.READY

    def fail(self, error: Exception) -> None:
        """It could not be loaded; who waits for it finds the error here."""
        self.error = error
        self.state = State.RETIRING
        self.gone.set()

    def retire(self) -> int:
        """Nobody leases it any more who has not yet. Returns the bytes that are free at once: 0 while leases last."""
        self.state = State.RETIRING
        return 0 if self.leases else self.drop()

    def drop(self) -> int:
        """Let go of the model. Returns the bytes that are free now; 0 where it was gone already."""
        if self.model is None:
            return 0
        freed = self.model.nbytes
        self.model = None  # the last reference is what unmaps: the arrays keep the mapping alive
        self.gone.set()
        return freed


@dataclass(slots=True, eq=False)
class Slot(Generic[M]):
    """A tenant that has something in memory or on its way there.

    Attributes:
        serving: what leases are given of; None until the first load has ended.
        fetching: the loads under way.
        hits: leases of what serves.
        last_used: when the last one began, by the cache's clock.
        load_seconds: the last load took.
        wait_seconds: the first lease waited.
    """

    tenant: str
    serving: Holding[M] | None = None
    fetching: dict[ModelRef, Holding[M]] = field(default_factory=dict)
    hits: int = 0
    last_used: float | None = None
    load_seconds: float | None = None
    wait_seconds: float | None = None
