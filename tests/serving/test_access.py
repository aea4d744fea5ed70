"""Who is let in: the keys as they are read, and what becomes of those who have none."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.fleets import publish_tenants
from registry.errors import (
    AccessUnavailable,
    InvalidInput,
    NotAuthenticated,
    NotPermitted,
    StoreUnavailable,
    TenantNotFound,
)
from registry.keys.published import SCOPES, Scope
from registry.layout import ACCESS_KEYS
from registry.settings import StoreSettings
from registry.store.local import LocalStore
from serving.access import ANY_SUGGESTION, EVERYTHING, Grant, PublishedAccess, authorization_of
from serving.app import create_apps
from serving.main import run_sagemaker
from serving.settings import ServingSettings
from tests.serving.access_world import Key, key_for, publish
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, eventually, serving, ticket, until_ready

pytestmark = pytest.mark.anyio
URL = "/v1/tenants/acme/suggestions"


class Clocks:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = 1_800_000_000.0


class Failing:
    """A store that can be unplugged, or held."""

    def __init__(self, inner: LocalStore) -> None:
        self._inner = inner
        self.broken = False
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_if_changed(self, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        if self.broken:
            raise StoreUnavailable("unplugged")
        return self._inner.get_if_changed(*args, **kwargs)


@pytest.fixture
def bare(tmp_path: Path) -> Failing:
    return Failing(LocalStore(tmp_path / "store"))


@asynccontextmanager
async def following(store: Any, clocks: Clocks, **more: Any) -> AsyncIterator[PublishedAccess]:
    told = {"poll_seconds": 3600, "stale_seconds": 100, **more}
    access = PublishedAccess(store, clock=lambda: clocks.now, wall=lambda: clocks.wall, **told)
    async with access.running():
        yield access


def bearer(key: Key) -> bytes:
    return b"Bearer " + key.key.encode()


async def test_a_key_opens_what_was_published_of_it(bare: Failing) -> None:
    clocks = Clocks()
    mine, all_of_it = key_for("acme", "suggest"), key_for(None, "operator")
    publish(bare, [mine, all_of_it])
    async with following(bare, clocks) as access:
        assert await access.refresh() == 1
        assert access.grant(bearer(mine)) == Grant("acme", frozenset({"suggest"}))
        assert access.grant(bearer(mine).replace(b"Bearer", b"bEARER")) == Grant("acme", frozenset({"suggest"}))
        assert access.grant(bearer(all_of_it)) == Grant(None, frozenset({"operator"}))
        assert (access.count, access.generation) == (2, 1)
        refused = [
            None, b"", b"Bearer", b"Bearer ", b"Bearer  " + mine.key.encode(), b"Basic x", bearer(mine)[:-1],
            bearer(mine) + b" ", b"Bearer " + b"x" * 10_000, bearer(key_for("acme", "suggest")),
            b"Bearer " + mine.published.digest.encode(), b"Bearer " + hashlib.sha256(mine.key.encode()).digest(),
        ]  # fmt: skip
        for header in refused:
            with pytest.raises(NotAuthenticated):
                access.grant(header)


async def test_a_key_expires_by_itself(bare: Failing) -> None:
    clocks = Clocks()
    key = key_for("acme", "suggest", expires=60)
    publish(bare, [key])
    assert key.published.expires is not None
    clocks.wall = key.published.expires - 0.5
    async with following(bare, clocks) as access:
        await access.refresh()
        assert access.grant(bearer(key)).covers("acme")
        clocks.wall += 0.5
        with pytest.raises(NotAuthenticated):
            access.grant(bearer(key))


async def test_a_revoked_key_is_refused_from_the_next_reading_on(bare: Failing) -> None:
    key, other = key_for("acme", "suggest"), key_for("acme", "suggest")
    publish(bare, [key, other])
    async with following(bare, Clocks()) as access:
        await access.refresh()
        publish(bare, [other], generation=2)
        access.grant(bearer(key))
        assert await access.refresh() == 2
        with pytest.raises(NotAuthenticated):
            access.grant(bearer(key))
        access.grant(bearer(other))


async def test_the_keys_are_polled(bare: Failing) -> None:
    key = key_for("acme", "suggest")
    publish(bare, [key])
    async with following(bare, Clocks(), poll_seconds=0.001) as access, asyncio.timeout(PATIENCE_SECONDS):
        while not access.generation:
            await asyncio.sleep(0.001)
        publish(bare, [], generation=2)
        while access.generation != 2:
            await asyncio.sleep(0.001)
        with pytest.raises(NotAuthenticated):
            access.grant(bearer(key))


async def test_polling_outlives_what_cannot_be_read(bare: Failing) -> None:
    bare.broken = True
    async with following(bare, Clocks(), poll_seconds=0.001) as access, asyncio.timeout(PATIENCE_SECONDS):
        while bare.reads < 3:
            await asyncio.sleep(0.001)
        assert not access.ready
        with pytest.raises(AccessUnavailable):
            access.grant(None)
        bare.broken = False
        while not access.ready:
            await asyncio.sleep(0.001)


async def test_without_any_keys_nobody_is_let_in(bare: Failing) -> None:
    async with following(bare, Clocks()) as access:
        assert await access.refresh() == 0
        assert access.ready
        with pytest.raises(NotAuthenticated):
            access.grant(bearer(key_for(None, "operator")))


@pytest.mark.parametrize("trouble", ["unreachable", "gone", "damaged", "older"])
async def test_the_last_keys_hold_for_a_while_and_no_longer(bare: Failing, trouble: str) -> None:
    clocks, key = Clocks(), key_for("acme", "suggest")
    publish(bare, [key], generation=5)
    async with following(bare, clocks) as access:
        await access.refresh()
        match trouble:
            case "unreachable":
                bare.broken = True
            case "gone":
                bare.delete(ACCESS_KEYS)
            case "damaged":
                bare.put(ACCESS_KEYS, b'{"format":1,"keys":[]}')
            case "older":
                publish(bare, [key, key_for(None, "operator")], generation=4)
        for _ in range(2):
            with pytest.raises(Exception, match=r"unplugged|is not any more|is not valid|older than"):
                await access.refresh()
            access.grant(bearer(key))
        clocks.now += 100
        access.grant(bearer(key))
        clocks.now += 0.001
        assert not access.ready
        with pytest.raises(AccessUnavailable):
            access.grant(bearer(key))
        bare.broken = False
        publish(bare, [key], generation=6)
        assert await access.refresh() == 6
        access.grant(bearer(key))


async def test_a_reading_is_as_old_as_its_beginning(bare: Failing) -> None:
    """What a store that hangs says at last may be from before it hung."""
    clocks, gate = Clocks(), threading.Event()
    publish(bare, [key_for("acme", "suggest")])
    async with following(bare, clocks) as access:
        await access.refresh()
        await eventually(lambda: bare.reads == 2 and not access._reading.locked())  # the first poll, too
        read = bare.get_if_changed
        bare.get_if_changed = lambda *args, **kwargs: (gate.wait(PATIENCE_SECONDS), read(*args, **kwargs))[1]  # type: ignore[method-assign]
        slow = asyncio.create_task(access.refresh())
        for _ in range(10):
            await asyncio.sleep(0)
        clocks.now += 101
        gate.set()
        await slow
        assert not access.ready


def test_what_a_grant_is_good_for() -> None:
    agent, desk = Grant("acme", frozenset({"suggest"})), Grant("acme", frozenset({"feedback"}))
    admin = Grant("acme", frozenset({"tenant-admin"}))
    agent.check("suggest", "acme")
    for grant in (admin, EVERYTHING):
        for scope in SCOPES[:-1]:
            grant.check(scope, "acme")
    EVERYTHING.check("operator", "globex")
    ANY_SUGGESTION.check("suggest", "globex")
    refused: list[tuple[Grant, Scope]] = [
        (agent, "feedback"),
        (desk, "suggest"),
        (agent, "operator"),
        (admin, "operator"),
    ]
    for grant, scope in refused:
        with pytest.raises(NotPermitted):
            grant.check(scope, "acme")
        for tenant in ("globex", "", "acme ", "ACME"):  # whatever it asks for
            with pytest.raises(TenantNotFound):
                grant.check(scope, tenant)
    with pytest.raises(NotPermitted):
        ANY_SUGGESTION.check("tenant-admin", "globex")


def test_several_authorizations_are_none() -> None:
    one = (b"authorization", b"Bearer a")
    assert authorization_of([(b"x", b"y"), one]) == b"Bearer a"
    assert authorization_of([one, one]) is None
    assert authorization_of([]) is None


# Through a server


@pytest.fixture
def keys() -> dict[str, Key]:
    return {
        "agent": key_for("acme", "suggest"),
        "admin": key_for("acme", "tenant-admin"),
        "operator": key_for(None, "operator"),
    }


@pytest.fixture
def told(make_settings: MakeSettings) -> ServingSettings:
    return make_settings(access="keys", access_poll_seconds=3600)


@pytest.fixture
def filled(store: LocalStore, bag: BuiltProgram, keys: dict[str, Key]) -> LocalStore:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    publish(store, keys.values())
    return store


async def test_a_push_has_a_revoked_key_refused_at_once(
    told: ServingSettings, filled: LocalStore, keys: dict[str, Key]
) -> None:
    apps = create_apps(told, filled)
    transport = httpx.ASGITransport(apps.operator)
    async with (
        serving(apps.public) as client,
        httpx.AsyncClient(transport=transport, base_url="http://test") as operator,
    ):
        await until_ready(client)
        assert (await client.post(URL, json=ticket(), headers=keys["agent"].header)).status_code == 200
        publish(filled, [keys["operator"]], generation=2)
        assert (await client.post(URL, json=ticket(), headers=keys["agent"].header)).status_code == 200
        push = await operator.post("/admin/access/refresh", headers=keys["operator"].header)
        assert (push.status_code, push.json()) == (200, {"generation": 2})
        refused = await client.post(URL, json=ticket(), headers=keys["agent"].header)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["type"] == "urn:macrofleet:problem:not-authenticated"
        metrics = (await operator.get("/metrics", headers=keys["operator"].header)).text
        assert 'macrofleet_refusals_total{reason="unauthenticated"} 1.0' in metrics
        assert "macrofleet_access_generation 2.0" in metrics
        assert "macrofleet_access_keys 1.0" in metrics


async def test_only_administrators_get_explanations(
    told: ServingSettings, filled: LocalStore, keys: dict[str, Key]
) -> None:
    async with serving(create_apps(told, filled).public) as client:
        await until_ready(client)
        asked = ticket(explain=True)
        found = {name: await client.post(URL, json=asked, headers=key.header) for name, key in keys.items()}
        assert {name: answer.status_code for name, answer in found.items()} == {
            "agent": 403,
            "admin": 200,
            "operator": 200,
        }


async def test_readiness_names_tenants_to_an_operator_alone(
    told: ServingSettings, filled: LocalStore, bag: BuiltProgram, keys: dict[str, Key]
) -> None:
    publish_tenants(filled, ["broken-81d4"], program="e" * 64, spec=bag.spec)
    async with serving(create_apps(told, filled).public) as client:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (await client.get("/readyz")).json()["models"]["failed"]:
                await asyncio.sleep(0.01)
        for headers in ({}, keys["agent"].header, keys["admin"].header):
            answer = await client.get("/readyz", headers=headers)
            assert answer.json()["models"]["failed"] == 1
            assert "broken" not in answer.text
        seen = (await client.get("/readyz", headers=keys["operator"].header)).json()
        assert set(seen["models"]["failed"]) == {"broken-81d4"}


async def test_a_server_is_not_ready_before_it_knows_who_may_ask(told: ServingSettings, filled: LocalStore) -> None:
    apps = create_apps(told, filled)
    assert apps.access is not None
    async with serving(apps.public) as client:
        await until_ready(client)
        apps.access._read_at = None
        assert (await client.get("/readyz")).status_code == 503
        answer = await client.post(URL, json=ticket())
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:macrofleet:problem:access-unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_keys_are_asked_for_unless_said_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS", "SAGEMAKER_ACCESS", "INSECURE"):
        monkeypatch.delenv(f"MACROFLEET_{name}", raising=False)
    apps = create_apps(ServingSettings(disk_folder=tmp_path / "disk"), LocalStore(tmp_path / "store"))
    assert apps.access is not None


def test_a_container_of_sagemakers_is_told_who_lets_callers_in(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="MACROFLEET_SAGEMAKER_ACCESS=platform"):
        run_sagemaker(ServingSettings(), StoreSettings(), tmp_path)
