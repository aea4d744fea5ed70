"""The simulation: what is conserved, what is bounded, what moves; and parts held to the real ones."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.cost.measured import Measured
from benchmarks.simulation.balancing import Balancer, Rule, shuffled
from benchmarks.simulation.cache import SimulatedCache
from benchmarks.simulation.core import SharedCore
from benchmarks.simulation.engine import Outcome, Replica, Scenario, simulate
from benchmarks.simulation.parameters import Sizes, replica_of
from benchmarks.simulation.report import Shape, figures, measure_simulation, recovered, replica_keys
from benchmarks.trace import TraceSpec, make_trace
from macrofleet import app
from serving.engine.cache import ModelCache
from serving.engine.traffic import Traffic
from serving.fleet_watch import ModelRef
from serving.proxy.ring import tenant_hash

REPLICA = Replica(
    batch_seconds=0.001,
    ticket_seconds=0.001,
    disk_seconds=0.004,
    store_seconds=0.05,
    disk_core_seconds=0.002,
    store_core_seconds=0.01,
    model_bytes=10.0,
    memory_models=20,
)
RULES: list[Rule] = ["ring", "walk", "envoy"]


def scenario(
    rule: Rule = "envoy", *, replicas: int = 4, rate: float = 400, seconds: float = 2.0, **more: Any
) -> Scenario:
    trace = make_trace(TraceSpec(rate=rate, seconds=seconds, tenants=60, tail=10, seed=more.pop("seed", 1)))
    return Scenario(
        replica=more.pop("replica", REPLICA),
        keys=replica_keys(replicas),
        names=trace.tenants,
        at=trace.at,
        places=trace.places,
        rule=rule,
        ring_places=256,
        **more,
    )


def run(*args: Any, **more: Any) -> Outcome:
    return simulate(scenario(*args, **more))


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    replicas=st.integers(1, 6),
    rate=st.floats(1, 3000),
    lose=st.integers(0, 5),
    preload=st.booleans(),
    factor=st.integers(101, 300),
    seed=st.integers(0, 100),
)
def test_every_request_is_answered_once_by_a_replica_that_is_there(
    rule: Rule, replicas: int, rate: float, lose: int, preload: bool, factor: int, seed: int
) -> None:
    lost = list(range(min(lose, replicas - 1)))
    given_ = scenario(
        rule,
        replicas=replicas,
        rate=rate,
        seconds=0.5,
        seed=seed,
        preload=preload,
        factor=factor,
        lose=lost,
        lose_at=0.25,
    )
    found = simulate(given_)
    assert np.isfinite(found.latency).all()
    # Not quicker than a request alone can be, whichever way it was answered.
    least = {"h": 0.002, "w": 0.002, "d": 0.006, "s": 0.052}
    again = found.sent > 1
    quickest = np.array([least[kind] for kind in found.kind])
    assert (found.latency[~again] >= quickest[~again] - 1e-9).all()
    assert set(found.kind) <= {"h", "w", "d", "s"}
    late = given_.at >= 0.25
    assert not np.isin(found.replica[late | again], lost).any()
    assert again.sum() == (found.sent - 1).sum() == (found.sent == 2).sum()
    # Each load had a first request of its own, those sent again aside, whose load died with the replica.
    assert len(found.loads) >= np.isin(found.kind, ["d", "s"]).sum()
    assert len(found.loads) <= np.isin(found.kind, ["d", "s"]).sum() + again.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.floats(100, 5000), st.integers(101, 250), st.integers(0, 50))
def test_the_bound_of_mirrokni_et_al_is_never_exceeded(replicas: int, rate: float, factor: int, seed: int) -> None:
    found = run("walk", replicas=replicas, rate=rate, seconds=0.3, factor=factor, seed=seed, lose=[0], lose_at=0.15)
    assert found.most_over_bound <= 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=5), st.integers(101, 300), st.integers(0, 59))
def test_envoy_passes_over_who_has_more_than_its_slots(active: list[int], factor: int, tenant: int) -> None:
    balancer = Balancer(
        "envoy",
        alive=range(len(active)),
        keys=replica_keys(len(active)),
        names=[f"t{number}" for number in range(60)],
        factor=factor,
        ring_places=256,
    )
    owner, total = balancer.owners[tenant], sum(active)
    slots = balancer.slots(total)
    found = balancer.choose(tenant, owner, active, total)
    if active[owner] <= slots:
        assert found == owner
    elif min(active) <= slots:
        order = shuffled(range(len(active)), tenant_hash(f"t{tenant}"))
        assert found == next(replica for replica in order if active[replica] <= slots)
    else:
        assert active[found] == min(active)
    # With as many slots as there are requests, no replica is passed over.
    assert slots >= total / len(active)


def test_the_shuffle_is_that_of_std_mt19937() -> None:
    """The first numbers of a Mersenne twister with seed 5489 begin with 3499211612 (C++ standard: the 10,000th is 4123659995)."""
    twister = np.random.RandomState(5489)
    numbers = [int(twister.randint(0, 2**32, dtype=np.uint32)) for _ in range(10_000)]
    assert (numbers[0], numbers[-1]) == (3499211612, 4123659995)
    # Of ten hosts the first is the one at 3499211612 // (2**32 // 10).
    assert next(shuffled(range(10), 5489)) == 8
    assert sorted(shuffled(range(10), 7)) == list(range(10))
    assert list(shuffled(range(10), 7 + 2**32)) == list(shuffled(range(10), 7))


@pytest.mark.parametrize("rule", RULES)
def test_only_the_lost_replicas_tenants_move(rule: Rule) -> None:
    """Plain Envoy divides its places anew, so those of each replica grow when one is lost, and some more tenants move."""
    names = [f"tenant-{number}" for number in range(3000)]
    keys = replica_keys(10)

    def owners(alive: list[int], places: int | None) -> np.ndarray[Any, Any]:
        balancer = Balancer(rule, alive=alive, keys=keys, names=names, factor=150, ring_places=places)
        return np.array(balancer.owners)

    before, after = owners(list(range(10)), None), owners(list(range(9)), None)
    assert (before == 9).sum() > 200
    assert ((before != after) == (before == 9)).all()
    plain, shrunk = owners(list(range(10)), 2000), owners(list(range(9)), 2000)
    beyond = ((plain != shrunk) & (plain != 9)).mean()
    assert 0 < beyond < 0.15


def test_a_loss_costs_the_lost_tenants_and_is_told() -> None:
    given_ = scenario("ring", lose=[1], lose_at=1.0)
    found = figures(given_, simulate(given_), seconds=2.0)
    assert found["answered"] == found["requests"]
    assert found["lost_share_of_tenants"] == pytest.approx(0.25, abs=0.12)
    assert found["moved_share_of_tenants"] == pytest.approx(
        found["lost_share_of_tenants"] + found["moved_beyond_lost"], abs=1e-4
    )
    assert found["cold_loads_after_loss"] > found["cold_loads_before_loss"]
    assert found["before_loss"]["hit_rate"] > found["after_loss"]["hit_rate"]
    assert found["bytes_fetched"] == 10.0 * sum(1 for load in simulate(given_).loads if load[1] == "s")


def test_copies_spread_a_hot_tenant() -> None:
    names = [f"tenant-{number}" for number in range(60)]
    at = np.arange(2000, dtype=np.float64) * 0.0005
    hot = Scenario(
        replica=REPLICA,
        keys=replica_keys(4),
        names=names,
        at=at,
        places=np.zeros(2000, np.int64),
        rule="ring",
        ring_places=256,
        copies=np.array([4] + [1] * 59),
    )
    alone = simulate(replace(hot, copies=None))
    spread = simulate(hot)
    assert len(set(alone.replica)) == 1
    assert len(set(spread.replica)) > 1
    assert np.percentile(spread.latency, 99) < np.percentile(alone.latency, 99)


def test_what_waits_makes_up_a_batch() -> None:
    """Three requests at once for a loaded model: the first alone, the other two as one batch after it."""
    given_ = Scenario(
        replica=REPLICA, keys=replica_keys(1), names=["a"], at=np.zeros(3), places=np.zeros(3, np.int64), rule="ring"
    )
    assert simulate(given_).latency.tolist() == pytest.approx([0.002, 0.005, 0.005])
    cold = simulate(replace(given_, preload=False))
    assert cold.kind.tolist() == ["s", "w", "w"]
    # One load, 50 ms; then all three in one batch of 4 ms.
    assert cold.latency.tolist() == pytest.approx([0.05 + 0.004] * 3)
    assert len(cold.loads) == 1


def test_loads_and_batches_slow_each_other_down() -> None:
    """Two loads at once want 10 ms of the core each, after 40 ms beside it; a warm request comes while they do."""
    given_ = Scenario(
        replica=REPLICA,
        keys=replica_keys(1),
        names=["a", "b"],
        at=np.zeros(2),
        places=np.array([0, 1]),
        rule="ring",
        preload=False,
    )
    alone, together = replace(given_, at=np.zeros(1), places=np.zeros(1, np.int64)), simulate(given_).latency
    assert simulate(alone).latency.tolist() == pytest.approx([0.052])
    # Both loads end after 60 ms; the batch is of the first alone, and the second's is another one.
    assert together.max() == pytest.approx(0.04 + 2 * 0.01 + 0.002 + 0.002)
    warm = replace(
        given_, names=["a", "b", "c"], at=np.array([0.0, 0.0, 0.1, 0.145]), places=np.array([0, 2, 1, 0]),
    )  # fmt: skip
    # 5 ms into b's part of the core, which a's answer of 2 ms shares with it.
    assert simulate(warm).latency[2:].tolist() == pytest.approx([0.04 + 0.01 + 0.002 + 0.002, 0.004])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 2)), min_size=1, max_size=12))
def test_a_shared_core_is_divided_alike(tasks: list[tuple[float, float]]) -> None:
    """Against small steps of time, each of them divided by the tasks that are there."""
    core = SharedCore()
    ends: dict[int, float] = {}

    def finish_until(moment: float) -> None:
        while (at := core.next_at()) <= moment and len(core):
            ends[core.finish(at)] = at

    for number, (begin, seconds) in sorted(enumerate(tasks), key=lambda item: item[1][0]):
        finish_until(begin)
        core.add(begin, seconds, number)
    finish_until(float("inf"))
    assert set(ends) == set(range(len(tasks)))
    left = [seconds for _, seconds in tasks]
    stepped: dict[int, float] = {}
    moment, step = 0.0, 0.005
    while len(stepped) < len(tasks):
        there = [each for each, (begin, _) in enumerate(tasks) if begin <= moment and each not in stepped]
        for each in there:
            left[each] -= step / len(there)
            if left[each] <= 0:
                stepped[each] = moment
        moment += step
    for each, end in ends.items():
        assert end == pytest.approx(stepped[each], abs=0.2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 14))
def test_the_simulated_cache_keeps_what_the_real_one_keeps(tenants: list[int], budget: int) -> None:
    clock = [0.0]
    simulated = SimulatedCache(budget, half_life=600.0)
    mine = []
    for place, tenant in enumerate(tenants):
        now = float(place // 8)  # several at once, so that some are as busy as others
        found = simulated.hit(tenant, now)
        mine.append(found)
        if not found:
            simulated.loaded(tenant, 1, now)
    assert mine == asyncio.run(_real_hits(tenants, budget, clock))


class _Quiet:
    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class _Model:
    nbytes = 1000


async def _real_hits(tenants: list[int], budget: int, clock: list[float]) -> list[bool]:
    async def load(ref: ModelRef, *, demand: bool) -> _Model:
        return _Model()

    cache: ModelCache[_Model] = ModelCache(
        wanted=lambda tenant: ModelRef(tenant=tenant, version="0" * 16, manifest="0" * 64),
        load=load,
        budget_bytes=budget * 1000,
        traffic=Traffic(clock=lambda: clock[0]),
        pinned=lambda _: False,
        observer=_Quiet(),
        clock=lambda: clock[0],
    )
    hits = []
    for place, tenant in enumerate(tenants):
        clock[0] = float(place // 8)
        lease = cache.try_lease(str(tenant))
        hits.append(lease is not None)
        (lease or await cache.lease(str(tenant))).release()
    await cache.close()
    return hits


def test_parameters_solve_what_was_measured() -> None:
    measured = Measured(
        model_bytes=10e6, tenant_bytes=0, process_bytes=0, rps=1000.0, warm_seconds=0.0017, disk_seconds=0.004,
        store_seconds=0.05, disk_p99_seconds=0.008, store_p99_seconds=0.0017, sources=(),
    )  # fmt: skip
    found = replica_of(measured, Sizes(memory=100e6))
    assert found.batch_seconds + found.ticket_seconds == pytest.approx(0.0017)
    assert found.rps == pytest.approx(1000.0)
    assert (found.disk_seconds, found.store_seconds, found.memory_models) == pytest.approx((0.0023, 0.0483, 10))
    # 99 of 100 loads are below the 99th percentile that was measured; one that is below the median has no spread.
    draws = np.random.default_rng(1).lognormal(0.0, found.disk_spread, 100_000) * found.disk_seconds
    assert np.percentile(draws, [50, 99]) == pytest.approx([0.0023, 0.0063], rel=0.03)
    assert found.store_spread == 0
    assert (found.disk_core_seconds, found.store_core_seconds) == pytest.approx((0.0023, 0.02415))
    known = replica_of(replace(measured, disk_core_seconds=0.001, store_core_seconds=0.09), Sizes(memory=100e6))
    assert (known.disk_core_seconds, known.store_core_seconds) == pytest.approx((0.001, 0.0483)), (
        "no more than all of it"
    )
    busy = replica_of(replace(measured, rps=500.0), Sizes(memory=100e6))
    assert busy.batch_seconds == 0.0
    assert busy.rps == pytest.approx(500.0)


def test_recovery_is_the_second_from_which_on_hits_are_as_before() -> None:
    since = np.array([-2.0, -1.0, 0.1, 0.2, 1.5, 2.5, 3.5])
    assert recovered(since, np.array([1, 1, 0, 1, 0, 1, 1], bool)) == 2.0
    assert recovered(since, np.array([1, 1, 1, 1, 1, 1, 1], bool)) == 0.0
    assert recovered(since, np.array([1, 1, 1, 1, 1, 1, 0], bool)) is None


def test_the_same_seed_gives_the_same_figures() -> None:
    shape = Shape(replicas=5, spec=TraceSpec(rate=200, seconds=2, tenants=50), lose=1, copies_above=0.01)

    def measured() -> dict[str, Any]:
        found = measure_simulation(shape, REPLICA, step=lambda *_: None)
        return {name: value for name, value in found.items() if name != "simulated_in_seconds"}

    assert measured() == measured()
    assert measured()["settings"]["copies"] > 0


def test_the_command_prints_a_report() -> None:
    given_ = ["bench", "simulate", "--replicas", "3", "--tenants", "50", "--rate", "100", "--seconds", "1", "--json"]
    result = CliRunner().invoke(app, given_)
    found = json.loads(result.stdout)
    assert found["answered"] == found["requests"] > 0
    assert found["measured"][0]["command"].startswith("macrofleet bench warm")
    assert CliRunner().invoke(app, [*given_, "--lose", "3"]).exit_code != 0


def test_the_results_that_come_with_the_code_can_be_read() -> None:
    from benchmarks.cost.measured import RESULTS, read_measured

    assert Path(RESULTS).is_dir()
    assert read_measured().rps > 0
