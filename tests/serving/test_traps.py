"""A whole server over a store where something is wrong or changes: one tenant suffers, the process and others do not."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import pytest

from benchmarks.fleets import make_bundle, publish_tenants
from registry.errors import StoreUnavailable
from registry.files import file_digest
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import MANIFEST, WEIGHTS, model_key
from registry.model.program import publish_program
from registry.model.tensors import map_tensors, write_tensors
from registry.publishing import publish_bundle
from registry.store import StoredObject
from registry.store.local import LocalStore
from serving.app import create_app
from serving.settings import ServingSettings
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, eventually, ready, serving, ticket, until_ready

pytestmark = pytest.mark.anyio
MakeSettings = Callable[..., ServingSettings]


async def ask(client: httpx.AsyncClient, tenant: str = "acme") -> httpx.Response:
    return await client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket())


async def check_refused_alone(client: httpx.AsyncClient, tenant: str, kind: str = "model-unavailable") -> None:
    for _ in range(2):
        refused = await ask(client, tenant)
        assert refused.status_code == 503, refused.text
        assert refused.json()["type"] == f"urn:macrofleet:problem:{kind}"
        assert (await ask(client, "globex")).status_code == 200


def publish(store: LocalStore, folder: Path, tenant: str = "acme") -> None:
    manifest = publish_bundle(store, folder, tenant=tenant)
    serve(store, tenant, manifest.version, manifest.digest)


def serve(store: LocalStore, tenant: str, version: str, manifest: str) -> None:
    update_fleet(store, {tenant: lambda _: FleetEntry(version=version, manifest=manifest)})


# What may happen to a file after it was published, or on the disk of a server.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-100],
    "emptied": lambda data: b"",
    "grown": lambda data: data + b"\0" * 64,
    "tampered": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
}


def misalign(path: Path) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = data[8 : 8 + length].rstrip()
    header += b" " * (-len(header) % 8)
    if (8 + len(header)) % 64 == 0:
        header += b" " * 8
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])


def rewrite(how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def rewritten(path: Path) -> None:
        path.write_bytes(how(path.read_bytes()))

    return rewritten


def change(name: str, how: Callable[[Any], Any]) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        tensors = {tensor: np.array(values) for tensor, values in map_tensors(path).items()}
        write_tensors(path, {**tensors, name: how(tensors[name])})

    return changed


# What a bundle may be like although every digest is right: nothing but the checks before binding stands between it and
# TensorFlow, which would end the process.
SEALED: dict[str, Callable[[Path], None]] = {
    "misaligned": misalign,
    "cut": rewrite(lambda data: data[:-100]),
    "rubbish": rewrite(lambda data: os.urandom(1000)),
    "fewer-rows": change("embedding", lambda tensor: tensor[:-1]),
    "more-macros": change("kernel", lambda tensor: np.concatenate([tensor, tensor], axis=1)),
    "half": change("bias", lambda tensor: tensor.astype(np.float16)),
    "not-a-number": change("bias", lambda tensor: np.full_like(tensor, np.nan)),
}
NOT_ON_DISK = {
    **dict.fromkeys(DAMAGES, "BundleCorrupt"),
    "untrusted": "ProgramUntrusted",
    "stranger": "BundleCorrupt",
    "missing": "BundleCorrupt",
}


@pytest.fixture(scope="module")
async def harmed(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> AsyncIterator[httpx.AsyncClient]:
    """A server of one sound tenant and of all that are harmed, each named after what happened to it."""
    folder = tmp_path_factory.mktemp("harmed")
    store = LocalStore(folder / "store")
    publish_program(store, bag.folder)
    tenants = ["globex", *NOT_ON_DISK, *SEALED]
    made = publish_tenants(store, tenants, program=bag.digest, spec=bag.spec)
    for tenant, damage in DAMAGES.items():
        weights = folder / "store" / model_key(tenant, made[tenant].version, WEIGHTS)
        weights.write_bytes(damage(weights.read_bytes()))
    for tenant, harm in SEALED.items():
        bundle = folder / tenant
        manifest = make_bundle(bundle, tenant=tenant, program=bag.digest, spec=bag.spec, seed=1)
        harm(bundle / WEIGHTS)
        files = {**manifest.files, WEIGHTS: file_digest(bundle / WEIGHTS)}
        (bundle / MANIFEST).write_bytes(manifest.model_copy(update={"files": files}).to_bytes())
        publish(store, bundle, tenant)
    make_bundle(folder / "untrusted", tenant="untrusted", program="f" * 64, spec=bag.spec)
    publish(store, folder / "untrusted", "untrusted")
    theirs = made["globex"]
    for name in (*theirs.files, MANIFEST):
        store.put(
            model_key("stranger", theirs.version, name), store.get(model_key("globex", theirs.version, name)).data
        )
    serve(store, "stranger", theirs.version, theirs.digest)
    serve(store, "missing", "0" * 16, "0" * 64)
    settings = ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset({bag.digest}),
            "access": "open",
            "request_timeout_ms": 30_000,
        }
    )
    async with ready(settings, store) as client:
        yield client


@pytest.mark.parametrize("tenant", [*NOT_ON_DISK, *SEALED])
async def test_one_that_is_harmed_suffers_alone(harmed: httpx.AsyncClient, tenant: str) -> None:
    await check_refused_alone(harmed, tenant)


async def test_readiness_lists_what_cannot_be_had(harmed: httpx.AsyncClient) -> None:
    answer = await harmed.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["models"] == {"total": 15, "on_disk": 8, "skipped": 0, "failed": NOT_ON_DISK}


class Unplugged(LocalStore):
    """A local store that can go away."""

    away = False

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        self._check_plug()
        return super().get(key, max_bytes=max_bytes)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        self._check_plug()
        return super().get_if_changed(key, etag, max_bytes=max_bytes)

    def open(self, key: str) -> IO[bytes]:
        self._check_plug()
        return super().open(key)

    def _check_plug(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")


async def test_weights_damaged_on_disk_are_fetched_again(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    made = publish_tenants(store, ["globex", *DAMAGES], program=bag.digest, spec=bag.spec)
    unplugged = Unplugged(tmp_path / "store")
    async with ready(make_settings(), unplugged) as client:
        assert (await ask(client, "globex")).status_code == 200
        for tenant, damage in DAMAGES.items():
            weights = tmp_path / "disk" / "models" / tenant / made[tenant].version / WEIGHTS
            intact = weights.read_bytes()
            weights.write_bytes(damage(intact))
            unplugged.away = True
            await check_refused_alone(client, tenant, "store-unavailable")
            unplugged.away = False
            # A load that failed is not tried again at once.
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await ask(client, tenant)).status_code != 200:
                    await asyncio.sleep(0.01)
            assert weights.read_bytes() == intact


async def test_a_budget_too_small_for_any_model(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    tenants = [f"t{index}" for index in range(6)]
    publish_tenants(store, tenants, program=bag.digest, spec=bag.spec)
    async with ready(make_settings(memory_bytes=1), store) as client:
        answers = await asyncio.gather(*(ask(client, tenant) for tenant in tenants * 4))
        assert {answer.status_code for answer in answers} == {200}


async def asked_until(client: httpx.AsyncClient, version: str) -> list[httpx.Response]:
    """Answers, eight requests at a time, until one comes from `version`."""
    answers: list[httpx.Response] = []
    async with asyncio.timeout(60):
        while not answers or answers[-1].json()["model_version"] != version:
            answers += await asyncio.gather(*(ask(client) for _ in range(8)))
    return answers


async def test_a_new_version_is_picked_up_without_a_failed_request(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    old = publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)["acme"].version
    async with ready(make_settings(), store) as client:
        asking = asyncio.create_task(asked_until(client, old))
        await asking
        for seed in (1, 2):
            folder = tmp_path / f"bundle-{seed}"
            new = make_bundle(folder, tenant="acme", program=bag.digest, spec=bag.spec, seed=seed).version
            asking = asyncio.create_task(asked_until(client, new))
            await asyncio.to_thread(publish, store, folder)
            answers = await asking
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.json()["model_version"] for answer in answers} <= {old, new}
            old = new


async def test_a_new_version_that_is_broken_leaves_the_old_one_serving(
    store: LocalStore,
    bag: BuiltProgram,
    make_settings: MakeSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)["acme"].version
    async with ready(make_settings(), store) as client:
        assert (await ask(client)).json()["model_version"] == old
        folder = tmp_path / "bundle"
        new = make_bundle(folder, tenant="acme", program=bag.digest, spec=bag.spec, seed=1)
        publish_bundle(store, folder, tenant="acme")
        weights = tmp_path / "store" / model_key("acme", new.version, WEIGHTS)
        weights.write_bytes(DAMAGES["tampered"](weights.read_bytes()))
        with caplog.at_level(logging.WARNING, "serving.engine.cache"):
            serve(store, "acme", new.version, new.digest)
            async with asyncio.timeout(60):
                while not any(record.name == "serving.engine.cache" for record in caplog.records):
                    assert (await ask(client)).json()["model_version"] == old
        assert (await ask(client)).json()["model_version"] == old


class Gated(LocalStore):
    """A local store that hands out weights when the gate opens."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()

    def open(self, key: str) -> IO[bytes]:
        if key.endswith(WEIGHTS):
            assert self.gate.wait(60)
        return super().open(key)


