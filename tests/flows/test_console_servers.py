"""The console's questions put to a real server: what it counts, holds, suggests and refuses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleets import publish_tenants
from flows.console.servers import Servers
from registry.errors import InvalidInput
from registry.model.program import SPEC, ProgramSpec, publish_program
from registry.store.local import LocalStore
from tests.flows.console_world import running
from tests.serving.access_world import key_for, publish

PATIENCE_SECONDS = 60
OPERATOR, TENANT = key_for(None, "operator"), key_for("acme", "suggest")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, bag_folder: Path) -> Iterator[str]:
    """A server's operator address; it serves `acme` and `globex`."""
    from registry.errors import ProgramCorrupt
    from registry.model.program import program_digest
    from serving.app import create_apps
    from serving.settings import ServingSettings

    folder = tmp_path_factory.mktemp("server")
    store = LocalStore(folder / "store")
    publish_program(store, bag_folder)
    digest = program_digest(bag_folder)
    spec = ProgramSpec.parse((bag_folder / SPEC).read_bytes(), what=SPEC, error=ProgramCorrupt)
    publish_tenants(store, ["acme", "globex"], program=digest, spec=spec)
    publish(store, [OPERATOR, TENANT])
    settings = ServingSettings(
        disk_folder=folder / "disk", trusted_programs=frozenset({digest}), signing_key="0123456789abcdef"
    )
    apps = create_apps(settings, store)

    async def operator(scope: Any, receive: Any, send: Any) -> None:
        await (apps.public if scope["type"] == "lifespan" else apps.operator)(scope, receive, send)

    with running(operator) as address:
        yield address


@pytest.fixture
def servers(url: str) -> Iterator[Servers]:
    made = Servers([url], clock=itertools.count(0, 20).__next__)
    until = time.monotonic() + PATIENCE_SECONDS
    while not made.figures(OPERATOR.key)["servers"][0]["ready"]:
        assert time.monotonic() < until
    yield made
    made.close()


def test_a_servers_figures_and_models_are_read(servers: Servers, url: str) -> None:
    before = servers.figures(OPERATOR.key)
    assert (before["named"], before["answering"]) == (1, 1)
    told = servers.suggest("acme", subject="Parcel", body="Where is my parcel?", key=OPERATOR.key)
    assert told.server == url
    assert [macro["explanation"] is not None for macro in told.macros] == [True] * 3
    after = servers.figures(OPERATOR.key)
    assert after["requests"] >= 1
    assert after["models_loaded"] == 1
    assert after["p50_ms"] > 0
    assert after["hit_rate"] is not None
    assert after["servers"][0]["generation"] == 1
    assert servers.loaded(OPERATOR.key) == {"acme": 1}
    (acme,) = servers.models("acme", OPERATOR.key)
    assert (acme["state"], acme["url"]) == ("ready", url)
    assert servers.models("globex", OPERATOR.key)[0]["state"] == "absent"
    assert servers.refresh(OPERATOR.key)[0].generation == 1


def test_a_key_that_is_no_operators_gets_a_reason_and_no_figures(servers: Servers) -> None:
    figures = servers.figures(TENANT.key)
    assert figures["answering"] == 0
    assert "403" in figures["servers"][0]["problem"]
    assert "problem" in servers.models("globex", TENANT.key)[0]
    with pytest.raises(InvalidInput, match="no such tenant"):
        servers.suggest("globex", subject="x", body="", key=TENANT.key)
    with pytest.raises(InvalidInput):
        servers.suggest("nobody", subject="x", body="", key=OPERATOR.key)
