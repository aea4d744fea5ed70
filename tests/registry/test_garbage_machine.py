"""Nothing that the fleet names, named of late or may name soon is ever deleted, and all else is in the end.

Publishers, operators who roll back and collectors run as actors that are stepped from request to request, interleaved,
killed before or after one, and suspended for days, against a store with a clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.errors import MacrofleetError
from registry.fleet.at_rest import present_generation
from registry.fleet.control import roll_back
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.garbage.collecting import NOTICE_SECONDS, STALE_SECONDS
from registry.garbage.retention import DAY, Retention
from registry.garbage.store_garbage import collect_garbage
from registry.layout import FLEET_ROOT, MANIFEST, collecting_key, fleet_shard, model_key
from registry.publishing import publish_bundle
from tests.registry.garbage_world import HOUR, TENANT, is_whole, made, publish, serve, serving, version, versions
from tests.registry.memory_store import Actor, Killed, MemoryStore, SteeredStore

RETENTION = Retention(keep=1)
# The latest that a request can arrive after its sender looked at the clock, where nothing else tells old from new.
LATE = STALE_SECONDS - NOTICE_SECONDS

Work = Callable[[SteeredStore], object]
NUMBERS = st.integers(0, 3)
SECONDS = st.sampled_from([60.0, 20 * 60.0, 50 * 60.0, 2 * HOUR, 13 * HOUR, 1.1 * DAY, 3 * DAY, 8 * DAY])
# Who may send his next requests, and how many.
TURNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6)


class Machine(RuleBasedStateMachine):
    versioned = False

    @initialize(ages=st.lists(SECONDS, min_size=3, max_size=3), partial=st.booleans())
    def begin(self, ages: list[float], partial: bool) -> None:
        self.store = MemoryStore(versioned=self.versioned)
        self.store.on_put = self._written
        self.roots: list[tuple[float, frozenset[str]]] = []
        self.claimed: dict[str, float] = {}
        self.claimers: list[Actor] = []
        self.collectors: list[Actor] = []
        # A writer of the fleet that lost a race waits for a moment, which here is nobody's.
        self.patch = mock.patch("registry.fleet.state.time", SimpleNamespace(sleep=lambda _: None))
        self.patch.start()
        for number, age in enumerate(ages):
            publish(self.store, number)
            self.store.now += age
        serve(self.store, 2)
        if partial:
            self.store.purge(list(self.store.states(model_key(TENANT, version(0), MANIFEST))))

    def _written(self, key: str) -> None:
        """Note what the fleet names; by the rules that it is read by, not by the collector's."""
        if key == FLEET_ROOT:
            entry = read_fleet(self.store).entries.get(TENANT, FleetEntry())
            self.roots.append((self.store.now, frozenset(filter(None, (entry.version, entry.previous)))))

    @property
    def alive(self) -> list[Actor]:
        return [actor for actor in (*self.claimers, *self.collectors) if actor.waits_for is not None]

    def needed(self) -> set[str]:
        """What the fleets of the last seven days name, and what was claimed within a day."""
        window = self.store.now - RETENTION.fleet_seconds
        ends = [*(since for since, _ in self.roots[1:]), self.store.now]
        fleets = [named for (_, named), end in zip(self.roots, ends, strict=True) if end >= window]
        fresh = {one for one, when in self.claimed.items() if self.store.now - when <= DAY}
        return fresh.union(*fleets)

    # Who does something

    @precondition(lambda self: len(self.claimers) < 8)
    @rule(number=NUMBERS, serves=st.booleans(), turns=TURNS)
    def publish(self, number: int, serves: bool, turns: list[tuple[int, int]]) -> None:
        def work(store: SteeredStore) -> None:
            publish_bundle(store, made(number)[0], tenant=TENANT, sleep=store.sleep)
            self.claimed[version(number)] = self.store.now
            if serves:
                update_fleet(store, {TENANT: serving(number)})

        self.claimers.append(Actor(self.store, work))
        self.take_turns(turns)

    @precondition(lambda self: len(self.claimers) < 8)
    @rule(number=NUMBERS, previous=st.booleans(), turns=TURNS)
    def roll_back(self, number: int, previous: bool, turns: list[tuple[int, int]]) -> None:
        to = None if previous else version(number)
        self.claimers.append(Actor(self.store, lambda store: roll_back(store, [TENANT], to=to)))
        self.take_turns(turns)

    @rule()
    def leave_and_come_back_empty(self) -> None:
        update_fleet(self.store, {TENANT: lambda _: FleetEntry(reason="left")})

    @precondition(lambda self: len(self.collectors) < 8)
    @rule(skew=st.sampled_from([0.0, -30 * DAY, 30 * DAY]), repeats=st.booleans(), turns=TURNS)
    def collect(self, skew: float, repeats: bool, turns: list[tuple[int, int]]) -> None:
        def work(store: SteeredStore) -> None:
            store.repeats = repeats
            collect_garbage(store, retention=RETENTION, clock=lambda: self.store.now + skew, threads=1)

        self.collectors.append(Actor(self.store, work))
        self.take_turns(turns)

    # What happens to them

    @precondition(lambda self: self.alive)
    @rule(turns=TURNS)
    def take_turns(self, turns: list[tuple[int, int]]) -> None:
        for place, requests in turns:
            for _ in range(requests):
                if alive := self.alive:
                    alive[place % len(alive)].step()
                    self.nothing_needed_is_gone()

    @precondition(lambda self: self.alive)
    @rule()
    def all_finish(self) -> None:
        while alive := self.alive:
            for actor in alive:
                actor.step()
                self.nothing_needed_is_gone()

    @precondition(lambda self: self.alive)
    @rule(place=st.integers(0, 3), after=st.booleans())
    def kill(self, place: int, after: bool) -> None:
        self.alive[place % len(self.alive)].kill(after=after)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        after = self.store.now + seconds
        for actor in self.alive:
            if actor in self.claimers and after - actor.began > DAY:
                actor.kill()  # no run takes as long: what it has published may be garbage by now
            elif str(actor.waits_for).startswith("purge") and after - actor.since > LATE and not self.versioned:
                actor.kill()
        self.store.now = after

    @invariant()
    def nothing_needed_is_gone(self) -> None:
        for one in self.needed():
            assert is_whole(self.store, one), f"{one} is needed, and is not whole"
        assert read_fleet(self.store).generation == len(self.roots)

    @invariant()
    def nobody_fails_but_for_a_reason(self) -> None:
        for actor in (*self.claimers, *self.collectors):
            assert actor.problem is None or isinstance(actor.problem, MacrofleetError | Killed), actor.problem
        for actor in self.collectors:
            assert not isinstance(actor.problem, MacrofleetError) or "too long" in str(actor.problem), actor.problem

    def teardown(self) -> None:
        try:
            for actor in self.alive:
                actor.kill()
            self.all_garbage_is_found_in_the_end()
        finally:
            self.patch.stop()

    def all_garbage_is_found_in_the_end(self) -> None:
        for _ in range(2):
            self.store.now += 9 * DAY
            done = collect_garbage(self.store, retention=RETENTION, clock=lambda: self.store.now)
            assert done.busy == ()
            self.nothing_needed_is_gone()
        assert all(is_whole(self.store, one) for one in versions(self.store)), "what is not whole is garbage"
        assert len(versions(self.store) - self.needed()) <= RETENTION.keep
        assert self.keys(collecting_key(TENANT)) == []
        generation = present_generation(self.store)
        assert generation is not None
        present = generation.shards[fleet_shard(TENANT)]
        numbers = [int(key.rpartition("/")[2].removesuffix(".json")) for key in self.keys("fleet/shards/")]
        assert min(numbers) == present, "what comes after the present state may be under way"
        assert len(numbers) == 1 or max(numbers) > present
        # A writer that was killed before it replaced the root has written down the generation that is present still.
        own = f"fleet/generations/{generation.generation}-"
        assert [key for key in self.keys("fleet/generations/") if not key.startswith(own)] == []
        assert len(self.keys("garbage/")) == 1

    def keys(self, prefix: str) -> list[str]:
        return [state.key for state in self.store.states(prefix)]


class VersionedMachine(Machine):
    """The same in a bucket that keeps versions, where a request may even come days late."""

    versioned = True


STEPS = settings(
    max_examples=60, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
TestGarbage = Machine.TestCase
TestGarbage.settings = STEPS
TestVersionedGarbage = VersionedMachine.TestCase
TestVersionedGarbage.settings = STEPS
