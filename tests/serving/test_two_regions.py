"""Serving from two real S3 servers, a home store and its copy, of which one is stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.fleets import publish_tenants
from registry.feedback.records import read_feedback
from registry.fleet.at_rest import read_root
from registry.fleet.state import FleetEntry, update_fleet
from registry.model.program import publish_program
from registry.regions.copying import copy_region
from registry.seaweedfs import LocalS3
from registry.settings import CopyStoreSettings
from registry.store import open_store
from serving.app import create_apps
from serving.stores import closing_store, open_serving_store
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import BuiltProgram, eventually, serving, ticket, until_ready

# What a first answer reads of the store: manifest, weights, labels, catalogue and settings.
BETAS_OBJECTS = 5
MOST_UNDER_WAY = 4


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[LocalS3, LocalS3]]:
    made = LocalS3(tmp_path / "east"), LocalS3(tmp_path / "west")
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(LocalS3.start, made))
        yield made
    finally:
        for server in made:
            server.stop()


def copied(server: LocalS3) -> CopyStoreSettings:
    return CopyStoreSettings.model_validate(server.settings.model_dump())


@pytest.mark.anyio
async def test_a_server_goes_on_from_the_copy_when_its_region_is_lost(
    servers: tuple[LocalS3, LocalS3], bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    east, west = servers
    home, there = open_store(east.settings), open_store(west.settings)
    publish_program(home, bag.folder)
    publish_tenants(home, ["acme", "beta"], program=bag.digest, spec=bag.spec)
    done = copy_region(home, there)
    assert (done.models, done.generation) == (2, read_root(home).generation)
    settings = make_settings(preload="none", fleet_poll_seconds=0.2)
    store = open_serving_store(settings, east.settings, copied(west))
    with closing_store(store):
        apps = create_apps(settings, store)
        async with serving(apps.public) as client:
            await until_ready(client)

            async def ask(tenant: str) -> None:
                answer = await client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket())
                assert answer.status_code == 200, answer.text

            def told(name: str) -> dict[str, float]:
                page = apps.data_plane.metrics.exposition()[0].decode()
                return {
                    k: float(v) for k, v in re.findall(rf"^macrofleet_store_{name}{{(.*)}} (.*)$", page, re.MULTILINE)
                }

            await ask("acme")
            assert told("serves") == {'store="home"': 1, 'store="copy"': 0}
            east.stop()
            # Whoever comes next, a request or the poll of the fleet, finds out, and nobody after it.
            await eventually(lambda: told("serves") == {'store="home"': 0, 'store="copy"': 1})
            before = told("reads_total")
            await ask("beta")  # its model was never on this disk
            await ask("acme")
            reads = told("reads_total")
            from_copy = 'outcome="answered",store="copy"'
            assert reads[from_copy] - before[from_copy] >= BETAS_OBJECTS
            # Or each of these reads had waited for the dead store first; those that were under way then may still fail.
            assert reads['outcome="failed",store="home"'] <= MOST_UNDER_WAY
            fed_back = {"suggestion_id": "s1", "applied": "m1", "shown": ["m1"]}
            answer = await client.post("/v1/tenants/acme/feedback", json=fed_back)
            assert answer.status_code == 202
            # A change that the copy has heard of is followed.
            update_fleet(there, {"gamma": lambda _: FleetEntry(reason="too few tickets")})
            await eventually(lambda: apps.data_plane.knows("gamma"))
    # It waits on this disk for the home store.
    assert list(read_feedback(there, "acme")) == []
    assert list((settings.disk_folder / "feedback").rglob("*"))
