from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.prefect_traces import PrefectPlace, tenant_artifact_key
from registry.deletion import Place
from registry.errors import InvalidTenant, SchedulerUnavailable

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def write_artifacts(tenant: str, count: int = 1) -> None:
    with get_client(sync_client=True) as client:
        for _ in range(count):
            client.create_artifact(ArtifactCreate(key=tenant_artifact_key(tenant), type="markdown", data="a line"))


def test_all_artifacts_of_a_tenant_go_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.prefect_traces._PAGE", 2)
    place: Place = PrefectPlace()
    write_artifacts("acme", 5)
    write_artifacts("acme-2")
    write_artifacts("a_b")
    assert len(place.find("acme")) == 5
    assert place.remove("acme") == 5
    assert place.find("acme") == []
    assert place.remove("acme") == 0
    assert [len(place.find(tenant)) for tenant in ("acme-2", "a_b", "a-b")] == [1, 1, 0]
    assert place.remove("a_b") == place.remove("acme-2") == 1


def test_a_server_that_does_not_answer_is_named() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(SchedulerUnavailable, match="PREFECT_API_URL"),
    ):
        PrefectPlace().find("acme")


def test_no_two_tenants_have_one_key_and_prefect_takes_every_key() -> None:
    names = ["".join(letters) for letters in itertools.product("a0_-", repeat=3) if letters[0] not in "_-"]
    keys = {tenant_artifact_key(name) for name in names}
    assert len(keys) == len(names)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for key in keys)
    assert tenant_artifact_key("acme") == "tenant-acme"
    with pytest.raises(InvalidTenant):
        tenant_artifact_key("A")


def test_the_command_imports_no_prefect_before_it_runs() -> None:
    code = "import flows.tenant_deletion, sys; sys.exit('prefect' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
