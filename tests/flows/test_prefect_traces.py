from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Running, Scheduled

from flows.prefect_traces import PrefectPlace
from registry.errors import SchedulerUnavailable

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
FLOWS = ["tell_of", "say_at_the_end"]


@task(task_run_name="train {tenant}")
def train(tenant: str) -> None:
    assert tenant


@flow(name="tell_of")
def tell_of(tenants: list[str] | None = None, *, train_it: str = "", log: str = "") -> None:
    """A run that names tenants here or there."""
    assert tenants != []
    if train_it:
        train(train_it)
    if log:
        get_run_logger().info("run x tenant %s trained in 1.0 s", log)


@flow(name="say_at_the_end")
def say_at_the_end(text: str) -> State[None]:
    """A run whose parameter and last state say something."""
    return Completed(message=text)


@flow(name="of_other_people")
def of_other_people(tenant: str) -> None:
    """A run that is none of ours."""
    assert tenant


def place() -> PrefectPlace:
    return PrefectPlace(FLOWS)


def run_ids() -> set[UUID]:
    with get_client(sync_client=True) as client:
        return {run.id for run in client.read_flow_runs(limit=200)}


def begin(run: Callable[..., Any], *args: Any, **parameters: Any) -> set[UUID]:
    """Run a flow; the id of its run, whose log has been sent."""
    before = run_ids()
    run(*args, **parameters)
    APILogHandler().flush()
    return run_ids() - before


def test_runs_that_name_a_tenant_go_whole_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.prefect_traces._PAGE", 2)
    gone = begin(tell_of, ["globex", "acme"]) | begin(tell_of, train_it="acme") | begin(tell_of, log="acme")
    gone |= begin(say_at_the_end, "changed: acme, globex")
    stay = begin(tell_of, ["acme-2"]) | begin(tell_of, train_it="pacme") | begin(tell_of, log="acme_b")
    stay |= begin(tell_of, log="globex") | begin(of_other_people, "acme")
    assert (len(gone), len(stay)) == (4, 5)
    there = place()
    assert {UUID(found.split()[2]) for found in there.find("acme")} == gone
    assert there.remove("acme") == 4
    assert there.find("acme") == [], "nor a task or a line of a log"
    assert run_ids() & (gone | stay) == stay
    assert there.remove("acme") == 0
    assert len(there.find("globex")) == 1


@pytest.mark.usefixtures("logs_at_once")
def test_a_run_that_goes_on_is_left_and_one_that_has_not_begun_is_not() -> None:
    with get_client(sync_client=True) as client:
        waits = client.create_flow_run(tell_of, parameters={"tenants": ["acme"]}, state=Scheduled())
        runs = client.create_flow_run(tell_of, parameters={"tenants": ["acme"]}, state=Running())
        assert place().remove("acme") == 1
        (left,) = place().find("acme")
        assert left.startswith(f"flow run {runs.id} (")
        assert left.endswith(", running)")
        assert waits.id not in run_ids()
        client.set_flow_run_state(runs.id, Completed(), force=True)
    assert place().remove("acme") == 1
    assert place().find("acme") == []


@pytest.mark.usefixtures("logs_at_once")
def test_the_run_that_deletes_does_not_find_itself() -> None:
    @flow(name="tell_of")
    def deletes(tenant: str) -> list[str]:
        assert tenant
        assert PrefectPlace(FLOWS).find("acme") != []
        return PrefectPlace(FLOWS, own=flow_run.id).find("acme")

    assert deletes("acme") == []
    assert place().remove("acme") == 1


TABLE = """2 trained, 1 failed

| tenant | state | examples | reason |
|---|---|--:|---|
| acme | trained | 100 | better |
| acme-2 | trained | 90 | better |
| tenant | failed | 90 | acme |

tenant acme serves, but MLflow's alias champion was not set
tenant acme-2 serves"""


def test_pages_lose_a_tenants_lines_and_keep_the_others() -> None:
    with get_client(sync_client=True) as client:
        for key in ("tell-of", "pages-of-others"):
            client.create_artifact(ArtifactCreate(key=key, type="markdown", data=TABLE, description="run x"))
        client.create_artifact(ArtifactCreate(key="tell-of-progress", type="progress", data=50.0, description="run x"))

        def pages(key: str) -> list[str]:
            return [str(page.data) for page in client.read_artifacts(limit=200) if page.key == key]

        assert place().find("nobody") == []
        (found,) = place().find("acme")
        assert found.endswith("(tell-of)")
        assert place().remove("acme") == 1
        assert place().find("acme") == []
        lines = TABLE.split("\n")
        assert pages("tell-of") == ["\n".join([*lines[:4], *lines[5:8], lines[9]])]
        assert pages("pages-of-others") == [TABLE]
        assert place().remove("tenant") == 1, "the head of the table is no row of a tenant's"
        assert pages("tell-of") == ["\n".join([*lines[:4], lines[5], lines[7]])]
        assert pages("tell-of-progress") == ["50"]


def test_a_server_that_does_not_answer_is_named() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(SchedulerUnavailable, match="PREFECT_API_URL"),
    ):
        place().find("acme")


def test_the_command_imports_no_prefect_before_it_runs() -> None:
    code = "import flows.tenant_deletion, sys; sys.exit('prefect' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
