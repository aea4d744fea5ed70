"""What earlier releases wrote is served as it was then; what later ones write is refused with a sentence that says so."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from registry.documents import canonical_json, sha256
from registry.errors import MacrofleetError
from registry.fleet.state import FleetReader, update_fleet
from registry.keys.published import AccessReader
from registry.layout import ACCESS_KEYS, FLEET_ROOT, MANIFEST, fleet_shard, fleet_shard_key, model_key
from registry.model.program import program_digest, publish_program
from registry.model.runtime import Program
from registry.models import read_manifest
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.offline import suggest_offline
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import BuiltProgram, eventually, serving, ticket, until_ready

STORED = Path(__file__).parents[1] / "stored"
FORMATS = sorted(path.name for path in STORED.iterdir() if path.is_dir())
KEY = "mf_0123456789_" + "0" * 40
LATER = "a later release wrote it"


@pytest.fixture(params=FORMATS)
def era(request: pytest.FixtureRequest) -> Path:
    """What releases of one format left."""
    return STORED / str(request.param)


@pytest.fixture
def stored(era: Path, tmp_path: Path, bag: BuiltProgram) -> LocalStore:
    """A store as it was written, with the program that its models need."""
    folder = tmp_path / "store"
    shutil.copytree(era, folder)
    for path in list(folder.rglob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    store = LocalStore(folder)
    publish_program(store, bag.folder)
    return store


@pytest.fixture
def expected(era: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((era / "expected.json").read_text())
    return found


def test_its_program_is_still_one_of_ours(stored: LocalStore, bag: BuiltProgram) -> None:
    """Fails with a new program: then servers have to trust the old one, too, and its store belongs beside this one."""
    for tenant, entry in FleetReader(stored).refresh().serving().items():
        assert entry.version
        assert read_manifest(stored, tenant, entry.version, digest=entry.manifest).program == bag.digest


@pytest.mark.anyio
async def test_a_server_answers_as_it_did_then(
    stored: LocalStore, expected: dict[str, Any], make_settings: MakeSettings
) -> None:
    settings = make_settings(access="keys", metrics_tenants="acme")
    async with serving(create_apps(settings, stored).public) as client:
        await until_ready(client)
        for one in expected["acme"]:
            answer = await client.post(
                "/v1/tenants/acme/suggestions",
                json={"ticket": {"id": "1", "subject": one["text"]}},
                headers={"Authorization": f"Bearer {KEY}"},
            )
            assert answer.status_code == 200
            assert answer.json()["model_version"] == one["model_version"]
            assert [(m["id"], m["title"]) for m in answer.json()["macros"]] == [tuple(m[:2]) for m in one["macros"]]
            assert [m["score"] for m in answer.json()["macros"]] == pytest.approx(
                [m[2] for m in one["macros"]], abs=1e-3
            )
        assert (await client.post("/v1/tenants/acme/suggestions", json=ticket())).status_code == 401


def test_both_kinds_of_weights_are_read(
    stored: LocalStore, expected: dict[str, Any], make_settings: MakeSettings
) -> None:
    for tenant, each in expected.items():
        for one in each:
            told = suggest_offline(stored, tenant, one["text"], settings=make_settings())
            assert told["model_version"] == one["model_version"]
            assert [m["id"] for m in told["macros"]] == [m[0] for m in one["macros"]]


# What a later release writes


def later(store: LocalStore, key: str) -> None:
    """As a release writes it that has another format."""
    document = json.loads(store.get(key).data)
    store.put(key, canonical_json({**document, "format": 2, "news": True}))


def test_later_formats_are_refused_with_a_sentence(stored: LocalStore) -> None:
    entry = FleetReader(stored).refresh().entries["acme"]
    assert entry.version
    manifest = model_key("acme", entry.version, MANIFEST)
    reads: dict[str, Any] = {
        manifest: lambda: read_manifest(stored, "acme", entry.version or "", digest=None),
        ACCESS_KEYS: lambda: AccessReader(stored).refresh(),
        fleet_shard_key(fleet_shard("acme"), 1): lambda: FleetReader(stored).refresh(),
        FLEET_ROOT: lambda: FleetReader(stored).refresh(),
    }
    for key, read in reads.items():
        later(stored, key)
        with pytest.raises(MacrofleetError) as caught:
            read()
        assert f"{key} has format 2, and this release of macrofleet reads up to 1" in caught.value.what
        assert LATER in caught.value.remedy.lower()


@pytest.mark.anyio
async def test_a_version_of_a_later_format_leaves_the_old_one_serving(
    stored: LocalStore, make_settings: MakeSettings
) -> None:
    apps = create_apps(make_settings(), stored)
    async with serving(apps.public) as client:
        await until_ready(client)
        first = (await client.post("/v1/tenants/beta/suggestions", json=ticket())).json()
        old = FleetReader(stored).refresh().entries["beta"]
        assert old.version
        document = json.loads(stored.get(model_key("beta", old.version, MANIFEST)).data)
        data = canonical_json({**document, "format": 2})
        digest = sha256(data)
        stored.put(model_key("beta", digest[:16], MANIFEST), data)
        update_fleet(stored, {"beta": lambda entry: entry and entry.with_version(digest[:16], digest)})
        await client.get("/readyz")
        await eventually(
            lambda: 'swaps_total{outcome="failed"} 0' not in apps.data_plane.metrics.exposition()[0].decode()
        )
        again = await client.post("/v1/tenants/beta/suggestions", json=ticket())
        assert (again.status_code, again.json()["model_version"]) == (200, first["model_version"])
        (status,) = [model for model in apps.data_plane.controls.models() if model.tenant == "beta"]
        assert "format 2" in str(status.error)


def test_a_program_of_a_later_format_is_refused(bag: BuiltProgram, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    shutil.copytree(bag.folder, folder)
    spec = json.loads((folder / "program.json").read_bytes())
    (folder / "program.json").write_bytes(canonical_json({**spec, "format": 2}))
    with pytest.raises(MacrofleetError, match="has format 2"):
        Program(folder, trusted=frozenset([program_digest(folder)]))
