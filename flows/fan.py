"""Where a run's tenants are trained: in this process, or in shards that others take. Records and code are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

from flows.outcome import Outcome
from flows.runs import Parts, Told
from flows.shard_book import BEAT_SECONDS, ShardBook
from registry.store import ObjectStore

_FIELDS = frozenset(field.name for field in fields(Outcome))
_MISSING = "its shard ended without it; run it again"


class Hand(Protocol):
    """Is handed a tenant when its turn begins, and when it ends. Either may raise, to end the work."""

    def begin(self, tenant: str) -> None:
        """Its turn begins."""
        ...

    def end(self, outcome: Outcome) -> None:
        """What became of it."""
        ...


# Trains tenants in this process and those it starts.
TrainHere = Callable[[Sequence[str], Hand], None]


class Fan(Protocol):
    """Has the tenants of shards trained, here or elsewhere."""

    def train(self, parts: Parts) -> Sequence[Mapping[str, Any]]:
        """Train them. Returns an outcome for each, as `Outcome.as_dict` gives it, in any order."""
        ...


class HereFan:
    """Trains one shard after the other in this process.

    Args:
        told: of every tenant's outcome, once, as it comes in.
    """

    def __init__(
        self, store: ObjectStore, run: str, train_here: TrainHere, *, told: Told, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        self._store = store
        self._beat_seconds = beat_seconds
        self._run = run
        self._train_here = train_here
        self._told = told

    def train(self, parts: Parts) -> Sequence[Mapping[str, Any]]:
        """See `Fan.train`."""
        outcomes: list[Mapping[str, Any]] = []
        for shard, tenants in parts.items():
            with ShardBook(self._store, self._run, shard, beat_seconds=self._beat_seconds) as book:
                for outcome in book.outcomes.values():
                    self._told(outcome)
                work_shard(book, tenants, self._train_here, told=self._told)
            outcomes += book.outcomes.values()
        return outcomes


class _Hand:
    """Writes down what a shard's tenants come to."""

    def __init__(self, book: ShardBook, told: Told) -> None:
        self._book = book
        self._told = told

    def begin(self, tenant: str) -> None:
        self._book.begin(tenant)

    def end(self, outcome: Outcome) -> None:
        row = outcome.as_dict()
        self._told(row)
        self._book.end(row)


def work_shard(book: ShardBook, tenants: Sequence[str], train_here: TrainHere, *, told: Told) -> None:
    """Train those of a shard's tenants that have no outcome yet, last those that somebody before had begun.

    Their leases run out meanwhile; and one that ends its process takes no other one along.

    Raises:
        ShardTaken: the shard was given to somebody else meanwhile.
    """
    left = [tenant for tenant in tenants if tenant not in book.outcomes]
    if left:
        train_here(sorted(left, key=lambda tenant: tenant in book.left_behind), _Hand(book, told))


def outcomes_of(tenants: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """The outcomes of a run's tenants, in their order; one that is missing failed. What another release adds is left out."""
    found = {row["tenant"]: Outcome(**{name: row[name] for name in _FIELDS & row.keys()}) for row in rows}
    return [found.get(tenant) or Outcome(tenant=tenant, state="failed", reason=_MISSING) for tenant in tenants]
