"""The console before a real Prefect server: what it reads over REST is what Prefect's own client reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed, Running, Scheduled

from flows.console.prefect_rest import PrefectRest
from flows.deploying import deploy_deployments
from flows.identities import Pools
from flows.prefect_runs import known_runs
from flows.timetable import Timetable
from registry.store.local import LocalStore
from tests.flows.console_world import asking, make_console

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def prefect() -> Iterator[PrefectRest]:
    made = PrefectRest(str(PREFECT_API_URL.value()))
    yield made
    made.close()


def test_runs_are_those_that_prefects_own_client_reads(prefect: PrefectRest, tmp_path: Path) -> None:
    deploy_deployments(Timetable(cron=None), pools=Pools(training="console"), job_variables={}, say=lambda _: None)
    later = datetime.now(UTC) + timedelta(hours=3)
    with get_client(sync_client=True) as client:
        collect = client.read_deployment_by_name("collect_garbage/collect_garbage").id
        verify = client.read_deployment_by_name("verify_fleet/verify_fleet").id
        waits = client.create_flow_run_from_deployment(collect, state=Scheduled(scheduled_time=later))
        goes = client.create_flow_run_from_deployment(verify)
        client.set_flow_run_state(goes.id, Running())
        ends: list[State[Any]] = [Completed(message="deleted 0 versions"), Failed(message="left: 2\nand more")]
        for end in ends:
            ended = client.create_flow_run_from_deployment(collect)
            client.set_flow_run_state(ended.id, Running())
            client.set_flow_run_state(ended.id, end)
    read = prefect.runs(last=20)
    assert read == known_runs(last=20)
    mine = {one.flow_run_id: one for one in read}
    assert (mine[str(waits.id)].flow, mine[str(waits.id)].state) == ("collect_garbage", "scheduled")
    assert (mine[str(goes.id)].flow, mine[str(goes.id)].state) == ("verify_fleet", "running")
    assert (mine[str(ended.id)].state, mine[str(ended.id)].reason) == ("failed", "left: 2")
    console = make_console(tmp_path, LocalStore(tmp_path / "store"), prefect=prefect)
    with asking(console) as browser:
        assert console.sign_in(browser).status_code == 303
        page = browser.get("/runs").text
    assert "verify fleet" in page, "as people write it"
    assert "left: 2" in page
    assert "scheduled" in page
