"""From outcomes to the fleet: in stages, by mode, and whatever interrupts it. Servers are told what to have counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from flows.need import last_token
from flows.outcome import Outcome
from flows.rollout import Counts, ServerCounts, first_by_hash
from flows.rollout_settings import RolloutSettings
from flows.staging import Promotion, Served, Staging
from registry.deletion.tombstones import bury, lift
from registry.errors import InvalidInput, StoreUnavailable
from registry.fleet.control import pin
from registry.fleet.promotion import WAITS
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.layout import catalogue_key
from registry.settings import read_settings
from registry.store import ObjectStore
from registry.store.local import LocalStore

TENANTS = [f"t{number}" for number in range(8)]
CANARIES = set(first_by_hash(TENANTS, 2))
REST = set(TENANTS) - CANARIES
SETTINGS = RolloutSettings(canary_share=0.25, canary_seconds=60, canary_requests=500, servers=("http://127.0.0.1:1",))
FINE = Counts(suggested=90, abstained=10)


def ref(number: int) -> tuple[str, str]:
    return f"{number:016x}", f"{number:064x}"


def trained(tenant: str, number: int = 2, *, reason: str = "") -> Outcome:
    version, manifest = ref(number)
    return Outcome(tenant=tenant, state="trained", version=version, manifest=manifest, reason=reason)


def get(store: ObjectStore, tenant: str) -> FleetEntry:
    return read_fleet(store).entries[tenant]


def versions(store: ObjectStore) -> dict[str, int]:
    """The number of the version that each tenant serves."""
    return {tenant: int(entry.version or "0", 16) for tenant, entry in read_fleet(store).entries.items()}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Every tenant serves version 1, and served version 0 before."""
    made = LocalStore(tmp_path / "store")
    entry = FleetEntry().with_version(*ref(10)).with_version(*ref(1))
    update_fleet(made, dict.fromkeys(TENANTS, lambda _: entry))
    return made


