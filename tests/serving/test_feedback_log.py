"""Group commit, impressions that may be lost, and shipping, with a store that fails and processes that died."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import to_json

from registry.deletion.tombstones import buried_among
from registry.errors import FeedbackUnavailable, StoreUnavailable
from registry.feedback.records import Shown
from serving.feedback import log as module
from serving.feedback.journal import Journal, claim_left, line_of
from serving.feedback.log import FeedbackLog, add_feedback_metrics
from serving.feedback.pace import Pace
from serving.feedback.shipping import Shipper
from serving.metrics import Metrics
from tests.registry.memory_store import MemoryStore
from tests.serving.feedback_world import HeldSync, make_log, record, running, stored
from tests.serving.helpers import eventually, spin

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(versioned=False)


class Unreachable(MemoryStore):
    """A store that is away until told otherwise."""

    away = True

    def put(self, key: str, data: bytes, **conditions: Any) -> str:
        if self.away:
            raise StoreUnavailable("the store is away")
        return super().put(key, data, **conditions)


def show(log: FeedbackLog, number: int, **more: Any) -> None:
    about = {"suggestion_id": f"s{number}", "model_version": "v", "macro_ids": ["m1"], "abstained": False, **more}
    log.shown("acme", **about)


async def test_those_who_wait_share_a_sync(tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = HeldSync()
    monkeypatch.setattr(os, "fdatasync", sync)
    async with running(tmp_path, store) as log:
        first = asyncio.create_task(log.keep(record(0)))
        await asyncio.to_thread(sync.begun.wait, 60)
        others = [asyncio.create_task(log.keep(record(number))) for number in range(1, 100)]
        await spin()
        assert not any(task.done() for task in (first, *others))
        sync.gate.set()
        await asyncio.gather(first, *others)
        assert sync.calls == 2
        assert log.tally.accepted == 100
    assert len(stored(store)) == 100


async def test_nobody_is_answered_before_the_sync_and_all_are_refused_when_it_fails(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with running(tmp_path, store) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            done = await asyncio.gather(log.keep(record(1)), log.keep(record(2)), return_exceptions=True)
            assert [type(each) for each in done] == [FeedbackUnavailable, FeedbackUnavailable]
        await log.keep(record(3))
        assert (log.tally.accepted, log.tally.refused) == (1, 2)
    assert [each.suggestion_id for each in stored(store)] == ["s3"]


async def test_a_caller_that_goes_loses_nothing_and_holds_up_nobody(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = HeldSync()
    monkeypatch.setattr(os, "fdatasync", sync)
    async with running(tmp_path, store) as log:
        gone, stays = asyncio.create_task(log.keep(record(1))), asyncio.create_task(log.keep(record(2)))
        await spin()
        gone.cancel()
        sync.gate.set()
        await stays
    assert {each.suggestion_id for each in stored(store)} == {"s1", "s2"}


async def test_the_queue_is_bounded(tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 1)
    monkeypatch.setattr(module, "_MOST_IMPRESSIONS", 1)
    async with running(tmp_path, store) as log:
        show(log, 1)
        show(log, 2)
        waiting = asyncio.create_task(log.keep(record(1)))
        await spin(1)
        done = await asyncio.gather(log.keep(record(2)), return_exceptions=True)
        await waiting
        # The writer may have taken the first one already.
        assert log.tally.accepted + log.tally.refused == 2
        assert log.tally.refused == sum(isinstance(each, FeedbackUnavailable) for each in done)
        assert (log.tally.kept, log.tally.dropped) == (1, 1)


async def test_impressions_are_written_without_a_sync_and_never_keep_feedback_out(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise AssertionError("an impression was synced")

    async with running(tmp_path, store, max_bytes=4000) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            for number in range(8):
                show(log, number)
            await log._settle()
            assert (log.tally.kept, log.tally.dropped) == (8, 0)
            for number in range(8, 100):
                show(log, number)
                await log._settle()
            assert log.tally.dropped > 0
        assert log.nbytes < 2500
        await log.keep(record(1))
    kept = stored(store)
    assert sum(isinstance(each, Shown) for each in kept) == log.tally.kept
    assert len(kept) == log.tally.kept + 1


async def test_views_of_one_answer_are_one_view(tmp_path: Path, store: MemoryStore) -> None:
    async with running(tmp_path, store) as log:
        for _ in range(3):
            show(log, 1)
        await log.flush()
        show(log, 1)
        show(log, 1, held_back=True)
    assert [(each.suggestion_id, each.held_back) for each in stored(store) if isinstance(each, Shown)] == [
        ("s1", False),
        ("s1", True),
    ]


async def test_an_event_that_is_sent_again_counts_once(tmp_path: Path, store: MemoryStore) -> None:
    async with running(tmp_path, store) as log:
        await log.keep(record(1))
        await log.keep(record(1))
        await log.flush()
        await log.keep(record(1, at=2_000_000_000.0))
    async with running(tmp_path, store) as other:
        await other.keep(record(1))
    assert [each.at for each in stored(store)] == [1_700_000_001.0]


async def test_tenants_do_not_mix(tmp_path: Path, store: MemoryStore) -> None:
    async with running(tmp_path, store) as log:
        await asyncio.gather(*(log.keep(record(number, tenant=f"t{number % 3}")) for number in range(9)))
    for place in range(3):
        assert [each.tenant for each in stored(store, f"t{place}")] == [f"t{place}"] * 3
    assert list(tmp_path.iterdir()) == []


async def test_a_segment_costs_a_write_and_a_read_for_each_tenant(tmp_path: Path) -> None:
    """However many records: what docs/feedback.md counts with."""
    requests: Counter[str] = Counter()

    class Counting(MemoryStore):
        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            requests["put"] += 1
            return super().put(key, data, **conditions)

        def get(self, key: str, **more: Any) -> Any:
            requests["get"] += 1
            return super().get(key, **more)

        def list(self, prefix: str = "") -> Any:
            requests["list"] += 1
            return super().list(prefix)

    store = Counting(versioned=False)
    shipper = Shipper(store, deleted_among=lambda tenants: buried_among(store, tenants))
    async with running(tmp_path, store, shipper=shipper) as log:
        for number in range(200):
            await log.keep(record(number, tenant=f"tenant-{number % 50}"))
        await log.flush()
        assert requests == {"put": 50, "list": 1}
        assert (log.tally.objects, log.tally.shipped) == (50, 200)


async def test_a_file_goes_only_once_all_its_objects_are_there(tmp_path: Path) -> None:
    store = Unreachable(versioned=False)
    async with running(tmp_path, store) as log:
        await log.keep(record(1))
        with pytest.raises(StoreUnavailable):
            await log.flush()
        assert log.nbytes > 0
        assert len(list(tmp_path.rglob("*.journal"))) == 1
        store.away = False
        await log.flush()
        assert log.nbytes == 0
        assert log.tally.shipped == 1
        assert list(tmp_path.rglob("*.journal")) == []
    assert len(stored(store)) == 1


async def test_what_a_server_could_not_ship_the_next_one_ships(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unreachable(versioned=False)
    async with running(tmp_path, store) as log:
        await log.keep(record(1))
    assert "feedback stays on the disk" in caplog.text
    store.away = False
    async with running(tmp_path, store) as log:
        await log.flush()
        assert len(stored(store)) == 1
        assert list(tmp_path.iterdir()) == []


async def test_a_segment_that_is_shipped_again_is_the_same_object(tmp_path: Path, store: MemoryStore) -> None:
    left = Journal(tmp_path, max_bytes=1 << 20, segment_bytes=1 << 16, segment_seconds=3600)
    async with running(tmp_path, store) as log:
        await log.keep(record(1))
        await log._settle()
        await log._writer.run(log._journal.rotate, force=True)  # type: ignore[union-attr]
        (segment,) = log._journal.sealed()
        await log._ship(segment)  # and died before the file was removed
    keys = [info.key for info in store.list()]
    assert len(keys) == 1
    assert len(stored(store)) == 1
    left.close()


async def test_a_running_server_takes_over_from_one_that_died(tmp_path: Path, store: MemoryStore) -> None:
    now = [0.0]
    async with running(tmp_path, store, tick_seconds=0.001, clock=lambda: now[0]) as log:
        await spin()
        dead = Journal(tmp_path, max_bytes=1 << 20, segment_bytes=1 << 16, segment_seconds=3600)
        dead.append([line_of(to_json(record(7)))], sync=True)
        dead.close()
        now[0] += 31
        await eventually(lambda: log.tally.shipped == 1)  # which is counted after it was written
        assert len(stored(store)) == 1


async def test_what_another_release_left_is_left_to_it_whole(
    tmp_path: Path, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """An older server that follows a newer one (a rollback) neither ships half of a segment nor removes it."""
    newer = Journal(tmp_path, max_bytes=1 << 20, segment_bytes=1 << 16, segment_seconds=3600)
    newer.append([line_of(to_json(record(1))), line_of(b'{"tenant":"acme","of":"a later release"}')], sync=True)
    newer.rotate(force=True)
    newer.append([line_of(to_json(record(2)))], sync=True)
    newer.close()
    async with running(tmp_path, store) as log:
        await log.flush()
        assert [each.suggestion_id for each in stored(store)] == ["s2"]
    assert "another release" in caplog.text
    (left,) = claim_left(tmp_path)
    assert [len(list(segment.records())) for segment in left.segments] == [2]
    left.close()


async def test_pauses_between_attempts_grow_and_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now, store = [0.0], Unreachable(versioned=False)
    changes = {"tick_seconds": 0.001, "segment_seconds": 0.0, "clock": lambda: now[0]}
    async with running(tmp_path, store, **changes) as log:
        await log.keep(record(1))
        for attempt in range(1, 4):
            await eventually(lambda attempt=attempt: log.tally.failed_shipments == attempt)  # type: ignore[misc]
            now[0] += 1
        store.away = False
        await eventually(lambda: log.nbytes == 0)
    assert "feedback cannot be shipped" in caplog.text


async def test_a_store_that_hangs_costs_no_views(tmp_path: Path) -> None:
    class Hanging(MemoryStore):
        asked, gate = threading.Event(), threading.Event()

        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            self.asked.set()
            assert self.gate.wait(60)
            return super().put(key, data, **conditions)

    store = Hanging(versioned=False)
    async with running(tmp_path, store, tick_seconds=0.001, segment_seconds=0.0) as log:
        show(log, 1)
        await eventually(store.asked.is_set)
        try:
            show(log, 2)
            await eventually(lambda: log.tally.kept == 2)
        finally:
            store.gate.set()
    assert len(stored(store)) == 2


async def test_the_fuller_the_journal_the_more_of_a_processor_shipping_gets(tmp_path: Path) -> None:
    log = make_log(tmp_path, MemoryStore(versioned=False), max_bytes=100_000)
    found = []
    for _ in range(5):
        found.append(round(log._shipping_share(), 2))
        log._journal.append([line_of(b"x" * 12_000)], sync=False)
    assert found == [0.05, 0.05, 0.05, 0.43, 1.0]
    log._journal.close()


async def test_a_flush_does_not_wait_for_shipping_that_rests(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHIPPING_THREADS", 1)
    async with running(tmp_path, store) as log:
        rests = threading.Event()

        def share() -> float:
            rests.set()
            return 1e-6  # a second of work, then eleven days of rest

        log._pace = Pace(share, used=itertools.count().__next__)
        await log.keep(record(1))
        await log._settle()
        await log._writer.run(log._journal.rotate, force=True)  # type: ignore[union-attr]
        resting = asyncio.create_task(log._ship_round())
        await eventually(rests.is_set)
        assert not resting.done()
        await log.flush()
        await resting
        assert log.nbytes == 0


async def test_at_the_end_threads_leave_what_they_have_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the process would wait for them: for as long as a store takes that hangs."""
    monkeypatch.setattr(module, "_LAST_SHIPPING_SECONDS", 0.01)

    class Hanging(MemoryStore):
        puts, gate = 0, threading.Event()

        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            type(self).puts += 1
            assert self.gate.wait(60)
            return super().put(key, data, **conditions)

    store = Hanging(versioned=False)
    async with running(tmp_path, store) as log:
        for number in range(20):
            await log.keep(record(number, tenant=f"tenant-{number}"))
    store.gate.set()
    log._shippers._pool.shutdown()  # type: ignore[union-attr]  # waits for its threads
    assert store.puts <= module._SHIPPING_THREADS


