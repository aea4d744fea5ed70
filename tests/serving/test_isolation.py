"""Every route x every kind of key x many names: whoever has no business with a tenant learns nothing of it.

The routes are those of the applications' own tables, so that one which is added later is driven, too.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from benchmarks.fleets import make_bundle, publish_tenants
from registry.fleet.state import FleetEntry, update_fleet
from registry.keys.published import SCOPES
from registry.model.program import publish_program
from registry.store import ObjectStore
from registry.store.local import LocalStore
from serving.access import open_access
from serving.app import create_apps
from serving.faces.guard import HEALTH, GuardedRoute, needed_by
from serving.faces.sagemaker import TARGET_HEADER, create_sagemaker_app
from serving.settings import ServingSettings
from tests.serving.access_world import Key, Said, call, key_for, publish, routes_of
from tests.serving.helpers import BuiltProgram, add_catalogue, ticket, until_ready

MINE, LOADED, ABSENT, UNTRAINED = "acme", "beta-7f3a", "gamma-91c2", "delta-55e0"
OTHERS = (LOADED, ABSENT, UNTRAINED)
NOBODY = "nobody-0000"
TENANTS = (MINE, *OTHERS)
NAMES = 200
FEEDBACK = json.dumps({"suggestion_id": "s1", "applied": None}).encode()
TICKET = json.dumps(ticket()).encode()
INFERENCE = json.dumps(
    {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["Where is my parcel?"]}]}
).encode()
# What does not tell of a request's own handling, or moves by itself.
COUNTED = ("macrofleet_cache_hits", "macrofleet_cold_loads", "macrofleet_model_loads", "macrofleet_evictions")
ASKED = {
    "answering": ("ask", "answer", "explain"),
    "outcomes": ("hear",),
    "controls": ("models", "models_of", "models_after", "model", "shadow", "load_model", "unload_model"),
}


class Counted:
    """A store that notes every request to it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.requests.append(name)
            return found(*args, **kwargs)

        return noted


@dataclass
class World:
    """Three applications with the same keys, what their data plane was asked, and what they asked of the store."""

    apps: dict[str, FastAPI]
    keys: dict[str, bytes | None]
    metrics: list[Callable[[], bytes]]
    asked: list[tuple[str, Any]] = field(default_factory=list)
    store_requests: list[str] = field(default_factory=list)

    def counted(self) -> dict[tuple[str, ...], float]:
        return {
            (str(place), sample.name, *map(str, sample.labels.items())): sample.value
            for place, read in enumerate(self.metrics)
            for family in text_string_to_metric_families(read().decode())
            if family.name in COUNTED
            for sample in family.samples
        }

    async def call(self, app: str, method: str, path: str, kind: str, *, target: str | None = None) -> Said:
        headers = [] if self.keys[kind] is None else [(b"authorization", self.keys[kind] or b"")]
        if kind == "two":
            headers = [(b"authorization", self.keys["operator"] or b"")] * 2
        if target is not None:
            headers.append((TARGET_HEADER.lower().encode(), target.encode("utf-8", "replace")))
        body = INFERENCE if path.endswith("/infer") else b"" if "/repository" in path else TICKET
        body = FEEDBACK if path.endswith("/feedback") else body
        return await call(self.apps[app], method, path, headers=headers, body=body if method == "POST" else b"")


@dataclass(frozen=True)
class Place:
    """A route of an application, by method."""

    app: str
    method: str
    template: str
    scope: str

    @property
    def of_tenant(self) -> bool:
        """Whether it is about one tenant, or one tenant's model."""
        return "{tenant" in self.template or "{alias" in self.template or self.template == "/invocations"

    def path(self, name: str, version: str = "1") -> str:
        template = self.template.replace("{tenant:path}", name).replace("{tenant}", name)
        return template.replace("{alias:alias}", name).replace("{version}", version).replace("{rest:path}", "rest")


