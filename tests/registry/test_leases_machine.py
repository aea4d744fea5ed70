"""Leases against an oracle: runs that crash, sleep, are slow, lose answers and publish long after they were replaced."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry.errors import LeaseHeld, LeaseLost, StoreUnavailable
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.leases import Lease
from tests.registry.lease_world import TENANT, World, holds

SECONDS = {"a": 10.0, "b": 10.0, "c": 25.0}
RUNS = st.sampled_from(sorted(SECONDS))
FAULTS = st.sampled_from(["", "", "", "refused answer", "lost answer", "down"])
# What another run does while one waits: renews or releases one of the leases there ever were, or nothing.
MEANWHILE = st.lists(st.tuples(st.sampled_from(["", "", "renew", "release"]), st.integers(0, 30)), max_size=30)
ANY = st.integers(0, 30)


class LeaseMachine(RuleBasedStateMachine):
    """`leases` are all that were ever taken. What a crashed run leaves behind is a lease that no rule happens to touch."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.runs = {name: self.world.run(name, seconds=seconds) for name, seconds in SECONDS.items()}
        self.leases: list[Lease] = []
        self.seconds: dict[int, float] = {}
        self.versions = 0
        # The oracle: the greatest token that published, and what it left.
        self.token = 0
        self.entry = FleetEntry()

    # What runs do

    def _take(self, name: str) -> Lease | None:
        """Take a lease, and hold what comes of it to what holds for all."""
        try:
            lease = self.runs[name].take(TENANT)
        except (LeaseHeld, StoreUnavailable):
            return None
        assert all(lease.token > other.token for other in self.leases), "tokens only grow"
        self.leases.append(lease)
        self.seconds[lease.token] = SECONDS[name]
        self.one_at_most()
        return lease

    def _touch(self, what: str, number: int) -> bool:
        """Renew or release a lease; whether it went well."""
        if not what or not self.leases:
            return False
        lease = self.leases[number % len(self.leases)]
        held = holds(lease)
        try:
            lease.renew() if what == "renew" else lease.release()
        except (LeaseLost, StoreUnavailable):
            return False
        assert held or what == "release", "what was lost is not renewed"
        return True

    def _waiting(self, script: list[tuple[str, int]]) -> Callable[[], None]:
        def meanwhile() -> None:
            self.one_at_most()
            if script:
                self.touched |= self._touch(*script.pop(0))
            self.one_at_most()

        return meanwhile

    @rule(name=RUNS, fault=FAULTS, script=MEANWHILE)
    def take(self, name: str, fault: str, script: list[tuple[str, int]]) -> None:
        self.touched = False
        self.world.clock.meanwhile = self._waiting(list(script))
        # The first write of this run's; that of another one while it waits is another's fault.
        self.world.store.faults = [fault] if fault else []
        taken = self._take(name)
        self.world.clock.meanwhile = lambda: None
        self.world.store.faults = []
        if taken is None:
            assert self.touched or fault in {"lost answer", "down"}, "nobody is kept away by one who is gone"

    @rule(name=RUNS, other=RUNS)
    def take_while_another_is_quicker(self, name: str, other: str) -> None:
        self.world.store.before_put = lambda: self._take(other)
        self._take(name)

    @rule(name=RUNS, delay=st.floats(0, 40))
    def take_slowly(self, name: str, delay: float) -> None:
        """The write takes `delay` seconds to arrive."""

        def pass_time() -> None:
            self.world.clock.now += delay

        self.world.store.before_put = pass_time
        lease = self._take(name)
        assert lease is not None, "nobody else lives"
        assert holds(lease) == (delay < SECONDS[name])

    @precondition(lambda self: self.leases)
    @rule(number=ANY, fault=FAULTS, delay=st.floats(0, 40))
    def renew(self, number: int, fault: str, delay: float) -> None:
        """The write takes `delay` seconds to arrive."""

        def pass_time() -> None:
            self.world.clock.now += delay
            self.one_at_most()

        lease = self.leases[number % len(self.leases)]
        self.world.store.faults = [fault] if fault else []
        self.world.store.before_put = pass_time
        if self._touch("renew", number):
            assert holds(lease) == (delay < self.seconds[lease.token])
        self.world.store.faults, self.world.store.before_put = [], None

    @precondition(lambda self: self.leases)
    @rule(number=ANY, name=RUNS)
    def renew_while_another_takes_over(self, number: int, name: str) -> None:
        self.world.store.before_put = lambda: self._take(name)
        self._touch("renew", number)
        self.world.store.before_put = None

    @precondition(lambda self: self.leases)
    @rule(number=ANY, fault=FAULTS)
    def release(self, number: int, fault: str) -> None:
        self.world.store.faults = [fault] if fault else []
        self._touch("release", number)
        self.world.store.faults = []
        assert not holds(self.leases[number % len(self.leases)])

    @rule(seconds=st.floats(0.1, 40))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @precondition(lambda self: self.leases)
    @rule(number=ANY, new=st.booleans())
    def publish(self, number: int, new: bool) -> None:
        """Whoever ever had a lease publishes, now or long after; a version of its own, or the one that serves."""
        token = self.leases[number % len(self.leases)].token
        self.versions += new
        version = f"{self.versions:016x}" if new or self.entry.version is None else self.entry.version
        update_fleet(
            self.world.store,
            {TENANT: lambda found: (found or FleetEntry()).published(version, version * 4, token=token)},
        )
        if token >= self.token:
            before = self.entry
            self.token = token
            self.entry = FleetEntry(version=version, manifest=version * 4, lease_token=token)
            moved = before.version not in {None, version}
            kept = before.version if moved else before.previous
            self.entry = self.entry.model_copy(
                update={"previous": kept, "previous_manifest": None if kept is None else kept * 4}
            )

    # What holds at any time

    @invariant()
    def one_at_most(self) -> None:
        assert sum(map(holds, self.leases)) <= 1

    @invariant()
    def nothing_older_was_published_over_anything_newer(self) -> None:
        assert read_fleet(self.world.store).entries.get(TENANT, FleetEntry()) == self.entry


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, database=None)
