"""The flow `retrain_shard` with a trainer that does as a test says: for workers' processes, which import it by name."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State

from flows.fan import Hand, work_shard
from flows.outcome import Outcome
from flows.retrain_shard import take_shard
from flows.runs import read_plan
from flows.shard_book import ShardBook
from flows.shard_settings import ShardSettings
from registry.errors import ObjectNotFound, ShardTaken
from registry.settings import StoreSettings, read_settings
from registry.store import open_store

BEGUN = "test/begun/"
GO = "test/go/"
_POLL_SECONDS = 0.1


@flow(name="retrain_shard", validate_parameters=False)
def retrain_shard(run: str, shard: int, attempt: int) -> State[None]:
    """See `flows.retrain_shard`."""
    return take_shard(run, shard, attempt, lambda _plan: _train)


def work_without_prefect(run: str, shard: int, attempt: int) -> None:
    """The same without a flow."""
    store = open_store(read_settings(StoreSettings))
    tenants = read_plan(store, run).cut().get(shard, ())
    beat = read_settings(ShardSettings).shard_beat_seconds
    with contextlib.suppress(ShardTaken), ShardBook(store, run, shard, attempt=attempt, beat_seconds=beat) as book:
        work_shard(book, tenants, _train, told=lambda _: None)


def _train(tenants: Sequence[str], hand: Hand) -> None:
    """Say that a tenant is begun, and by which process; then wait for its word to go on."""
    store = open_store(read_settings(StoreSettings))
    for tenant in tenants:
        hand.begin(tenant)
        store.put(f"{BEGUN}{tenant}/{uuid.uuid4().hex}", str(os.getpid()).encode())
        while not _may_go_on(tenant):
            time.sleep(_POLL_SECONDS)
        hand.end(Outcome(tenant=tenant, state="not_eligible", reason="it has too few tickets"))


def _may_go_on(tenant: str) -> bool:
    try:
        open_store(read_settings(StoreSettings)).head(f"{GO}{tenant}")
    except ObjectNotFound:
        return False
    return True
