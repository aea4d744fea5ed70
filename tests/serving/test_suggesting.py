"""What agents get of a server: macros that they may use, the same again, and several at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.fleets import publish_tenants
from registry.catalogue import make_catalogue, read_catalogue, write_catalogue
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import tenant_settings_key
from registry.model.program import publish_program
from registry.store import ObjectStore
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings
from serving.app import create_apps
from serving.engine.executor import Executor
from serving.faces.batch import MAX_REQUESTS, BatchResponse
from serving.faces.edge import MAX_BATCH_BYTES, MAX_BODY_BYTES
from tests.serving.both_faces import Server
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import BuiltProgram, eventually, serving, spin, ticket, until_ready

pytestmark = pytest.mark.anyio
ACME = "/v1/tenants/acme/suggestions"
BATCH = f"{ACME}/batch"
MACROS = 8


class Watching:
    """An observer that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str, tuple[str, ...], bool]] = []

    def shown(
        self,
        tenant: str,
        *,
        suggestion_id: str,
        model_version: str,
        macro_ids: Sequence[str],
        abstained: bool,
        ticket_id: str | None = None,
        held_back: bool = False,
    ) -> None:
        assert not held_back
        self.heard.append((tenant, suggestion_id, model_version, tuple(macro_ids), abstained))


