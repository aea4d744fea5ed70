from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.fan import outcomes_of, work_shard
from flows.outcome import Outcome
from flows.runs import RunPlan, ShardRecord, parse_shard, shard_of, shards_for
from flows.shard_book import ShardBook
from flows.shard_fan import Patience, ShardFan, ShardState
from registry.errors import NotReady, ShardTaken, StoreUnavailable
from registry.layout import run_shard_key
from registry.store.local import LocalStore

RUN = "20261128T023000-f0bdc153127c"
PATIENCE = Patience(poll_seconds=2, lost_seconds=60, start_seconds=300, idle_seconds=3600, fruitless=3)
TENANTS = ("acme", "globex", "initech")
Step = Callable[["World"], None]


def trained(tenant: str) -> dict[str, Any]:
    return Outcome(tenant=tenant, state="trained", version=f"of {tenant}").as_dict()


class World:
    """A clock, and workers that do what a test's script says at each second that the parent waits."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root)
        self.now = 1000.0
        self.given_out: list[tuple[int, int]] = []
        self.dropped: list[str] = []
        self.states: dict[str, ShardState] = {}
        self.on_submit: Step = lambda _: None
        self.steps: list[Step] = []
        self.refuse = 0
        self.told: list[str] = []
        self.said: list[str] = []

    # What a ShardRunner does.

    def submit(self, run: str, shard: int, attempt: int) -> str:
        if self.refuse:
            self.refuse -= 1
            raise NotReady("Prefect does not answer")
        handle = f"{run}/{shard}/{attempt}"
        self.given_out.append((shard, attempt))
        self.states.setdefault(handle, "waiting")
        self.on_submit(self)
        return handle

    def state(self, handle: str) -> ShardState:
        return self.states[handle]

    def drop(self, handle: str, reason: str) -> None:
        self.dropped.append(handle)

    # What a test does.

    def handle(self, attempt: int = 1, shard: int = 0) -> str:
        return f"{RUN}/{shard}/{attempt}"

    def work(self, *tenants: str, attempt: int = 1, shard: int = 0, upto: str | None = None) -> None:
        """A worker takes an attempt and trains these; it ends there, or is killed while it trains `upto`."""
        self.states[self.handle(attempt, shard)] = "running"
        book = ShardBook(self.store, RUN, shard, attempt=attempt, beat_seconds=1e6)
        book.claim()  # without its thread, so that a test decides when it writes
        for tenant in tenants:
            if tenant not in book.outcomes:
                book.end(trained(tenant))
        if upto is not None:
            book.begin(upto)
        book.beat(done=upto is None)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.steps:
            self.steps.pop(0)(self)
        assert self.now < 20_000, "it waits for ever"

    def fan(self) -> ShardFan:
        return ShardFan(
            self.store,
            RUN,
            self,
            patience=PATIENCE,
            told=lambda outcome: self.told.append(outcome["tenant"]),
            say=self.said.append,
            clock=lambda: self.now,
            wait=self.wait,
        )

    def train(self, parts: Mapping[int, tuple[str, ...]] | None = None) -> dict[str, str]:
        rows = self.fan().train(parts or {0: TENANTS})
        return {row["tenant"]: row["state"] for row in rows}

    def record(self, shard: int = 0) -> ShardRecord:
        return parse_shard(self.store.get(run_shard_key(RUN, shard)).data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store")


ALL = dict.fromkeys(TENANTS, "trained")


def finish(world: World) -> None:
    """Whoever has the shard writes its last."""
    done = {"outcomes": tuple(trained(one) for one in TENANTS), "done": True}
    world.store.put(run_shard_key(RUN, 0), world.record().model_copy(update=done).to_bytes())


def beat(world: World) -> None:
    """Whoever has the shard writes that it lives."""
    record = world.record()
    world.store.put(run_shard_key(RUN, 0), record.model_copy(update={"beat": record.beat + 1}).to_bytes())


def test_shards_are_given_out_worked_on_and_collected(world: World) -> None:
    world.steps = [lambda w: w.work("acme", "initech", shard=0), lambda w: w.work("globex", shard=4)]
    assert world.train({0: ("acme", "initech"), 4: ("globex",)}) == ALL
    assert world.given_out == [(0, 1), (4, 1)]
    assert sorted(world.told) == sorted(TENANTS), "each once"
    assert world.said == []


def test_a_shard_that_falls_silent_is_given_out_again_and_only_what_is_left_is_done(world: World) -> None:
    def killed_then_replaced(w: World) -> None:
        w.work("acme", upto="globex")
        w.on_submit = lambda w: w.work(*TENANTS, attempt=2)

    world.steps = [killed_then_replaced]
    assert world.train() == ALL
    assert world.given_out == [(0, 1), (0, 2)]
    assert world.dropped == [world.handle(1)]
    assert world.told == ["acme", "globex", "initech"]
    assert 1060 < world.now < 1075, "within a minute and a poll or two"
    assert world.said == ["shard 0: it was silent for 62 s; its 2 tenants that are left are given out again"]


def test_a_shard_that_falls_silent_is_lost_whatever_the_scheduler_thinks(world: World) -> None:
    def killed(w: World) -> None:
        w.work("acme", upto="globex")
        w.states[w.handle(1)] = "waiting"
        w.on_submit = lambda w: w.work(*TENANTS, attempt=2)

    world.steps = [killed]
    assert world.train() == ALL
    assert world.now < 1075


def test_a_shard_whose_run_ended_is_given_out_again_at_once(world: World) -> None:
    def ended(w: World) -> None:
        w.work("acme", upto="globex")
        w.states[w.handle(1)] = "ended"
        w.on_submit = lambda w: w.work(*TENANTS, attempt=2)

    world.steps = [ended]
    assert world.train() == ALL
    assert world.now < 1010


def test_a_shard_that_ends_well_while_its_end_is_looked_at_is_not_done_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(handle: str) -> ShardState:
        # Between the parent's look at the record and its look at the run.
        if not world.record().done:
            world.work(*TENANTS)
        return "ended"

    monkeypatch.setattr(world, "state", state)
    assert world.train() == ALL
    assert world.given_out == [(0, 1)]


def test_a_shard_that_waits_for_a_worker_is_not_lost(world: World) -> None:
    world.steps = [*[lambda _: None] * 500, lambda w: w.work(*TENANTS)]
    assert world.train() == ALL
    assert world.given_out == [(0, 1)]


@pytest.mark.parametrize("state", ["starting", "running"])
def test_one_that_was_taken_and_never_begins_is_given_out_again(world: World, state: ShardState) -> None:
    def taken(w: World) -> None:
        w.states[w.handle(1)] = state
        w.on_submit = lambda w: w.work(*TENANTS, attempt=2)

    world.steps = [taken]
    assert world.train() == ALL
    assert 1300 < world.now < 1310


@pytest.mark.parametrize("state", ["unknown", "waiting", "starting"])
def test_a_shard_that_writes_is_alive_whatever_the_scheduler_thinks(world: World, state: ShardState) -> None:
    def begin(w: World) -> None:
        w.work("acme", upto="globex")
        w.states[w.handle(1)] = state

    world.steps = [begin, *[beat] * 100, finish]
    assert world.train() == ALL
    assert world.given_out == [(0, 1)]


def test_silence_says_nothing_while_the_store_is_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = world.store.get_if_changed

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store does not answer")

    def begin(w: World) -> None:
        w.work("acme", upto="globex")

    def fail(_: World) -> None:
        monkeypatch.setattr(world.store, "get_if_changed", down)

    def mend(w: World) -> None:
        monkeypatch.setattr(world.store, "get_if_changed", real)

    world.steps = [begin, fail, *[lambda _: None] * 100, mend, *[lambda _: None] * 20, finish]
    assert world.train() == ALL
    assert world.given_out == [(0, 1)]


def test_whoever_was_replaced_and_was_alive_cannot_write_any_more(world: World) -> None:
    slow = ShardBook(world.store, RUN, 0, attempt=1, beat_seconds=1e6)

    def begin(w: World) -> None:
        w.states[w.handle(1)] = "running"
        slow.claim()
        slow.end(trained("acme"))
        slow.beat()
        w.on_submit = lambda w: w.work(*TENANTS, attempt=2)

    world.steps = [begin]
    assert world.train() == ALL
    slow.end(trained("globex"))
    slow.beat()
    with pytest.raises(ShardTaken):
        slow.begin("initech")
    assert world.record().attempt == 2


def test_one_that_writes_at_the_moment_it_is_given_up_keeps_its_shard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.store.put

    def late(key: str, data: bytes, **conditions: Any) -> str:
        if parse_shard(data).attempt == 2:
            # The shard was quicker: it finishes between the parent's last look and its write.
            monkeypatch.setattr(world.store, "put", real)
            done = {"outcomes": tuple(trained(one) for one in TENANTS), "done": True}
            real(key, world.record().model_copy(update=done).to_bytes())
        return real(key, data, **conditions)

    def begin(w: World) -> None:
        w.work("acme", upto="globex")
        monkeypatch.setattr(world.store, "put", late)

    world.steps = [begin]
    assert world.train() == ALL
    assert world.given_out == [(0, 1)]


def test_a_tenant_that_kills_its_process_fails_alone(world: World) -> None:
    def poisoned(w: World) -> None:
        attempt = w.given_out[-1][1]
        if w.record().owner:
            return
        if "globex" in {one["tenant"] for one in w.record().outcomes}:
            w.work(*TENANTS, attempt=attempt)
        else:
            w.work("acme", attempt=attempt, upto="globex")
            w.states[w.handle(attempt)] = "ended"

    world.steps = [poisoned] * 100
    assert world.train() == {"acme": "trained", "globex": "failed", "initech": "trained"}
    (reason,) = {one["reason"] for one in world.record().outcomes if one["state"] == "failed"}
    assert reason == "its process was lost 3 times: its run ended before its tenants did"


def test_a_shard_that_nobody_can_begin_fails_in_the_end(world: World) -> None:
    def broken(w: World) -> None:
        w.states[w.handle(w.given_out[-1][1])] = "ended"

    world.steps = [broken] * 100
    assert world.train() == dict.fromkeys(TENANTS, "failed")
    assert world.given_out == [(0, 1), (0, 2), (0, 3)]


def test_where_nobody_takes_anything_the_run_ends_and_says_why(world: World) -> None:
    assert world.train() == dict.fromkeys(TENANTS, "failed")
    assert 4600 < world.now < 4610
    assert {one["reason"] for one in world.record().outcomes} == {
        "no worker took its shard; start one, and run it again"
    }
    with pytest.raises(ShardTaken):
        world.work("acme")


def test_a_queue_longer_than_there_are_workers_is_no_reason_to_give_up(world: World) -> None:
    def first(w: World) -> None:
        w.work("acme", upto="globex")

    world.steps = [first, *[beat] * 2000, finish, *[lambda _: None] * 10, lambda w: w.work("umbrella", shard=1)]
    assert world.train({0: TENANTS, 1: ("umbrella",)}) == {**ALL, "umbrella": "trained"}
    assert world.given_out == [(0, 1), (1, 1)]


def test_a_shard_that_cannot_be_given_out_again_yet_is_given_out_later(world: World) -> None:
    def ended(w: World) -> None:
        w.work("acme", upto="globex")
        w.states[w.handle(1)] = "ended"
        w.refuse = 2
        w.on_submit = lambda w: w.work(*TENANTS, attempt=2)

    world.steps = [ended]
    assert world.train() == ALL
    assert sum("is not given out yet: Prefect does not answer" in text for text in world.said) == 2


def test_a_run_that_cannot_give_anything_out_fails(world: World) -> None:
    world.refuse = 1
    with pytest.raises(NotReady):
        world.train()


def test_a_parent_that_is_started_again_goes_on_with_what_there_is(world: World) -> None:
    world.steps = [lambda w: w.work("acme", upto="globex"), lambda _: (_ for _ in ()).throw(KeyboardInterrupt)]
    with pytest.raises(KeyboardInterrupt):
        world.train()
    world.steps = [lambda w: w.work(*TENANTS, attempt=2)]
    assert world.train() == ALL
    assert world.given_out == [(0, 1), (0, 2)]
    assert world.told == ["acme", "acme", "globex", "initech"], "each process tells of all"


def test_a_parent_that_was_killed_and_is_started_again_finds_its_shard_at_work(world: World) -> None:
    world.fan()._open(0, TENANTS)
    world.submit(RUN, 0, 1)
    world.work("acme", upto="globex")
    world.steps = [finish]
    assert world.train() == ALL
    assert world.given_out == [(0, 1), (0, 1)], "the same attempt, under the same key: it is given out once"


def test_ending_a_run_ends_its_shards_at_their_next_write(world: World) -> None:
    book = ShardBook(world.store, RUN, 0, attempt=1, beat_seconds=1e6)

    def ended(w: World) -> None:
        w.states[w.handle(1)] = "running"
        book.claim()
        raise KeyboardInterrupt

    world.steps = [ended]
    with pytest.raises(KeyboardInterrupt):
        world.train()
    book.beat()
    with pytest.raises(ShardTaken):
        book.begin("acme")
    assert world.dropped == [world.handle(1)]
    assert world.record().attempt == 2


def test_who_goes_on_does_last_what_somebody_was_at(world: World) -> None:
    world.steps = [lambda w: w.work(upto="acme"), lambda w: w.states.update({w.handle(1): "ended"})]
    done: list[str] = []

    def goes_on(w: World) -> None:
        with ShardBook(w.store, RUN, 0, attempt=2, beat_seconds=1e6) as book:
            work_shard(book, TENANTS, lambda tenants, _: done.extend(tenants), told=lambda _: None)
            for tenant in TENANTS:
                book.end(trained(tenant))

    world.on_submit = lambda w: goes_on(w) if w.given_out[-1] == (0, 2) else None
    assert world.train() == ALL
    assert done == ["globex", "initech", "acme"]


@pytest.mark.parametrize(("tenants", "wanted", "shards"), [(3, 0, 1), (3, 8, 8), (1200, 2, 3), (10**6, 0, 256)])
def test_a_large_fleet_is_cut_into_more_shards_than_wanted(tenants: int, wanted: int, shards: int) -> None:
    assert shards_for(tenants, wanted) == shards


def test_every_tenant_is_in_one_shard_and_a_tenants_shard_does_not_depend_on_others() -> None:
    tenants = tuple(f"tenant-{number}" for number in range(500))
    cut = RunPlan(tenants=tenants, shards=8, options={}).cut()
    assert sorted(one for part in cut.values() for one in part) == sorted(tenants)
    assert all(shard_of(one, 8) == shard for shard, part in cut.items() for one in part)
    assert all(40 < len(part) < 85 for part in cut.values())
    assert all(list(part) == sorted(part, key=tenants.index) for part in cut.values())


def test_a_tenant_that_no_shard_tells_of_has_failed() -> None:
    rows = [{**trained("acme"), "of a later release": 1}]
    acme, globex = outcomes_of(["acme", "globex"], rows)
    assert (acme.state, globex.state) == ("trained", "failed")
