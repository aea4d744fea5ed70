"""Which of two regions' stores a server reads from, as metrics; and where these come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from registry.settings import CopyStoreSettings, StoreSettings
from registry.store import ObjectStore, open_store
from registry.store.failover import ROLES, FailoverStore
from serving.metrics import Metrics
from serving.settings import ServingSettings


def open_serving_store(settings: ServingSettings, home: StoreSettings, copy: CopyStoreSettings) -> ObjectStore:
    """The store that a server reads from: the home store, or that and its copy.

    Raises:
        InvalidInput: the settings name no store.
    """
    there = copy.as_store()
    if there is None:
        return open_store(home)
    stores = open_store(home, patient=False), open_store(there, patient=False)
    return FailoverStore(*stores, near=settings.read_from)


@contextmanager
def closing_store(store: ObjectStore) -> Iterator[ObjectStore]:
    """A store, of which nobody is asked any more in the background after the context."""
    try:
        yield store
    finally:
        if isinstance(store, FailoverStore):
            store.close()


def home_of(store: ObjectStore) -> ObjectStore:
    """Where a server writes feedback, and asks what it must not be told late."""
    return store.home if isinstance(store, FailoverStore) else store


def add_store_metrics(metrics: Metrics, store: ObjectStore) -> None:
    """Have a server's metrics tell which of two stores answers. There are no figures where there is but one."""

    def reads() -> Mapping[tuple[str, ...], int]:
        if not isinstance(store, FailoverStore):
            return {}
        told: dict[tuple[str, ...], int] = {(role, "answered"): count for role, count in store.answered.items()}
        return told | {(role, "failed"): count for role, count in store.failed.items()}

    about = "Reads of the store and of its copy in another region"
    metrics.counters("macrofleet_store_reads_total", about, ("store", "outcome"), reads)
    for role in ROLES:
        metrics.gauge(
            "macrofleet_store_serves",
            "Whether reads go to this one of the two stores",
            lambda role=role: float(store.serving() == role) if isinstance(store, FailoverStore) else None,  # type: ignore[misc]
            labels={"store": role},
        )
        metrics.gauge(
            "macrofleet_store_away",
            "Whether this one of the two stores did not answer last",
            lambda role=role: float(store.is_away(role)) if isinstance(store, FailoverStore) else None,  # type: ignore[misc]
            labels={"store": role},
        )