async def test_feedback_on_deleted_tenants_is_dropped(tmp_path: Path, store: MemoryStore) -> None:
    asked: list[list[str]] = []

    def deleted_among(tenants: Iterable[str]) -> set[str]:
        asked.append(sorted(tenants))
        return {"deleted"}.intersection(tenants)

    shipper = Shipper(store, is_known=lambda tenant: tenant == "acme", deleted_among=deleted_among)
    async with running(tmp_path, store, shipper=shipper) as log:
        for number, tenant in enumerate(("acme", "deleted", "unknown")):
            await log.keep(record(number, tenant=tenant))
    assert [len(stored(store, tenant)) for tenant in ("acme", "deleted", "unknown")] == [1, 0, 1]
    # Before writing of those that the fleet does not have, and after it of all.
    assert asked == [["deleted", "unknown"], ["acme", "unknown"]]
    assert log.tally.shipped == 2
    assert list(tmp_path.iterdir()) == []


async def test_feedback_on_a_tenant_that_is_deleted_as_it_is_shipped_does_not_stay(tmp_path: Path) -> None:
    store = MemoryStore(versioned=True)
    deleted: set[str] = set()
    store.on_put = lambda _: deleted.add("acme")
    async with running(tmp_path, store, shipper=Shipper(store, deleted_among=deleted.intersection)) as log:
        await log.keep(record(1))
    assert list(store.states()) == []
    assert log.tally.shipped == 0
    assert list(tmp_path.iterdir()) == []


async def test_metrics(tmp_path: Path, store: MemoryStore) -> None:
    now = [1_700_000_000.0]
    metrics = Metrics()
    log = make_log(tmp_path, store, wall=lambda: now[0])
    add_feedback_metrics(metrics, log)
    async with log.running():
        show(log, 1)
        await log.keep(record(1))
        now[0] += 90
        text, _ = metrics.exposition()
        values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }
        assert values["macrofleet_feedback_total", "accepted"] == 1
        assert values["macrofleet_impressions_total", "kept"] == 1
        assert values["macrofleet_feedback_journal_bytes",] == log.nbytes > 0
        assert values["macrofleet_feedback_unshipped_age_seconds",] == 90