class World(Server):
    """A server over one tenant with eight macros, which reads its catalogue again at once."""

    store: ObjectStore
    observer: Watching

    async def ids(self, **fields: Any) -> list[str]:
        """What is suggested."""
        return [macro["id"] for macro in (await self.ask(**fields))["macros"]]

    async def follow(self) -> None:
        """Have what was written take effect."""
        catalogues = self.apps.data_plane._catalogues
        for entry in catalogues._entries.values():
            entry.due_at = 0.0
        for tenant in list(catalogues._entries):
            catalogues.known(tenant)
        await eventually(lambda: not catalogues._refreshes)

    async def rewrite(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change macros of the catalogue, by id, and have it take effect."""
        found = read_catalogue(self.store, "acme")
        assert found is not None
        macros = [macro.model_copy(update=changes.get(macro.id, {})) for macro in found[0].macros]
        write_catalogue(self.store, "acme", make_catalogue(macros), etag=found[1])
        await self.follow()

    def answers(self) -> tuple[int, int]:
        """Hits and misses."""
        kept = self.apps.data_plane._answers
        return kept.hits, kept.misses


@asynccontextmanager
async def world_in(store: ObjectStore, make_settings: MakeSettings, **changes: object) -> AsyncIterator[World]:
    observer = Watching()
    apps = create_apps(make_settings(**{"answer_bytes": 1_000_000, **changes}), store, observer=observer)
    transport = httpx.ASGITransport(apps.operator)
    async with serving(apps.public) as public, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await until_ready(public)
        world = World(apps, public, client)
        world.store, world.observer = store, observer
        yield world


@pytest.fixture
def store(tmp_path: Path, bag: BuiltProgram) -> ObjectStore:
    made = LocalStore(tmp_path / "store")
    publish_program(made, bag.folder)
    publish_tenants(made, ["acme", "globex"], program=bag.digest, spec=bag.spec, macros=MACROS)
    update_fleet(made, {"new": lambda _: FleetEntry(reason="too few examples")})
    return made


@pytest.fixture
async def world(store: ObjectStore, make_settings: MakeSettings) -> AsyncIterator[World]:
    async with world_in(store, make_settings) as made:
        yield made


async def ranked(world: World) -> list[str]:
    """All macros, best first."""
    best: list[str] = []
    while found := await world.ids(exclude=best):
        best += found
    assert len(best) == MACROS
    return best


async def test_a_macro_of_a_group_is_for_its_members(world: World) -> None:
    best = await ranked(world)
    await world.rewrite(
        {
            best[0]: {"restriction": {"type": "Group", "id": 7, "ids": [7, 8]}},
            best[1]: {"restriction": {"type": "User", "id": 17}},
        }
    )
    assert await world.ids() == best[2:5]
    assert await world.ids(agent={"id": "17", "groups": ["9"]}) == best[2:5]
    assert await world.ids(agent={"id": "17", "groups": ["9", "8"]}) == [best[0], *best[2:4]]
    assert await world.ids(agent={"id": "17", "groups": ["7"]}) == [best[0], *best[2:4]]


async def test_a_change_of_the_catalogue_is_followed_without_training(world: World) -> None:
    best = await ranked(world)
    await world.rewrite({best[0]: {"active": False}, best[1]: {"title": "Renamed"}})
    shown = (await world.ask())["macros"]
    assert [macro["id"] for macro in shown] == best[1:4]
    assert shown[0]["title"] == "Renamed"
    found = read_catalogue(world.store, "acme")
    assert found is not None
    left = make_catalogue(macro for macro in found[0].macros if macro.id != best[1])
    write_catalogue(world.store, "acme", left, etag=found[1])
    await world.follow()
    assert await world.ids() == best[2:5]


async def test_a_tenants_exclusions_are_for_everybody_and_every_face(world: World) -> None:
    best = await ranked(world)
    edit_tenant_settings(world.store, ["acme"], {"exclude_macros": best[:2]})
    await world.follow()
    assert await world.ids() == best[2:5]
    assert await world.ids(exclude=[best[2]]) == best[3:6]
    tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [ticket()["ticket"]["subject"]]}
    answer = await world.operator.post("/v2/models/acme/infer", json={"inputs": [tensor]})
    assert not set(best[:2]) & set(answer.json()["outputs"][0]["data"])


async def test_a_group_may_be_switched_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await world.ask()
    edit_tenant_settings(world.store, ["acme"], {"off_groups": ["trainees"]})
    await world.follow()
    off = await world.ask(agent={"id": "1", "groups": ["support", "trainees"]})
    assert (off["abstained"], off["reason"], off["macros"]) == (True, "switched_off", [])
    assert off["model_version"] == before["model_version"]
    assert (await world.ask(agent={"id": "1", "groups": ["support"]}))["macros"] == before["macros"]
    assert (await world.ask())["macros"] == before["macros"]
    monkeypatch.setattr(Executor, "score", None)  # a model need not be asked
    assert (await world.ask(text="new", agent={"id": "1", "groups": ["trainees"]}))["reason"] == "switched_off"


async def test_the_language_of_the_ticket_counts(world: World) -> None:
    best = await ranked(world)
    await world.rewrite({best[0]: {"locale": "de-DE"}, best[1]: {"locale": "en"}})

    async def asked(locale: str | None) -> list[str]:
        body = ticket("Where is my parcel?")
        body["ticket"]["locale"] = locale
        answer = await world.public.post(ACME, json=body)
        return [macro["id"] for macro in answer.json()["macros"]]

    assert await asked("de-AT") == [best[0], *best[2:4]]
    assert await asked("EN_gb") == best[1:4]
    assert await asked("fr") == best[2:5]
    assert await asked(None) == await asked("") == best[:3]


async def test_a_ticket_that_is_opened_again_is_not_scored_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await world.ask()
    assert first["suggestion_id"].startswith("s1_")
    monkeypatch.setattr(Executor, "score", None)
    assert await world.ask() == first
    assert world.answers() == (1, 1)
    assert await world.metric("macrofleet_answer_cache_total", outcome="hit") == 1
    assert await world.metric("macrofleet_answer_cache_total", outcome="miss") == 1
    assert await world.metric("macrofleet_bytes", tier="answers") > 0
    ((tenant, told, version, macros, abstained), again) = world.observer.heard
    assert again == (tenant, told, version, macros, abstained)
    assert (tenant, told, abstained) == ("acme", first["suggestion_id"], False)
    assert list(macros) == [macro["id"] for macro in first["macros"]]
    # Nor does the model have to be in memory.
    await world.operator.post("/admin/models/acme/unload")
    assert await world.ask() == first
    assert (await world.operator.get("/admin/models/acme")).json()["state"] == "absent"


async def test_what_changed_is_answered_anew(world: World, bag: BuiltProgram) -> None:
    def revised(text: str = "Where is my parcel?", revision: int = 0) -> dict[str, Any]:
        body = ticket(text)
        body["ticket"]["revision"] = revision
        return body

    async def asked(body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (await world.public.post(ACME, json=body)).json()
        return found

    first = await asked(revised())
    other_text = await asked(revised("I want my money back, please"))
    assert other_text["macros"] != first["macros"]
    assert (await asked(revised(revision=1)))["suggestion_id"] != first["suggestion_id"]
    assert world.answers() == (0, 3)
    await world.rewrite({"m0": {"title": "Renamed"}})
    again = await asked(revised())
    assert [one["id"] for one in again["macros"]] == [one["id"] for one in first["macros"]]
    assert again["suggestion_id"] != first["suggestion_id"]
    assert world.answers() == (0, 4)
    publish_new(world.store, bag)
    await world.refresh()
    await eventually(lambda: not world.apps.data_plane._cache.outdated())
    await spin()
    renewed = await asked(revised())
    assert renewed["model_version"] != first["model_version"]
    assert world.answers() == (0, 5)
    assert await asked(revised()) == renewed
    assert world.answers() == (1, 5)


def publish_new(store: ObjectStore, bag: BuiltProgram) -> None:
    found = read_catalogue(store, "acme")
    assert found is not None
    store.delete("tenants/acme/macros.json")
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec, macros=MACROS, seed=5)
    store.put("tenants/acme/macros.json", found[0].to_bytes())


async def test_agents_of_other_groups_never_share_an_answer_they_may_not_see(world: World) -> None:
    best = await ranked(world)
    await world.rewrite({best[0]: {"restriction": {"type": "Group", "ids": [7]}}})
    member = {"id": "1", "groups": ["7"]}
    for _ in range(2):
        assert (await world.ids(agent=member))[0] == best[0]
        assert best[0] not in await world.ids()
        assert best[0] not in await world.ids(agent={"id": "2", "groups": ["8"]})


async def test_answers_of_a_tenant_that_left_are_forgotten(world: World) -> None:
    await world.ask()
    assert len(world.apps.data_plane._answers) == 1
    update_fleet(world.store, {"acme": lambda _: None})
    await world.refresh()
    await eventually(lambda: not len(world.apps.data_plane._answers))
    assert (await world.public.post(ACME, json=ticket())).status_code == 404


async def test_nobody_on_the_way_keeps_an_answer(world: World) -> None:
    answer = await world.public.post(ACME, json=ticket())
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


async def test_explanations_of_a_remembered_answer(world: World) -> None:
    plain = await world.ask()
    explained = await world.ask(explain=True)
    assert all(macro.pop("explanation") for macro in explained["macros"])
    assert explained == plain
    assert await world.ask() == plain


async def test_rules_that_cannot_be_read_are_not_taken_for_none(
    store: ObjectStore, make_settings: MakeSettings
) -> None:
    store.put(tenant_settings_key("acme"), b"{")
    async with world_in(store, make_settings) as world:
        answer = await world.public.post(ACME, json=ticket())
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:macrofleet:problem:catalogue-unavailable")
        assert (await world.public.post(ACME.replace("acme", "globex"), json=ticket())).status_code == 200


# Batches


async def sent(world: World, *requests: Any, path: str = BATCH, **named: Any) -> httpx.Response:
    return await world.public.post(path, json={"requests": list(requests)}, **named)


async def test_a_batch_answers_each_as_it_would_alone(world: World) -> None:
    texts = ["Where is my parcel?", "Refund please", "Größe ändern", "Where is my parcel?"]
    bodies = [{"ticket": {"id": str(place), "subject": text}} for place, text in enumerate(texts)]
    answer = await sent(world, *bodies)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    BatchResponse.model_validate(answer.json())
    alone = [(await world.public.post(ACME, json=body)).json() for body in bodies]
    assert answer.json() == {"answers": [{"status": 200, "suggestion": one} for one in alone]}


async def test_one_that_is_bad_does_not_fail_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    score = Executor.score

    async def fail(self: Executor, model: Any, text: str, **named: Any) -> Any:
        if "crash" in text:
            raise RuntimeError(text)
        return await score(self, model, text, **named)

    monkeypatch.setattr(Executor, "score", fail)
    bad: list[Any] = [
        {"ticket": {"id": ""}},
        {"ticket": {"id": "1", "subject": " "}},
        None,
        ["secret 4111"],
        {"ticket": {"id": "1", "subject": "x" * MAX_BODY_BYTES}},
        ticket("crash 4111"),
    ]
    answer = await sent(world, ticket(), *bad, ticket())
    assert answer.status_code == 200
    BatchResponse.model_validate(answer.json())
    answers = answer.json()["answers"]
    assert [one["status"] for one in answers] == [200, 422, 422, 422, 422, 413, 500, 200]
    assert [one.get("problem", {}).get("status", 200) for one in answers] == [one["status"] for one in answers]
    assert answers[1]["problem"]["fields"] == [
        {"field": "ticket.id", "message": answers[1]["problem"]["fields"][0]["message"]}
    ]
    assert answers[0]["suggestion"] == answers[-1]["suggestion"]
    assert "4111" not in answer.text


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"{", b"[]", b'{"requests": []}', b'{"requests": {}}', b'{"requests": [{}], "more": 1}', b"[" * 5000],
        *[b'{"requests": [NaN]}', b'{"requests": ["\xff 4111"]}'],
        json.dumps({"requests": [{}] * (MAX_REQUESTS + 1)}).encode(),
    ],
)
async def test_what_is_no_batch(world: World, content: bytes) -> None:
    answer = await world.public.post(BATCH, content=content)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:macrofleet:problem:invalid-request")
    assert "4111" not in answer.text


async def test_a_batch_is_bounded_in_bytes(world: World) -> None:
    answer = await world.public.post(BATCH, content=b" " * (MAX_BATCH_BYTES + 1))
    assert answer.status_code == 413
    assert str(MAX_BATCH_BYTES) in answer.json()["detail"]
    many = [{"ticket": {"id": "1", "subject": f"{place} " + "y " * 3_700}} for place in range(MAX_REQUESTS)]
    answer = await sent(world, *many)
    assert answer.status_code == 200, answer.text
    assert {one["status"] for one in answer.json()["answers"]} == {200}


async def test_a_batch_of_a_tenant_that_is_not_known_is_refused_whole(world: World) -> None:
    assert (await sent(world, ticket(), path="/v1/tenants/nobody/suggestions/batch")).status_code == 404
    answer = await sent(world, ticket(), path="/v1/tenants/new/suggestions/batch")
    assert [one["status"] for one in answer.json()["answers"]] == [409]


async def test_each_of_a_batch_counts_against_the_rate(store: ObjectStore, make_settings: MakeSettings) -> None:
    async with world_in(store, make_settings, tenant_requests_per_second=2.5) as world:
        answer = await sent(world, *[ticket()] * 4)
        assert sorted(one["status"] for one in answer.json()["answers"]) == [200, 200, 429, 429]
        assert (await sent(world, ticket())).status_code == 429


async def test_a_batch_ends_at_its_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.ask()
    monkeypatch.setattr(Executor, "_next_batch", lambda _: [])
    stuck = [ticket(f"text {place}") for place in range(20)]
    answer = await sent(world, ticket(), *stuck, headers={"X-Request-Timeout-Ms": "20"})
    assert [one["status"] for one in answer.json()["answers"]][1:] == [504] * 20


async def test_openapi_describes_batches(world: World) -> None:
    document = (await world.public.get("/openapi.json")).json()
    operation = document["paths"]["/v1/tenants/{tenant}/suggestions/batch"]["post"]
    schemas = document["components"]["schemas"]
    references = json.dumps(document).split('"$ref": "#/components/schemas/')[1:]
    assert {reference.split('"')[0] for reference in references} <= set(schemas)
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/BatchRequest")
    assert schemas["BatchRequest"]["properties"]["requests"]["maxItems"] == MAX_REQUESTS
    assert "409" not in operation["responses"]
    assert "256 KiB" in operation["responses"]["413"]["description"]
    operations = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))


async def test_open_inference_shows_only_what_everybody_may_use(world: World) -> None:
    best = await ranked(world)
    await world.rewrite(
        {
            best[0]: {"active": False},
            best[1]: {"restriction": {"type": "User", "id": 17}},
            best[2]: {"restriction": {"type": "Group", "ids": [7]}},
            best[3]: {"restriction": {"type": "Unheard of"}},
        }
    )
    edit_tenant_settings(world.store, ["acme"], {"exclude_macros": [best[4]], "off_groups": ["7"]})
    await world.follow()
    heard = len(world.observer.heard)
    # A request that names an agent all the same gets nothing more for it.
    for more in ({}, {"parameters": {"agent": "17", "groups": "7"}}, {"id": "4711"}):
        text = {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["Where is my parcel?"]}
        said = (await world.operator.post("/v2/models/acme/infer", json={"inputs": [text], **more})).json()
        shown = next(output["data"] for output in said["outputs"] if output["name"] == "MACRO_ID")
        assert shown == best[5:8]
    assert len(world.observer.heard) == heard, "they are no agents' views"