async def readiness(client: httpx.AsyncClient) -> tuple[int, dict[str, Any]]:
    answer = await client.get("/readyz")
    return answer.status_code, answer.json()


async def test_readiness_is_red_until_every_model_is_on_disk(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    made = publish_tenants(store, ["acme", "globex"], program=bag.digest, spec=bag.spec)
    gated = Gated(tmp_path / "store")
    async with serving(create_app(make_settings(), gated)) as client:
        async with asyncio.timeout(60):
            while (await readiness(client))[1]["models"]["total"] == 0:
                await asyncio.sleep(0.01)
        status, state = await readiness(client)
        assert status == 503
        assert state["models"] == {"total": 2, "on_disk": 0, "skipped": 0, "failed": {}}
        assert (await client.get("/healthz")).status_code == 200
        gated.gate.set()
        await until_ready(client)
        assert (await readiness(client))[1]["models"] == {"total": 2, "on_disk": 2, "skipped": 0, "failed": {}}
    for tenant, manifest in made.items():
        assert (tmp_path / "disk" / "models" / tenant / manifest.version / WEIGHTS).exists()


async def test_a_server_that_starts_without_its_store_waits_for_it(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    unplugged = Unplugged(tmp_path / "store")
    unplugged.away = True
    async with serving(create_app(make_settings(), unplugged)) as client:
        status, state = await readiness(client)
        assert (status, state["fleet"]["generation"]) == (503, None)
        refused = await ask(client)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:macrofleet:problem:not-ready")
        unplugged.away = False
        await until_ready(client)
        assert (await ask(client)).status_code == 200
        unplugged.away = True  # and goes on without it
        assert (await ask(client)).status_code == 200


async def test_a_store_that_fails_while_preloading_is_tried_again(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    made = publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)["acme"]
    weights = tmp_path / "store" / model_key("acme", made.version, WEIGHTS)
    weights.rename(tmp_path / "elsewhere")
    async with serving(create_app(make_settings(), store)) as client:
        async with asyncio.timeout(60):
            while not (await readiness(client))[1]["models"]["failed"]:
                await asyncio.sleep(0.01)
        assert (await readiness(client))[0] == 503
        (tmp_path / "elsewhere").rename(weights)
        await until_ready(client)


class Flaky(Gated):
    """A local store that fails for the models of some tenants, and counts how often it was asked for each."""

    def __init__(self, root: Path, failing: set[str]) -> None:
        super().__init__(root)
        self.gate.set()
        self.failing = failing
        self.asked: Counter[str] = Counter()

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        if key.endswith(MANIFEST):
            tenant = key.split("/")[1]
            self.asked[tenant] += 1
            if tenant in self.failing:
                raise StoreUnavailable("the store is away")
        return super().get(key, max_bytes=max_bytes)


async def until_asked(store: Flaky, tenant: str, more: int) -> None:
    wanted = store.asked[tenant] + more
    await eventually(lambda: store.asked[tenant] >= wanted)


async def test_readiness_waits_for_every_model_that_may_be_had_yet(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    made = publish_tenants(store, ["a", "b", "c", "d"], program=bag.digest, spec=bag.spec)
    damaged = tmp_path / "store" / model_key("d", made["d"].version, WEIGHTS)
    damaged.write_bytes(DAMAGES["tampered"](damaged.read_bytes()))
    flaky = Flaky(tmp_path / "store", {"b", "c"})
    async with serving(create_app(make_settings(), flaky)) as client:
        await until_asked(flaky, "b", 3)
        status, state = await readiness(client)
        assert (status, state["ready"]) == (503, False)
        failed = {"b": "StoreUnavailable", "c": "StoreUnavailable", "d": "BundleCorrupt"}
        assert state["models"] == {"total": 4, "on_disk": 1, "skipped": 0, "failed": failed}
        flaky.failing = {"c"}
        await until_asked(flaky, "c", 3)
        assert (await readiness(client))[0] == 503
        flaky.failing = set()
        await until_ready(client)
        assert (await readiness(client))[1]["models"] == {
            "total": 4,
            "on_disk": 3,
            "skipped": 0,
            "failed": {"d": "BundleCorrupt"},
        }
        # What was there, and what never will be, was asked for by the first attempt only.
        assert (flaky.asked["a"], flaky.asked["d"]) == (1, 1)


async def test_what_a_new_fleet_lacks_is_tried_again_without_turning_readiness_red(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    publish_tenants(store, ["a"], program=bag.digest, spec=bag.spec)
    flaky = Flaky(tmp_path / "store", {"b"})
    async with ready(make_settings(), flaky) as client:
        publish_tenants(store, ["b"], program=bag.digest, spec=bag.spec)
        await until_asked(flaky, "b", 3)
        status, state = await readiness(client)
        assert status == 200
        assert state["models"] == {"total": 2, "on_disk": 1, "skipped": 0, "failed": {"b": "StoreUnavailable"}}
        flaky.failing = set()
        async with asyncio.timeout(60):
            while (await readiness(client))[1]["models"] != {"total": 2, "on_disk": 2, "skipped": 0, "failed": {}}:
                await asyncio.sleep(0.01)


async def test_a_fleet_that_grows_while_it_is_preloaded_is_not_ready_before_the_newcomer(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    publish_tenants(store, ["a"], program=bag.digest, spec=bag.spec)
    flaky = Flaky(tmp_path / "store", {"b"})
    flaky.gate.clear()
    async with serving(create_app(make_settings(), flaky)) as client:
        await eventually(lambda: flaky.asked["a"] > 0)
        publish_tenants(store, ["b"], program=bag.digest, spec=bag.spec)
        async with asyncio.timeout(60):
            while (await readiness(client))[1]["fleet"]["generation"] != 2:
                await asyncio.sleep(0.01)
        flaky.gate.set()
        await until_asked(flaky, "b", 2)
        assert (await readiness(client))[0] == 503
        flaky.failing = set()
        await until_ready(client)
        assert (await readiness(client))[1]["models"]["on_disk"] == 2


async def test_without_preloading_models_come_on_demand(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    trusted = frozenset({bag.digest, "e" * 64})  # one that the store does not have holds up nothing
    async with ready(make_settings(preload="none", trusted_programs=trusted), store) as client:
        assert not (tmp_path / "disk" / "models").exists()
        assert (await ask(client)).status_code == 200


async def test_a_deadline_covers_the_load_which_goes_on_for_others(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    gated = Gated(tmp_path / "store")
    async with ready(make_settings(preload="none"), gated) as client:
        url, hurried = "/v1/tenants/acme/suggestions", {"X-Request-Timeout-Ms": "20"}
        patient = asyncio.create_task(ask(client))
        late = await client.post(url, json=ticket(), headers=hurried)
        assert (late.status_code, late.json()["type"]) == (504, "urn:macrofleet:problem:deadline-exceeded")
        gated.gate.set()
        assert (await patient).status_code == 200
