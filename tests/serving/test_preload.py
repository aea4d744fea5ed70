from __future__ import annotations

import asyncio
import logging

import pytest

from registry.errors import (
    BundleCorrupt,
    OutOfResources,
    ProgramCorrupt,
    ProgramUntrusted,
    StoreError,
    StoreUnavailable,
)
from registry.fleet.state import Fleet, FleetEntry, PreloadPlan
from serving.engine.preload import Preload, Progress, plan_models
from serving.fleet_watch import ModelRef
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio


class Preparing:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.failing: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.held: dict[str, asyncio.Event] = {}
        self.at_work = self.most_at_work = 0

    async def __call__(self, ref: ModelRef) -> int:
        self.calls.append(ref.tenant)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        await self.held.get(ref.tenant, self.gate).wait()
        self.at_work -= 1
        if ref.tenant in self.broken:
            raise BundleCorrupt("broken")
        if ref.tenant in self.failing:
            raise self.failing[ref.tenant]
        return 10


@pytest.fixture
def preparing() -> Preparing:
    return Preparing()


def refs(tenants: str, version: str = "1") -> list[ModelRef]:
    return [ModelRef(tenant, version, version) for tenant in tenants]


async def test_progress_shows_and_a_few_go_on_at_a_time(preparing: Preparing) -> None:
    preload = Preload(preparing)
    running = asyncio.create_task(preload.run(refs("abcdefgh")))
    await spin()
    assert preload.progress() == Progress(8, 0, 0, {})
    assert not preload.complete
    preparing.gate.set()
    await running
    assert preload.progress() == Progress(8, 8, 0, {})
    assert preload.complete
    assert 1 < preparing.most_at_work < 8


async def test_beside_answers_they_come_one_at_a_time(preparing: Preparing) -> None:
    preload = Preload(preparing)
    running = asyncio.create_task(preload.run(refs("abcdefgh"), beside_answers=True))
    await spin()
    preparing.gate.set()
    await running
    assert preload.progress() == Progress(8, 8, 0, {})
    assert preparing.most_at_work == 1


async def _rests(seconds_each: float, models: int) -> tuple[list[float], float]:
    """What it rests where each model takes so long; and when the last one has been prepared."""
    now, rests = 0.0, []

    async def prepare(_: ModelRef) -> int:
        nonlocal now
        now += seconds_each
        return 1

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        rests.append(seconds)

    preload = Preload(prepare, clock=lambda: now, sleep=sleep)
    await preload.run([ModelRef(f"t{place}", "0" * 16, "0" * 64) for place in range(models)], beside_answers=True)
    assert preload.progress() == Progress(models, models, 0, {})
    return rests, now


async def test_beside_answers_it_rests_in_between() -> None:
    rests, ended = await _rests(0.5, 5)
    assert rests == pytest.approx([1.5] * 4)  # and none after the last
    assert ended == pytest.approx(5 * 0.5 + 4 * 1.5)
    assert (await _rests(0.0, 3))[0] == [0.0, 0.0]  # what is there already costs nothing
    assert (await _rests(1.0, 1))[0] == []


@pytest.mark.parametrize(("seconds_each", "models"), [(1.0, 101), (0.01, 5001), (40.0, 3)])
async def test_all_rests_together_take_half_a_minute_at_most(seconds_each: float, models: int) -> None:
    rests, ended = await _rests(seconds_each, models)
    assert sum(rests) == pytest.approx(30)
    assert ended == pytest.approx(models * seconds_each + 30)
    assert min(rests) == pytest.approx(max(rests)), "they are spread evenly"


async def test_a_fleet_is_not_complete_before_the_last_was_tried(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.held = {"g": asyncio.Event()}
    preload = Preload(preparing)
    running = asyncio.create_task(preload.run(refs("abcdefgh")))
    await spin()
    assert preload.progress() == Progress(8, 7, 0, {})
    assert not preload.complete
    preparing.held["g"].set()
    await running
    assert preload.complete


async def test_a_broken_model_is_listed_and_holds_up_nobody(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"b"}
    preload = Preload(preparing)
    await preload.run(refs("abc"))
    assert preload.progress() == Progress(3, 2, 0, {"b": "BundleCorrupt"})
    assert preload.complete


async def test_every_failure_counts(preparing: Preparing) -> None:
    preparing.gate.set()
    tenants = [f"t{number}" for number in range(150)]
    preparing.broken = set(tenants)
    preload = Preload(preparing)
    await preload.run([ModelRef(tenant, "1", "1") for tenant in tenants])
    assert preload.progress() == Progress(150, 0, 0, dict.fromkeys(tenants, "BundleCorrupt"))


async def test_a_fleet_of_broken_models_is_not_complete_until_one_works(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"a", "b"}
    preload = Preload(preparing)
    await preload.run(refs("ab"))
    assert not preload.complete
    preparing.broken = {"b"}
    await preload.run(refs("ab"))
    assert preload.complete


async def test_an_empty_fleet_is_complete(preparing: Preparing) -> None:
    preload = Preload(preparing)
    assert preload.complete
    await preload.run([])
    assert preload.complete


async def test_only_what_is_new_or_failed_is_prepared_again(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"b"}
    preload = Preload(preparing)
    await preload.run(refs("abc"))
    preparing.calls.clear()
    preparing.broken = set()
    await preload.run([*refs("ab"), *refs("c", "2")])
    assert sorted(preparing.calls) == ["b", "c"]
    assert preload.progress() == Progress(3, 3, 0, {})


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreError("full"), OSError("odd"), ValueError("odder")])
async def test_what_may_pass_is_waited_for_and_alone_tried_again(preparing: Preparing, error: Exception) -> None:
    preparing.gate.set()
    preparing.broken = {"a"}
    preparing.failing = {"b": error, "c": error}
    preload = Preload(preparing)
    await preload.run(refs("abcd"))
    assert preload.progress() == Progress(
        4, 1, 0, {"a": "BundleCorrupt", "b": type(error).__name__, "c": type(error).__name__}
    )
    assert not preload.complete
    for recovered, still in (("", "bc"), ("b", "bc"), ("c", "c")):
        preparing.calls.clear()
        for tenant in recovered:
            del preparing.failing[tenant]
        await preload.retry()
        assert preparing.calls == list(still)
    assert preload.progress() == Progress(4, 3, 0, {"a": "BundleCorrupt"})
    assert preload.complete
    preparing.calls.clear()
    await preload.retry()
    assert preparing.calls == []