class World:
    """Servers that count what they are told to, and a clock that goes on when somebody sleeps."""

    def __init__(self, store: ObjectStore, settings: RolloutSettings = SETTINGS) -> None:
        self.store = store
        self.settings = settings
        self.now = 0.0
        self.slept: list[float] = []
        self.refreshed = 0
        self.asked = 0
        self.answers: Callable[[], Mapping[str, ServerCounts]] = self.calm
        self.while_asleep: Callable[[], object] = lambda: None
        self.modes: dict[str, Promotion] = {}

    def calm(self) -> Mapping[str, ServerCounts]:
        """One server where nothing rises."""
        return {"a": ServerCounts(every=FINE + FINE, new=FINE)}

    def bad(self) -> Mapping[str, ServerCounts]:
        """One server where canaries always abstain, once there are any."""
        canaries = [entry for entry in read_fleet(self.store).entries.values() if entry.is_canary]
        new = Counts(abstained=100 if canaries and self.slept else 0)
        before = Counts(suggested=90, abstained=10)
        return {"a": ServerCounts(every=new + before, new=new, before=before)}

    def refresh(self) -> None:
        self.refreshed += 1

    def counts(self) -> Mapping[str, ServerCounts]:
        self.asked += 1
        return self.answers()

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.while_asleep()
        self.slept.append(seconds)
        self.now += seconds

    def serve(self, outcomes: list[Outcome] | None = None, *, force: bool = False) -> Served:
        staging = Staging(
            self.store,
            self.settings,
            servers=self,
            promotion_of=lambda tenant: self.modes.get(tenant, "auto"),
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        return staging.serve([trained(tenant) for tenant in TENANTS] if outcomes is None else outcomes, force=force)


def states(served: Served) -> dict[str, set[str]]:
    """Tenants by state."""
    found: dict[str, set[str]] = {}
    for outcome in served.outcomes:
        found.setdefault(outcome.state, set()).add(outcome.tenant)
    return found


def test_canaries_go_first_and_the_others_follow(store: ObjectStore) -> None:
    world, seen = World(store), list[dict[str, int]]()
    world.while_asleep = lambda: seen.append(versions(store))
    served = world.serve()
    assert seen[0] == {tenant: 2 if tenant in CANARIES else 1 for tenant in TENANTS}
    assert all(each == seen[0] for each in seen)
    assert sum(world.slept) == 60
    assert set(versions(store).values()) == {2}
    assert states(served) == {"trained": set(TENANTS)}
    assert (served.generation, read_fleet(store).generation) == (3, 3), "one write a stage"
    for tenant in TENANTS:
        assert get(store, tenant) == FleetEntry(
            version=ref(2)[0], manifest=ref(2)[1], previous=ref(1)[0], previous_manifest=ref(1)[1]
        )


def test_enough_requests_will_do_before_the_time_is_over(store: ObjectStore) -> None:
    world = World(store)
    asked = Counts(suggested=250)
    world.answers = lambda: dict.fromkeys(("a", "b"), ServerCounts(every=asked, new=asked))
    world.serve()
    assert (world.slept, set(versions(store).values())) == ([5.0], {2})


def test_a_rise_halts_and_takes_the_canaries_back(store: ObjectStore) -> None:
    world = World(store)
    world.answers = world.bad
    before = read_fleet(store).entries
    served = world.serve()
    assert states(served) == {"halted": set(TENANTS)}
    assert len(world.slept) < 4, "as soon as it shows"
    for outcome in served.outcomes:
        assert outcome.reason.startswith("the roll-out was halted: abstentions: 100.0% of 100 under the new versions")
        assert outcome.reason.endswith("macrofleet train --force does it all the same")
    for tenant in TENANTS:
        after = get(store, tenant)
        assert after.model_copy(update={"rollout": None}) == before[tenant], "the roll-back target too"
        assert (after.rollout is not None) == (tenant in CANARIES)
    assert world.refreshed == 2, "servers follow the roll-back at once"


def test_a_rerun_after_a_halt_spares_those_who_suffered_and_force_goes_through(store: ObjectStore) -> None:
    world = World(store)
    world.answers = world.bad
    world.serve()
    world.answers = world.calm
    served = world.serve()
    assert states(served) == {"halted": CANARIES, "trained": REST}
    reasons = {outcome.reason for outcome in served.outcomes if outcome.state == "halted"}
    assert reasons == {f"version {ref(2)[0]} was taken back by a halted roll-out; --force serves it all the same"}
    slept = len(world.slept)
    served = world.serve(force=True)
    assert (states(served), len(world.slept)) == ({"trained": set(TENANTS)}, slept)
    assert all(get(store, tenant).rollout is None for tenant in TENANTS)


def test_new_data_make_a_version_that_is_tried_again(store: ObjectStore) -> None:
    world = World(store)
    world.answers = world.bad
    world.serve()
    world.answers = world.calm
    assert states(world.serve([trained(tenant, 3) for tenant in TENANTS])) == {"trained": set(TENANTS)}
    assert set(versions(store).values()) == {3}


class Killed(BaseException):
    """The process ends here."""


class Mortal(LocalStore):
    """A store whose writer is killed before the write after so many, or after that write."""

    def __init__(self, root: Path, writes: int, *, after: bool) -> None:
        super().__init__(root)
        self.left = writes
        self.after = after

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Killed
        etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
        if self.left < 0:
            raise Killed
        return etag


def undisturbed(tmp_path: Path, outcome: str) -> dict[str, FleetEntry]:
    """What the fleet is after a run that nobody interrupts."""
    made = LocalStore(tmp_path / "undisturbed")
    entry = FleetEntry().with_version(*ref(10)).with_version(*ref(1))
    update_fleet(made, dict.fromkeys(TENANTS, lambda _: entry))
    world = World(made)
    world.answers = getattr(world, outcome)
    world.serve()
    return dict(read_fleet(made).entries)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("outcome", ["calm", "bad"])
def test_a_run_killed_at_any_write_is_finished_by_a_rerun(
    store: ObjectStore, tmp_path: Path, outcome: str, after: bool
) -> None:
    expected = undisturbed(tmp_path, outcome)
    root = Path(store.url.removeprefix("file://"))
    for writes in range(100):
        entry = FleetEntry().with_version(*ref(10)).with_version(*ref(1))
        update_fleet(store, dict.fromkeys(TENANTS, lambda _, entry=entry: entry))  # type: ignore[misc]
        mortal = World(Mortal(root, writes, after=after))
        mortal.answers = getattr(mortal, outcome)
        try:
            mortal.serve()
        except Killed:
            found = versions(store)
            assert found in (
                dict.fromkeys(TENANTS, 1),
                {tenant: 2 if tenant in CANARIES else 1 for tenant in TENANTS},
                dict.fromkeys(TENANTS, 2),
            )
        else:
            assert writes > 2
            break
        if outcome == "bad" and any(
            entry.rollout and entry.rollout.stage == "halted" for entry in read_fleet(store).entries.values()
        ):
            continue  # it was over, and a rerun would be another roll-out
        world = World(store)
        world.answers = getattr(world, outcome)
        world.serve()
        assert dict(read_fleet(store).entries) == expected, writes
    else:
        pytest.fail("it never ended")


@pytest.mark.parametrize("skipped", [False, True], ids=["trained again", "skipped"])
@pytest.mark.parametrize("outcome", ["calm", "bad"])
def test_a_run_killed_while_it_watches_is_finished_by_a_rerun(
    store: ObjectStore, tmp_path: Path, outcome: str, skipped: bool
) -> None:
    expected = undisturbed(tmp_path, outcome)
    world = World(store)

    def killed() -> None:
        raise Killed

    world.while_asleep = killed
    with pytest.raises(Killed):
        world.serve()
    assert {tenant for tenant in TENANTS if get(store, tenant).is_canary} == CANARIES
    world = World(store)
    world.answers = getattr(world, outcome)
    outcomes = [
        Outcome(tenant=tenant, state="unchanged") if skipped and tenant in CANARIES else trained(tenant)
        for tenant in TENANTS
    ]
    served = world.serve(outcomes)
    assert dict(read_fleet(store).entries) == expected
    if outcome == "bad":
        assert states(served) == {"halted": set(TENANTS)}
    else:
        assert states(served) == ({"unchanged": CANARIES, "trained": REST} if skipped else {"trained": set(TENANTS)})


def test_a_run_killed_while_it_watches_is_settled_by_one_without_stages(store: ObjectStore) -> None:
    world = World(store)

    def killed() -> None:
        raise Killed

    world.while_asleep = killed
    with pytest.raises(Killed):
        world.serve()
    world = World(store, RolloutSettings())
    world.serve()
    assert all(get(store, tenant).rollout is None for tenant in TENANTS)
    assert (set(versions(store).values()), world.asked) == ({2}, 0)


def test_a_store_that_fails_between_stages_ends_the_run_and_a_rerun_goes_on(store: ObjectStore, tmp_path: Path) -> None:
    class Away(LocalStore):
        away = False

        def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
            if self.away:
                raise StoreUnavailable("the store is away")
            return super().put(key, data, if_match=if_match, if_absent=if_absent)

    away = Away(Path(store.url.removeprefix("file://")))
    world = World(away)
    world.while_asleep = lambda: setattr(away, "away", True)
    with pytest.raises(StoreUnavailable):
        world.serve()
    away.away = False
    world.while_asleep = lambda: None
    assert states(world.serve()) == {"trained": set(TENANTS)}


def test_servers_that_cannot_be_asked_let_nothing_begin(store: ObjectStore) -> None:
    world = World(store)
    world.answers = dict
    before = read_fleet(store).generation
    served = world.serve()
    assert (states(served), read_fleet(store).generation) == ({"halted": set(TENANTS)}, before)
    assert served.outcomes[0].reason == "the roll-out was halted before it began: none of the servers can be asked"


def test_a_server_that_goes_away_has_until_the_end_to_come_back(store: ObjectStore) -> None:
    world = World(store)
    world.answers = lambda: {} if 3 < len(world.slept) < 6 else world.calm()
    assert states(world.serve()) == {"trained": set(TENANTS)}


def test_a_server_that_stays_away_halts(store: ObjectStore) -> None:
    world = World(store)
    world.answers = lambda: {} if world.slept else world.calm()
    served = world.serve()
    assert states(served) == {"halted": set(TENANTS)}
    assert sum(world.slept) == 60
    assert "only 0 of 1 servers can still be asked" in served.outcomes[0].reason


def test_what_somebody_does_meanwhile_stays(store: ObjectStore) -> None:
    world, (one, other) = World(store), sorted(CANARIES)
    kept = next(iter(REST))

    def meanwhile() -> None:
        update_fleet(
            store,
            {
                one: lambda entry: entry and entry.with_version(*ref(10)).model_copy(update={"hold_version": True}),
                kept: lambda entry: entry and entry.model_copy(update={"hold_version": True}),
            },
        )
        pin(store, [other])

    world.while_asleep = meanwhile
    world.answers = world.bad
    served = world.serve()
    assert (versions(store)[one], get(store, one).rollout) == (10, None)
    assert (versions(store)[other], get(store, other).keep_loaded) == (1, True)
    assert states(served) == {"halted": set(TENANTS)}
    world.answers = world.calm
    served = world.serve([trained(tenant, 3) for tenant in TENANTS])
    assert states(served) == {"held": {one, kept}, "trained": set(TENANTS) - {one, kept}}


def test_one_tenant_and_a_share_of_nothing_have_no_stages(store: ObjectStore) -> None:
    world = World(store)
    assert states(world.serve([trained("t0")])) == {"trained": {"t0"}}
    world.settings = RolloutSettings()
    assert states(world.serve()) == {"trained": set(TENANTS)}
    assert (world.slept, world.asked, read_fleet(store).generation) == ([], 0, 3)


def test_first_models_follow_and_say_why_where_they_do_not(store: ObjectStore) -> None:
    outcomes = [
        *(trained(tenant) for tenant in TENANTS),
        trained("new"),
        Outcome(tenant="small", state="not_eligible", reason="has 3"),
    ]
    world = World(store)
    world.answers = world.bad
    served = world.serve(outcomes)
    assert states(served) == {"halted": {*TENANTS, "new"}, "not_eligible": {"small"}}
    assert get(store, "new") == FleetEntry(reason="the roll-out of its first model was halted")
    assert get(store, "small") == FleetEntry(reason="has 3")
    world.answers = world.calm
    assert "new" in states(world.serve(outcomes))["trained"]
    assert get(store, "new") == FleetEntry(version=ref(2)[0], manifest=ref(2)[1])


def test_each_mode_of_promotion(store: ObjectStore) -> None:
    world = World(store, RolloutSettings())
    world.modes = {"t0": "manual", "t1": "shadow", "new": "shadow", "t2": "manual"}
    outcomes = [
        *(trained(tenant) for tenant in ("t0", "t1", "new", "t3")),
        trained("t2", 1),
        Outcome(tenant="t4", state="not_promoted", version=ref(2)[0], manifest=ref(2)[1], reason="is worse"),
    ]
    served = world.serve(outcomes)
    assert states(served) == {
        "waiting": {"t0", "new"},
        "shadowed": {"t1"},
        "trained": {"t3", "t2"},
        "not_promoted": {"t4"},
    }
    reasons = {outcome.tenant: outcome.reason for outcome in served.outcomes}
    assert reasons["t0"] == "waits for a person: macrofleet fleet promote t0"
    assert reasons["t1"] == f"is compared with version {ref(1)[0]}: macrofleet fleet promote t1 has it serve"
    t0, t1, new = (get(store, tenant) for tenant in ("t0", "t1", "new"))
    assert (t0.version, t0.candidate, t0.candidate_manifest) == (ref(1)[0], *ref(2))
    assert (t1.version, t1.shadow, t1.shadow_manifest) == (ref(1)[0], *ref(2))
    assert (new.serves, new.candidate, new.shadow, new.reason) == (False, ref(2)[0], None, WAITS)
    assert get(store, "t2").candidate is None, "what serves already waits for nobody"
    generation = read_fleet(store).generation
    assert states(world.serve(outcomes)) == states(served)
    assert read_fleet(store).generation == generation


def test_force_does_not_promote_for_a_person(store: ObjectStore) -> None:
    world = World(store)
    world.modes = {"t0": "manual"}
    (outcome,) = world.serve([trained("t0", reason="promoted by force: it is worse")], force=True).outcomes
    assert outcome.state == "waiting"
    assert outcome.reason == "waits for a person: macrofleet fleet promote t0; promoted by force: it is worse"


def test_what_waits_is_in_the_fleet_before_canaries_are_watched(store: ObjectStore) -> None:
    world = World(store)
    world.modes = {"t0": "manual"}
    seen: list[str | None] = []
    world.while_asleep = lambda: seen.append(get(store, "t0").candidate)
    world.serve()
    assert set(seen) == {ref(2)[0]}


def test_a_mode_that_cannot_be_known_is_one_tenants_trouble(store: ObjectStore) -> None:
    world, asked = World(store, RolloutSettings()), list[str]()

    def promotion_of(tenant: str) -> Promotion:
        asked.append(tenant)
        if tenant == "t0":
            raise InvalidInput("the settings of tenant t0 cannot be read")
        return "auto"

    staging = Staging(store, world.settings, servers=world, promotion_of=promotion_of)
    served = staging.serve([trained("t0"), trained("t1"), Outcome(tenant="t2", state="unchanged")])
    assert states(served) == {"failed": {"t0"}, "trained": {"t1"}, "unchanged": {"t2"}}
    assert served.outcomes[0].reason == "the settings of tenant t0 cannot be read"
    assert (versions(store)["t0"], versions(store)["t1"]) == (1, 2)
    assert sorted(asked) == ["t0", "t1"], "once each, and only where there is something to promote"


def test_a_canary_that_is_deleted_while_it_is_watched_does_not_come_back(store: ObjectStore) -> None:
    world = World(store)

    def killed() -> None:
        raise Killed

    world.while_asleep = killed
    with pytest.raises(Killed):
        world.serve()
    world, gone = World(store), min(CANARIES)
    world.answers = world.bad
    world.while_asleep = lambda: update_fleet(store, {gone: lambda _: None})
    world.serve([Outcome(tenant=tenant, state="unchanged") for tenant in TENANTS])
    assert gone not in read_fleet(store).entries


def test_who_was_deleted_and_came_back_is_not_served_what_was_trained_before(store: ObjectStore) -> None:
    """Its model went with it; a run that trained it concludes hours later, when its tickets were imported again."""
    store.put(catalogue_key("back"), b"macros")
    bury(store, "back", token=5)
    lift(store, "back")

    def serve(token: int) -> Served:
        staging = Staging(
            store, RolloutSettings(), servers=World(store), last_token=lambda name: last_token(store, name)
        )
        return staging.serve([replace(trained("back"), lease_token=token)])

    (before,) = serve(4).outcomes
    assert (before.state, "back" in read_fleet(store).entries) == ("fenced", False)
    (after,) = serve(6).outcomes
    assert (after.state, get(store, "back").version, get(store, "back").lease_token) == ("trained", ref(2)[0], 6)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CANARY_SHARE", "0.1", "MACROFLEET_CANARY_SHARE is set, and no server"),
        ("CANARY_SHARE", "1.5", "MACROFLEET_CANARY_SHARE cannot be used"),
        ("CANARY_SECONDS", "0", "MACROFLEET_CANARY_SECONDS cannot be used"),
        ("SERVERS", "http://127.0.0.1:8001,user:secret@x", "operator address 2 cannot be used"),
    ],
)
def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"MACROFLEET_{name}", value)
    with pytest.raises(InvalidInput) as problem:
        read_settings(RolloutSettings)
    assert said in str(problem.value)
    assert "secret" not in str(problem.value)


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_SERVERS", " http://127.0.0.1:8001, http://127.0.0.1:8101 ,")
    monkeypatch.setenv("MACROFLEET_CANARY_SHARE", "0.1")
    found = read_settings(RolloutSettings)
    assert found.servers == ("http://127.0.0.1:8001", "http://127.0.0.1:8101")
    assert (found.canary_share, found.canary_seconds, found.canary_requests) == (0.1, 600.0, 1000)
