"""Versions that are compared and never shown: with the real program, and what may go wrong beside the answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.types import Message

from benchmarks.fleets import make_bundle, publish_tenants
from registry.errors import ProgramCorrupt
from registry.fleet.control import promote, set_shadow, stop_shadow
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import WEIGHTS, model_key
from registry.model.bundle import Manifest
from registry.model.program import SPEC, ProgramSpec, publish_program
from registry.model.runtime import BoundModel, Features
from registry.publishing import publish_bundle
from registry.store.local import LocalStore
from serving.engine.executor import Executor
from serving.settings import ServingSettings
from serving.trials import shadows
from tests.serving.both_faces import running
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, Caller, eventually, ticket

pytestmark = pytest.mark.anyio
MakeSettings = Callable[..., ServingSettings]
ACME = "/v1/tenants/acme/suggestions"
TEXTS = ["Where is my parcel?", "Refund, please!", "I cannot log in", "The invoice is wrong", "Change my address"]


@pytest.fixture
def champion(store: LocalStore, bag: BuiltProgram) -> Manifest:
    """What acme serves; beta is there as well."""
    return publish_tenants(store, ["acme", "beta"], program=bag.digest, spec=bag.spec)["acme"]


@pytest.fixture
def version(store: LocalStore, bag: BuiltProgram, tmp_path: Path) -> Callable[..., Manifest]:
    """Publishes another version of acme, by its seed."""

    def make(seed: int, *, program: str = bag.digest, spec: ProgramSpec = bag.spec, **more: Any) -> Manifest:
        folder = tmp_path / f"bundle-{seed}"
        make_bundle(folder, tenant="acme", program=program, spec=spec, seed=seed, **more)
        return publish_bundle(store, folder, tenant="acme")

    return make


async def test_what_is_answered_is_scored_by_the_shadow_as_well(
    store: LocalStore, champion: Manifest, version: Callable[..., Manifest], make_settings: MakeSettings
) -> None:
    beside = version(1, threshold=0.9)
    set_shadow(store, "acme", beside.version)
    async with running(make_settings(), store) as server:
        first = await server.ask()
        assert first["model_version"] == champion.version, "it is not shown"
        await server.until_loaded(beside)
        missed = (await server.report())["requests"]["not_loaded"]
        assert missed >= 1
        answers = [await server.ask(text) for text in TEXTS]
        await server.until_settled()
        report = await server.report()
        assert {answer["model_version"] for answer in answers} == {champion.version}
        assert (report["champion"], report["error"]) == (champion.version, None)
        assert report["requests"] == {"compared": 5, "busy": 0, "not_loaded": missed, "failed": 0, "left_out": 0}
        # By hand, with the runtime alone.
        said = []
        for cache in (server.apps.data_plane._cache, server.shadows._cache):
            with cache.try_lease("acme") or pytest.fail("it is not there") as model:
                said.append(model.bound.score(model.bound.featurise(TEXTS)))
                del model
        ranked = [np.argsort(-scores, axis=1, kind="stable")[:, :3] for scores in said]
        comparison = report["comparison"]
        assert comparison["compared"] == 5
        assert comparison["same_first"] == int((ranked[0][:, 0] == ranked[1][:, 0]).sum())
        assert comparison["same_three"] == sum(set(a) == set(b) for a, b in zip(*ranked, strict=True))
        assert comparison["champion_abstained"] == 0
        assert comparison["shadow_abstained"] == int((said[1].max(axis=1) < 0.9).sum())
        assert comparison["shadow_scores"] == np.histogram(said[1].max(axis=1), bins=10, range=(0, 1))[0].tolist()
        assert report["same_first"] == comparison["same_first"] / 5
        counts = {"tenant": "acme", "result": "same_three"}
        assert await server.metric("macrofleet_shadow_comparisons_total", **counts) == comparison["same_three"]
        assert await server.metric("macrofleet_shadow_requests_total", outcome="compared") == 5
        assert await server.metric("macrofleet_bytes", tier="shadow") > 0
        assert await server.report("beta") is None


async def test_a_limit_of_one_and_a_promotion(
    store: LocalStore, champion: Manifest, version: Callable[..., Manifest], make_settings: MakeSettings
) -> None:
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    async with running(make_settings(), store) as server:
        await server.until_loaded(beside)
        assert len((await server.ask(limit=1))["macros"]) == 1
        await server.until_settled()
        assert (await server.report())["comparison"]["compared"] == 1
        promote(store, ["acme"])
        await server.refresh()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await server.ask())["model_version"] != beside.version:
                await asyncio.sleep(0.001)
        assert await server.report() is None
        assert server.shadows.nbytes == 0


async def test_the_answer_is_sent_before_the_shadow_is_asked(
    store: LocalStore,
    champion: Manifest,
    version: Callable[..., Manifest],
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    events: list[str] = []
    score = BoundModel.score_ticket

    def scored(model: BoundModel, features: Features, index: int) -> Any:
        events.append("shadow" if model.manifest.version == beside.version else "champion")
        return score(model, features, index)

    async def send(message: Message) -> None:
        events.append(message["type"])

    featurise = {"calls": 0}
    async with running(make_settings(), store) as server:
        await server.until_loaded(beside)
        await server.until_settled()
        monkeypatch.setattr(BoundModel, "score_ticket", scored)
        (program,) = server.apps.data_plane._models.programs.values()
        made = program.program.featurise

        def counted(texts: Any) -> Features:
            featurise["calls"] += 1
            return made(texts)

        monkeypatch.setattr(program.executor._program, "featurise", counted)
        caller = Caller(ACME, httpx.Request("POST", "http://x", json=ticket()).content)
        await server.apps.public(caller.scope, caller.receive, send)
        assert events == ["champion", "http.response.start", "http.response.body"]
        await server.until_settled()
        assert events[3:] == ["shadow"]
        assert featurise["calls"] == 1, "the features of the answer do for both"


async def test_a_shadow_of_another_program_makes_its_own_features(
    store: LocalStore,
    champion: Manifest,
    version: Callable[..., Manifest],
    make_settings: MakeSettings,
    tiny_encoder_folder: Path,
    bag: BuiltProgram,
) -> None:
    digest = publish_program(store, tiny_encoder_folder)
    spec = ProgramSpec.parse((tiny_encoder_folder / SPEC).read_bytes(), what=SPEC, error=ProgramCorrupt)
    beside = version(1, program=digest, spec=spec)
    set_shadow(store, "acme", beside.version)
    async with running(make_settings(trusted_programs=frozenset({bag.digest, digest})), store) as server:
        await server.until_loaded(beside)
        for text in TEXTS:
            assert (await server.ask(text))["model_version"] == champion.version
        await server.until_settled()
        assert (await server.report())["comparison"]["compared"] == 5


@pytest.mark.parametrize("harm", ["tampered", "missing", "untrusted", "no room", "too large for the disk"])
async def test_a_shadow_that_cannot_be_had_changes_nothing(
    store: LocalStore,
    champion: Manifest,
    version: Callable[..., Manifest],
    make_settings: MakeSettings,
    tmp_path: Path,
    harm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beside = version(1, program="f" * 64) if harm == "untrusted" else version(1)
    set_shadow(store, "acme", beside.version)
    weights = tmp_path / "store" / model_key("acme", beside.version, WEIGHTS)
    more: dict[str, object] = {}
    if harm == "tampered":
        data = weights.read_bytes()
        weights.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif harm == "missing":
        weights.unlink()
    elif harm == "no room":
        more = {"shadow_bytes": 1}
    elif harm == "too large for the disk":
        more = {"disk_bytes": 2 * sum(file.size for file in champion.files.values()) + 1000}
    async with running(make_settings(**more), store) as server:
        with caplog.at_level(logging.WARNING):
            for tenant in ("acme", "beta"):
                await server.ask(tenant=tenant)
            await eventually(lambda: not server.shadows._loads)
        before = len(caplog.records)
        for tenant in ("acme", "beta"):
            assert (await server.operator.get(f"/admin/models/{tenant}")).json()["state"] == "ready"
        for text in TEXTS:
            assert (await server.ask(text))["model_version"] == champion.version
        report = await server.report()
        assert report["requests"] == {"compared": 0, "busy": 0, "not_loaded": 6, "failed": 0, "left_out": 0}
        assert (report["error"] is None) == (harm == "no room")
        assert len(caplog.records) == before, "it is not tried again at every request"
        assert server.shadows.nbytes == 0


async def test_shadows_that_do_not_all_fit_leave_those_that_serve_alone(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    tenants = [f"t{number}" for number in range(4)]
    made = publish_tenants(store, tenants, program=bag.digest, spec=bag.spec)
    for tenant in tenants:
        folder = tmp_path / f"beside-{tenant}"
        beside = make_bundle(folder, tenant=tenant, program=bag.digest, spec=bag.spec, seed=1)
        publish_bundle(store, folder, tenant=tenant)
        set_shadow(store, tenant, beside.version)
    size = made["t0"].files[WEIGHTS].size
    async with running(make_settings(shadow_bytes=int(2.5 * size)), store) as server:
        for tenant in tenants * 3:
            await server.ask(tenant=tenant)
            await eventually(lambda: not server.shadows._loads)
        await server.until_settled()
        assert server.shadows.nbytes <= 2.5 * size
        assert len(server.apps.data_plane._cache) == 4
        reports = [await server.report(tenant) for tenant in tenants]
        assert sum(report["state"] == "ready" for report in reports) == 2
        assert sum(report["comparison"]["compared"] for report in reports) > 0


async def test_a_shadow_that_fails_to_score_fails_alone(
    store: LocalStore,
    champion: Manifest,
    version: Callable[..., Manifest],
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    score = BoundModel.score_ticket

    def scored(model: BoundModel, features: Features, index: int) -> Any:
        if model.manifest.version == beside.version:
            raise ValueError("my card number is 4111")
        return score(model, features, index)

    async with running(make_settings(), store) as server:
        await server.until_loaded(beside)
        await server.until_settled()
        monkeypatch.setattr(BoundModel, "score_ticket", scored)
        for text in TEXTS:
            await server.ask(text)
        await server.until_settled()
        assert (await server.report())["requests"]["failed"] == 5
        said = [record for record in caplog.records if record.name == "serving.trials.shadows"]
        assert len(said) == 1
        assert "4111" not in caplog.text
        lease = server.shadows._cache.try_lease("acme")
        assert lease is not None
        lease.release()
        assert server.shadows._cache.status(server.shadows._refs["acme"]).leases == 0


async def test_beyond_so_many_that_wait_tickets_are_left_out(
    store: LocalStore,
    champion: Manifest,
    version: Callable[..., Manifest],
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    async with running(make_settings(shadow_queue=2), store) as server:
        await server.until_loaded(beside)
        await server.until_settled()
        waiting: list[Any] = []
        with monkeypatch.context() as patched:
            patched.setattr(Executor, "when_free", lambda _, spare: waiting.append(spare))
            for text in TEXTS:
                await server.ask(text)
        assert (await server.report())["requests"]["busy"] == 3
        (program,) = server.apps.data_plane._models.programs.values()
        for spare in waiting:
            program.executor.when_free(spare)
        await server.until_settled()
        report = await server.report()
        assert (report["requests"]["compared"], report["requests"]["busy"]) == (2, 3)


async def test_a_share_is_compared_and_no_more(
    store: LocalStore, champion: Manifest, version: Callable[..., Manifest], make_settings: MakeSettings
) -> None:
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    async with running(make_settings(shadow_share=0.5), store) as server:
        chances = iter([0.0, 0.0, 0.49, 0.5, 0.51, 0.99])
        server.shadows._chance = lambda: next(chances)
        await server.until_loaded(beside)
        for text in TEXTS:
            await server.ask(text)
        await server.until_settled()
        assert (await server.report())["requests"] == {
            "compared": 2,
            "busy": 0,
            "not_loaded": 1,
            "failed": 0,
            "left_out": 3,
        }


async def test_a_new_shadow_takes_over_and_counting_begins_anew(
    store: LocalStore, champion: Manifest, version: Callable[..., Manifest], make_settings: MakeSettings
) -> None:
    first, second = version(1), version(2)
    set_shadow(store, "acme", first.version)
    async with running(make_settings(), store) as server:
        await server.until_loaded(first)
        await server.ask()
        await server.until_settled()
        assert (await server.report())["comparison"]["compared"] == 1
        set_shadow(store, "acme", second.version)
        await server.refresh()
        report = await server.report()
        assert (report["version"], report["comparison"]["compared"]) == (second.version, 0)
        await server.until_loaded(second)
        stop_shadow(store, ["acme"])
        await server.refresh()
        assert await server.report() is None
        assert server.shadows.nbytes == 0
        assert (await server.ask())["model_version"] == champion.version


async def test_an_unload_takes_the_shadow_with_it(
    store: LocalStore, champion: Manifest, version: Callable[..., Manifest], make_settings: MakeSettings
) -> None:
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    async with running(make_settings(), store) as server:
        await server.until_loaded(beside)
        await server.operator.post("/admin/models/acme/unload")
        assert (server.shadows.nbytes, (await server.report())["state"]) == (0, "absent")
        await server.until_loaded(beside)


async def test_metrics_name_a_hundred_tenants_and_no_more(
    store: LocalStore,
    champion: Manifest,
    version: Callable[..., Manifest],
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadows, "MOST_NAMED", 1)
    beside = version(1)
    set_shadow(store, "acme", beside.version)
    first = FleetEntry(version="1" * 16, manifest="1" * 64, shadow=beside.version, shadow_manifest=beside.digest)
    update_fleet(store, {"aaa": lambda _: first})
    async with running(make_settings(), store) as server:
        await server.until_loaded(beside)
        await server.ask()
        await server.until_settled()
        text = (await server.operator.get("/metrics")).text
        assert 'macrofleet_shadow_comparisons_total{tenant="acme"' not in text
        labels = {"tenant": "other", "result": "compared"}
        assert await server.metric("macrofleet_shadow_comparisons_total", **labels) == 1