@pytest.mark.parametrize("error", [BundleCorrupt("a"), ProgramCorrupt("b"), ProgramUntrusted("c")])
async def test_what_never_passes_is_not_waited_for(preparing: Preparing, error: Exception) -> None:
    preparing.gate.set()
    preparing.failing = {"b": error}
    preload = Preload(preparing)
    await preload.run(refs("ab"))
    assert preload.complete
    assert preload.progress().failed == {"b": type(error).__name__}


async def test_where_nothing_could_be_had_all_is_tried_again(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"a", "b"}
    preload = Preload(preparing)
    await preload.run(refs("ab"))
    preparing.calls.clear()
    preparing.broken = {"b"}
    await preload.retry()
    assert sorted(preparing.calls) == ["a", "b"]
    assert preload.complete


async def test_failures_stay_listed_while_they_are_tried_again(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.failing = {"b": StoreUnavailable("away")}
    preload = Preload(preparing)
    await preload.run(refs("ab"))
    preparing.held = {"b": asyncio.Event()}
    again = asyncio.create_task(preload.retry())
    await spin()
    assert preload.progress() == Progress(2, 1, 0, {"b": "StoreUnavailable"})
    preparing.held["b"].set()
    await again


async def test_a_failure_is_a_warning_once(preparing: Preparing, caplog: pytest.LogCaptureFixture) -> None:
    preparing.gate.set()
    preparing.failing = {"a": StoreUnavailable("away")}
    preload = Preload(preparing)
    with caplog.at_level(logging.DEBUG, "serving.engine.preload"):
        await preload.run(refs("a"))
        await preload.retry()
        preparing.failing = {"a": RuntimeError("odd")}
        await preload.retry()
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "ERROR"]


async def test_a_plan_of_bytes_stops_when_they_are_used_up(preparing: Preparing) -> None:
    preparing.gate.set()
    preload = Preload(preparing)
    await preload.run(refs("abcdefghij"), room=60)
    progress = preload.progress()
    assert progress.on_disk + progress.skipped == 10
    assert 6 <= progress.on_disk < 10
    assert preparing.calls == list("abcdefghij")[: progress.on_disk]
    assert preload.complete


async def test_what_does_not_fit_is_skipped_and_tried_again_with_the_next_fleet(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.failing = {"b": OutOfResources("full")}
    preload = Preload(preparing)
    await preload.run(refs("ab"))
    assert preload.progress() == Progress(2, 1, 1, {})
    assert preload.complete
    preparing.failing = {}
    await preload.run(refs("ab"))
    assert preload.progress() == Progress(2, 2, 0, {})


async def test_a_policy_may_wait_for_broken_models_too(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.broken = {"b"}
    preload = Preload(preparing, block_broken=True)
    await preload.run(refs("ab"))
    assert not preload.complete
    preparing.broken = set()
    await preload.run(refs("ab", "2"))
    assert preload.complete


async def test_a_run_that_was_cancelled_goes_on_where_it_was(preparing: Preparing) -> None:
    preparing.gate.set()
    preparing.held = {"c": asyncio.Event()}
    preload = Preload(preparing)
    running = asyncio.create_task(preload.run(refs("abc")))
    await spin()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    preparing.calls.clear()
    preparing.held = {}
    await preload.run(refs("abc"))
    assert preparing.calls == ["c"]
    assert preload.complete


async def test_progress_is_logged_a_few_times(preparing: Preparing, caplog: pytest.LogCaptureFixture) -> None:
    preparing.gate.set()
    preload = Preload(preparing)
    with caplog.at_level(logging.INFO, "serving.engine.preload"):
        await preload.run([ModelRef(f"t{number}", "1", "1") for number in range(1000)])
    told = [record.__dict__["on_disk"] for record in caplog.records]
    assert told == [100 * part for part in range(1, 11)]


def fleet(**entries: FleetEntry) -> Fleet:
    return Fleet(1, entries)


SERVES = FleetEntry(version="0" * 16, manifest="0" * 64)
PINNED = SERVES.model_copy(update={"keep_loaded": True})


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (PreloadPlan(models="all"), "dcba"),
        (PreloadPlan(models="none"), ""),
        (PreloadPlan(models="pinned"), "d"),
        (PreloadPlan(models="top", top=2), "dc"),
        (PreloadPlan(models="top", top=1), "d"),
        (PreloadPlan(models="bytes", bytes=5), "dcba"),
        (PreloadPlan(models="share"), "dba"),
    ],
)
def test_a_plan_takes_the_pinned_then_the_busiest_then_by_name(plan: PreloadPlan, expected: str) -> None:
    made = fleet(a=SERVES, b=SERVES, c=SERVES, d=PINNED, e=FleetEntry(reason="too few", keep_loaded=True))
    requests = {"c": 5.0, "b": 1.0, "d": 0.5}
    found = plan_models(plan, made, requests=requests, own=lambda tenants: [name for name in tenants if name in "ab"])
    assert "".join(ref.tenant for ref in found) == expected