BEARER = b"Bearer "
# Keys that nobody is known by.
UNKNOWN = ("none", "empty", "malformed", "another scheme", "unpublished", "revoked", "expired", "two", "cut", "longer")
# Keys of a tenant, by what they may do there.
OF_TENANTS = {
    "suggest": (MINE, "suggest"),
    "feedback": (MINE, "feedback"),
    "tenant-admin": (MINE, "tenant-admin"),
    "of a tenant that left": ("left-1234", "tenant-admin"),
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def world_in(folder: Path, bag: BuiltProgram) -> AsyncIterator[World]:
    store = LocalStore(folder / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, [MINE, LOADED, ABSENT], program=bag.digest, spec=bag.spec)
    update_fleet(store, {UNTRAINED: lambda _: FleetEntry(reason="too few examples")})
    made: dict[str, Key] = {name: key_for(*about) for name, about in OF_TENANTS.items()}  # type: ignore[arg-type]
    made |= {"operator": key_for(None, "operator"), "expired": key_for(MINE, "tenant-admin", expires=-1)}
    revoked, unpublished = key_for(MINE, "tenant-admin"), key_for(MINE, "tenant-admin")
    publish(store, [*made.values(), revoked])
    told = ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset({bag.digest}),
            "request_timeout_ms": 30_000,
            "fleet_poll_seconds": 3600,
            "access_poll_seconds": 3600,
            "tenant_concurrency": 1000,
            "preload": "none",
        }
    )
    seen = Counted(store)
    apps = create_apps(told, cast(ObjectStore, seen))
    access = open_access(told, cast(ObjectStore, seen))
    from serving.metrics import Metrics

    metrics = Metrics()
    shutil.copytree(bag.folder, folder / "programs" / bag.digest)
    container = create_sagemaker_app(told, programs_folder=folder / "programs", access=access, metrics=metrics)
    mine = made["suggest"].key.encode()
    keys: dict[str, bytes | None] = {name: BEARER + key.key.encode() for name, key in made.items()}
    keys |= {
        "none": None,
        "empty": BEARER,
        "malformed": BEARER + b"mf_\xff\x00_" + b"a" * 90,
        "another scheme": b"Basic " + mine,
        "unpublished": BEARER + unpublished.key.encode(),
        "revoked": BEARER + revoked.key.encode(),
        "cut": BEARER + mine[:-1],
        "longer": BEARER + mine + b"0",
        "two": None,  # `World.call` makes it
    }
    world = World(
        apps={"public": apps.public, "operator": apps.operator, "sagemaker": container},
        keys=keys,
        metrics=[lambda: apps.data_plane.metrics.exposition()[0], lambda: metrics.exposition()[0]],
    )
    async with AsyncExitStack() as stack:
        for app in (apps.public, container):
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                await until_ready(client, "/ping" if app is container else "/readyz")
        assert apps.access is not None
        publish(store, made.values(), generation=2)
        assert [await each.refresh() for each in (apps.access, access)] == [2, 2]
        operator = [(b"authorization", keys["operator"] or b"")]
        for name in (MINE, LOADED):
            said = await call(apps.operator, "POST", f"/admin/models/{name}/load", headers=operator)
            assert said.status == 200
            model = folder / "models" / name / "model"
            make_bundle(model, tenant=name, program=bag.digest, spec=bag.spec)
            add_catalogue(model)
            body = json.dumps({"model_name": name, "url": str(model)}).encode()
            assert (await call(container, "POST", "/models", headers=operator, body=body)).status == 200
        watch(world, apps.data_plane)
        seen.requests.clear()
        world.store_requests = seen.requests
        yield world


def watch(world: World, data_plane: Any) -> None:
    """Note what the faces ask of the data plane."""
    for part, name in ((getattr(data_plane, part), name) for part, names in ASKED.items() for name in names):
        method = getattr(part, name)

        def noted(*args: Any, _name: str = name, _method: Any = method, **kwargs: Any) -> Any:
            world.asked.append((_name, args[0] if args else None))
            return _method(*args, **kwargs)

        setattr(part, name, noted)


def places(apps: dict[str, FastAPI]) -> Iterator[Place]:
    for app, made in apps.items():
        for route in routes_of(made):
            assert isinstance(route, Route | GuardedRoute)
            for method in sorted(route.methods or ()):
                scope = needed_by(route.endpoint) if isinstance(route, GuardedRoute) else "any"
                yield Place(app, method, route.path, scope)


def without_path(said: Said) -> Said:
    """An answer without what it repeats of its request's path."""
    body = re.sub(rb'"instance":"[^"]*"', b'"instance":""', said.body)
    return Said(
        said.status,
        said.headers,
        re.sub(rb'"detail":"[A-Z]+ [^" ]+ is not served', b'"detail":"It is not served', body),
    )


