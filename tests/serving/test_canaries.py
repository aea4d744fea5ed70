"""Counts of a roll-out's canaries, held to a list of everything that happened; and a real server's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleets import make_bundle, publish_tenants
from registry.fleet.promotion import settles, takes_back, tries
from registry.fleet.state import Fleet, FleetEntry, update_fleet
from registry.layout import WEIGHTS, model_key
from registry.model.bundle import Manifest
from registry.publishing import publish_bundle
from registry.store.local import LocalStore
from serving.settings import ServingSettings
from serving.trials.canaries import HEARD, OUTCOMES, WHICH, Canaries, Outcome, Which
from tests.serving.both_faces import Server, running
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, ticket

TENANTS = ["acme", "beta", "gamma"]
ROLES = ["on trial", "serving", "gone"]


def ref(number: int) -> tuple[str, str]:
    return f"{number:016x}", f"{number:064x}"


def entry(role: str) -> FleetEntry:
    """Version 2 after version 1, on trial or settled."""
    trying = tries(FleetEntry().with_version(*ref(0)).with_version(*ref(1)), *ref(2))
    return trying if role == "on trial" else settles(trying)


@settings(max_examples=50, deadline=None)
@given(
    asked=st.lists(st.tuples(st.sampled_from(TENANTS), st.sampled_from([1, 2]), st.sampled_from(OUTCOMES))),
    roles=st.lists(st.sampled_from(ROLES), min_size=3, max_size=3),
)
def test_a_trial_finds_how_its_tenants_were_before_and_are_since(
    asked: list[tuple[str, int, Outcome]], roles: list[str]
) -> None:
    canaries = Canaries()
    for tenant, number, outcome in asked:
        canaries.count(tenant, ref(number)[0], outcome)
    role = dict(zip(TENANTS, roles, strict=True))
    canaries.follow(Fleet(1, {tenant: entry(role[tenant]) for tenant in TENANTS if role[tenant] != "gone"}))
    numbers: dict[Which, int] = {"new": 2, "before": 1}
    for which in WHICH:
        for outcome in OUTCOMES:
            expected = sum(
                (number, said) == (numbers[which], outcome) and role[tenant] == "on trial"
                for tenant, number, said in asked
            )
            assert canaries.answers(which, outcome) == expected
    assert canaries.all_answers() == {(outcome,): [said for *_, said in asked].count(outcome) for outcome in OUTCOMES}
    assert [found.tenant for found in canaries.on_trial()] == [t for t in TENANTS if role[t] == "on trial"]


def test_two_versions_of_a_tenant_are_remembered_and_go_on_where_they_were() -> None:
    canaries = Canaries()
    for number in (0, 1, 2, 1, 2):
        canaries.count("acme", ref(number)[0], "suggested")
    canaries.follow(Fleet(1, {"acme": entry("on trial")}))
    assert (canaries.answers("before", "suggested"), canaries.answers("new", "suggested")) == (2, 2)


def test_what_a_roll_back_brought_back_is_what_the_next_trial_is_compared_with() -> None:
    canaries = Canaries()
    entry = FleetEntry().with_version(*ref(0))
    for number in (1, 2):
        canaries.count("acme", entry.version or "", "suggested")
        entry = tries(entry, *ref(number))
        canaries.follow(Fleet(number, {"acme": entry}))
        canaries.count("acme", ref(number)[0], "failed")
        if number == 1:
            entry = takes_back(entry)
            canaries.follow(Fleet(10, {"acme": entry}))
    assert entry.previous == ref(0)[0]
    assert (canaries.answers("before", "suggested"), canaries.answers("new", "failed")) == (2, 1)


def test_who_left_the_fleet_is_forgotten() -> None:
    canaries = Canaries()
    canaries.count("acme", ref(2)[0], "failed")
    canaries.follow(Fleet(1, {}))
    canaries.follow(Fleet(2, {"acme": entry("on trial")}))
    assert canaries.answers("new", "failed") == 0


# A real server


async def canary_answers(server: Server, version: str) -> list[float]:
    names = ("suggested", "abstained", "failed")
    return [await server.metric("macrofleet_canary_answers", outcome=name, version=version) for name in names]


async def canary_models(server: Server) -> list[float]:
    return [await server.metric("macrofleet_canary_models", state=state) for state in ("serving", "failed", "waiting")]


def put_on_trial(store: LocalStore, manifest: Manifest) -> None:
    tenant = manifest.tenant
    update_fleet(store, {tenant: lambda entry: tries(entry or FleetEntry(), manifest.version, manifest.digest)})


@pytest.mark.anyio
async def test_a_server_tells_how_its_canaries_do(
    store: LocalStore, bag: BuiltProgram, make_settings: Callable[..., ServingSettings], tmp_path: Path
) -> None:
    publish_tenants(store, ["acme", "beta", "cold"], program=bag.digest, spec=bag.spec)
    silent = make_bundle(tmp_path / "silent", tenant="acme", program=bag.digest, spec=bag.spec, seed=1, threshold=1.0)
    publish_bundle(store, tmp_path / "silent", tenant="acme")
    broken = make_bundle(tmp_path / "broken", tenant="cold", program=bag.digest, spec=bag.spec, seed=1)
    publish_bundle(store, tmp_path / "broken", tenant="cold")
    weights = tmp_path / "store" / model_key("cold", broken.version, WEIGHTS)
    weights.write_bytes(weights.read_bytes()[:-100])
    async with running(make_settings(max_queue=4), store) as server:
        for tenant in ("acme", "acme", "beta"):
            await server.ask(tenant=tenant)
        assert await canary_answers(server, "new") == await canary_answers(server, "before") == [0, 0, 0]
        put_on_trial(store, silent)
        put_on_trial(store, broken)
        await server.refresh()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await server.ask())["model_version"] != silent.version:
                await asyncio.sleep(0.001)
        assert (await server.ask())["abstained"]
        for _ in range(3):
            answer = await server.public.post("/v1/tenants/cold/suggestions", json=ticket())
            assert answer.status_code == 503
        await server.public.post("/v1/tenants/acme/suggestions", json={})
        await server.public.post("/v1/tenants/nobody/suggestions", json=ticket())
        rush = (server.public.post("/v1/tenants/acme/suggestions", json=ticket()) for _ in range(3))
        statuses = [answer.status_code for answer in await asyncio.gather(*rush)]
        assert statuses == [200, 429, 429]
        before, new = await canary_answers(server, "before"), await canary_answers(server, "new")
        assert before[0] >= 2
        assert before[1:] == [0, 0]
        assert new == [0, 3, 3], "what callers did wrong is not counted"
        assert await canary_models(server) == [1, 1, 0]
        every = [await server.metric("macrofleet_answers_total", outcome=name) for name in OUTCOMES]
        assert every == [before[0] + 1, 3, 3]
        update_fleet(store, {tenant: lambda entry: entry and takes_back(entry) for tenant in ("acme", "cold")})
        await server.refresh()
        assert await canary_answers(server, "new") == [0, 0, 0]
        assert (await server.ask(tenant="cold"))["macros"]


def test_what_agents_did_is_counted_by_the_version_that_suggested_it() -> None:
    canaries = Canaries()
    for number in (1, 2):
        canaries.count("acme", ref(number)[0], "suggested")
    for number, outcome in ((1, "accepted"), (1, "accepted"), (2, "declined"), (2, "accepted"), (7, "accepted")):
        canaries.hear("acme", ref(number)[0], outcome)  # type: ignore[arg-type]
    canaries.hear("beta", ref(1)[0], "declined")
    canaries.follow(Fleet(1, {"acme": entry("on trial"), "beta": entry("on trial")}))
    found = {(which, outcome): canaries.heard(which, outcome) for which in WHICH for outcome in HEARD}
    assert found == {
        ("new", "accepted"): 1,
        ("new", "declined"): 1,
        ("before", "accepted"): 2,
        ("before", "declined"): 0,
    }
    assert canaries.all_heard() == {("accepted",): 4, ("declined",): 2}
    canaries.follow(Fleet(2, {}))
    canaries.follow(Fleet(3, {"acme": entry("on trial")}))
    assert canaries.heard("before", "accepted") == 0


def test_versions_that_somebody_makes_up_take_no_room() -> None:
    canaries = Canaries()
    canaries.count("acme", ref(1)[0], "suggested")
    for number in range(1000):
        canaries.hear("acme", ref(number)[0], "accepted")
        canaries.hear(f"tenant-{number}", ref(1)[0], "accepted")
    assert canaries._heard == {"acme": {ref(1)[0]: {"accepted": 1, "declined": 0}}}