NAME = st.one_of(
    st.sampled_from(OTHERS),
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    st.sampled_from(
        ["..", ".", "%2e%2e", "acme/", "/acme", "acme/../beta-7f3a", "ACME", "acme ", "acme\n", "acme%00", ""]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.builds(lambda name, more: name + more, st.sampled_from(TENANTS), st.text("abc/.-_", min_size=1, max_size=3)),
).filter(lambda name: name != MINE)


@pytest.fixture
def world_of(tmp_path: Path, bag: BuiltProgram) -> Callable[[], Any]:
    return lambda: world_in(tmp_path, bag)


@pytest.fixture
async def world(tmp_path: Path, bag: BuiltProgram) -> AsyncIterator[World]:
    async with world_in(tmp_path, bag) as made:
        yield made


@pytest.mark.anyio
async def test_every_route_says_whom_it_is_for(world: World) -> None:
    for app in world.apps.values():
        for route in routes_of(app):
            assert isinstance(route, GuardedRoute) or route.path == "/openapi.json", route  # type: ignore[attr-defined]
    found = set(places(world.apps))
    assert {place.scope for place in found} == {"any", "suggest", "feedback", "tenant-admin", "operator"}
    assert len([place for place in found if place.of_tenant]) > 12
    assert len(found) > 25


@pytest.mark.anyio
async def test_nobody_without_a_key_gets_further_than_health(world: World) -> None:
    before, opened = world.counted(), set()
    for place in places(world.apps):
        for name in (MINE, LOADED, NOBODY):
            path = place.path(name)
            for kind in UNKNOWN:
                said = await world.call(place.app, place.method, path, kind, target=name)
                if place.template in HEALTH:
                    assert said.status == 200, (place, kind)
                    opened.add(path)
                    assert not any(each.encode() in said.body for each in TENANTS)
                else:
                    assert said.status == 401, (place, kind)
                    assert (b"www-authenticate", b"Bearer") in said.headers
                    like = await world.call(place.app, place.method, path, "none")
                    assert said == like, (place, kind)
    assert opened == HEALTH
    assert not world.asked
    assert world.counted() == before


@pytest.mark.anyio
async def test_two_keys_in_one_request_are_none(world: World) -> None:
    two = [(b"authorization", world.keys["operator"] or b"")] * 2
    for app, path in (("public", f"/v1/tenants/{MINE}/suggestions"), ("operator", f"/v2/models/{MINE}/infer")):
        said = await call(world.apps[app], "POST", path, headers=two, body=TICKET)
        assert said.status == 401


@pytest.mark.anyio
async def test_what_a_key_is_for_it_opens(world: World) -> None:
    """Or the other tests would be passed by a server that refuses everything."""
    for place in sorted(places(world.apps), key=lambda place: place.method == "DELETE"):
        if place.template in HEALTH or "{rest" in place.template:
            continue
        for kind in ("suggest", "tenant-admin", "operator"):
            said = await world.call(place.app, place.method, place.path(MINE), kind, target=MINE)
            held = SCOPES.index(kind) >= SCOPES.index(place.scope) if place.scope != "any" else True
            assert (said.status == 403) == (not held), (place, kind, said)
            assert said.status != 401
            if not place.template.endswith("/versions/{version}/infer"):  # of a version that is none
                assert held or said.status == 403
                assert not held or said.status in {200, 202, 404, 409, 422, 400}, (place, kind, said)
    said = await world.call("public", "POST", f"/v1/tenants/{MINE}/suggestions", "suggest")
    assert said.status == 200
    assert (await world.call("public", "POST", f"/v1/tenants/{MINE}/feedback", "feedback")).status == 202
    assert (await world.call("operator", "POST", f"/v2/models/{MINE}/infer", "suggest")).status == 200
    assert (await world.call("operator", "POST", f"/v2/models/{LOADED}/infer", "operator")).status == 200
    assert (await world.call("operator", "GET", "/metrics", "operator")).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("kind", OF_TENANTS)
async def test_lists_show_only_what_the_key_may_see(world: World, kind: str) -> None:
    for place in places(world.apps):
        if place.of_tenant or place.template in HEALTH:
            continue
        said = await world.call(place.app, place.method, place.path(MINE), kind)
        assert not any(other.encode() in said.body for other in OTHERS), place
    tenant = OF_TENANTS[kind][0]
    assert all(about in ([tenant], tenant) for _, about in world.asked)


@pytest.mark.anyio
async def test_lists_are_whole_for_an_operator(world: World) -> None:
    listed = json.loads((await world.call("operator", "GET", "/admin/models", "operator")).body)
    assert [model["tenant"] for model in listed["models"]] == [MINE, LOADED, ABSENT]
    index = json.loads((await world.call("operator", "POST", "/v2/repository/index", "operator")).body)
    assert [model["name"] for model in index] == [MINE, LOADED, ABSENT]
    mine = json.loads((await world.call("operator", "POST", "/v2/repository/index", "suggest")).body)
    assert [model["name"] for model in mine] == [MINE]


def test_another_tenant_is_like_none(tmp_path: Path, bag: BuiltProgram) -> None:
    """In status, headers and body; and nothing is asked of the data plane that could take time, or load anything."""
    import asyncio

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        world = runner.run(stack.enter_async_context(world_in(tmp_path, bag)))
        about = [place for place in places(world.apps) if place.of_tenant]
        refused = {
            place: without_path(runner.run(world.call(place.app, place.method, place.path(NOBODY), "none")))
            for place in about
        }
        names: set[str] = set()
        requests = 0

        async def like_nobody(name: str) -> None:
            nonlocal requests
            for place in about:
                path, plain = place.path(name), place.path(NOBODY)
                for kind in OF_TENANTS:
                    said = await world.call(place.app, place.method, path, kind, target=name)
                    requests += 1
                    assert said.status in {403, 404, 405, 422, 401}, (place, kind, said)
                    assert not world.asked, (place, kind, world.asked)
                    rest = without_path(said)
                    assert not any(other.encode() in rest.body for other in OTHERS), (place, kind, said)
                    if "/" in name or "\n" in name or not name:
                        continue  # another route, or none: no tenant can be called so
                    like = await world.call(place.app, place.method, plain, kind, target=NOBODY)
                    assert rest == without_path(like), (place, kind)
                for kind in UNKNOWN:
                    said = await world.call(place.app, place.method, path, kind, target=name)
                    requests += 1
                    assert without_path(said) == refused[place], (place, kind, said)
                    assert not world.asked, (place, kind, world.asked)

        @settings(
            max_examples=2 * NAMES,  # some come twice
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(name=NAME)
        def drive(name: str) -> None:
            if name not in names and len(names) < NAMES:
                names.add(name)
                runner.run(like_nobody(name))

        try:
            before = world.counted()
            for name in OTHERS:
                runner.run(like_nobody(name))
            drive()
            assert world.counted() == before
            assert len(names) == NAMES
            assert requests == (NAMES + len(OTHERS)) * len(about) * (len(OF_TENANTS) + len(UNKNOWN))
            assert world.store_requests == []
        finally:
            runner.run(stack.aclose())


@pytest.mark.anyio
async def test_another_tenant_takes_as_long_as_none(world: World) -> None:
    """In function calls, which unlike times are the same every time."""

    async def calls(place: Place, name: str, kind: str) -> int:
        count = 0

        def counted(frame: Any, event: str, _argument: Any) -> None:
            nonlocal count
            # Which of its timers a loop compares with which depends on what else it waits for.
            count += event in {"call", "c_call"} and frame.f_code.co_qualname != "TimerHandle.__lt__"

        path = place.path(name)
        await world.call(place.app, place.method, path, kind, target=name)  # what is remembered of the last one
        sys.setprofile(counted)
        try:
            await world.call(place.app, place.method, path, kind, target=name)
        finally:
            sys.setprofile(None)
        return count

    for place in places(world.apps):
        if place.of_tenant:
            for kind in ("suggest", "tenant-admin", "none", "revoked"):
                for other in OTHERS:
                    nobody = "omega-0000"[: len(other)]
                    # The least of three: what other tests left behind may be finalised in the midst of one.
                    theirs = min([await calls(place, other, kind) for _ in range(3)])
                    nobodys = min([await calls(place, nobody, kind) for _ in range(3)])
                    assert nobodys > 10
                    assert theirs == nobodys, (place, kind)
    assert not world.store_requests
