"""A real Prefect server and real workers on loopback; one module, since they take some twenty seconds to start."""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType

from flows.deploying import deploy_deployments
from flows.identities import Pools
from flows.prefect_runs import known_runs
from flows.prefect_server import PrefectServer
from flows.retrain_fleet import Summary, retrain_fleet
from flows.runs import list_runs
from flows.single_flows import RETRAIN_EVENT, TENANT_RESOURCE
from flows.status import describe_run, recent_runs
from flows.timetable import Timetable
from registry.fleet.state import read_fleet
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from tests.flows.waiting_shard import BEGUN, GO, retrain_shard
from training.examples import Example
from training.tenants import import_examples

ROOT = Path(__file__).parents[2]
# Both are in shard 0 of 2, and the next ones in shard 1.
FIRST, SECOND = ("tenant-0", "tenant-1", "tenant-3"), ("tenant-2", "tenant-4")
PATIENCE_SECONDS = 120.0

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    folder = tmp_path_factory.mktemp("prefect-server")
    with PrefectServer(folder / "server.log", environment={"PREFECT_HOME": str(folder)}) as started:
        yield started


@pytest.fixture
def store(server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store that the flows, here and in workers, find in the environment."""
    environment = {
        "PREFECT_API_URL": server.api_url,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        "MACROFLEET_STORE_URL": str(tmp_path / "store"),
        "MACROFLEET_DISK_FOLDER": str(tmp_path / "disk"),
        "MACROFLEET_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MACROFLEET_SHARD_BEAT_SECONDS": "0.5",
        "MACROFLEET_SHARD_LOST_SECONDS": "15",
        "MACROFLEET_SHARD_POLL_SECONDS": "0.2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield open_store(StoreSettings())


class Workers:
    """Workers of a pool, each taking one run at a time."""

    def __init__(self, pool: str, folder: Path) -> None:
        self._pool = pool
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> int:
        name = f"worker-{len(self._processes)}"
        command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--limit", "1"]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--pool", self._pool, "--name", name],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self._folder,
            )  # fmt: skip
        self._processes.append(process)
        return process.pid

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


@pytest.fixture
def workers(store: ObjectStore, tmp_path: Path) -> Iterator[Workers]:
    """Workers that take runs of `retrain_shard`, with a trainer that waits for the test."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="shards", type="process"))
    deployment = RunnerDeployment.from_flow(
        retrain_shard, name="retrain_shard", entrypoint_type=EntrypointType.MODULE_PATH, work_pool_name="shards"
    )
    deployment.apply()
    started = Workers("shards", tmp_path)
    yield started
    started.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def begun(store: ObjectStore, tenant: str) -> list[int]:
    """The processes that began with a tenant."""
    return [int(store.get(info.key).data) for info in store.list(f"{BEGUN}{tenant}/")]


def let_go(store: ObjectStore, tenants: Sequence[str]) -> None:
    for tenant in tenants:
        store.put(f"{GO}{tenant}", b"")


def test_a_worker_that_is_killed_loses_no_tenant_and_none_is_made_twice(store: ObjectStore, workers: Workers) -> None:
    for tenant in (*FIRST, *SECOND):
        # Whoever nobody knows gets no entry in the fleet.
        import_examples(store, tenant, [Example(ticket_id="1", body="a", macro_id="m")])
    pids = [workers.start(), workers.start()]
    summaries: list[Summary] = []
    # Prefect's settings of this test are in the context.
    run_it = contextvars.copy_context().run
    parent = threading.Thread(target=lambda: summaries.append(run_it(retrain_fleet, [*FIRST, *SECOND], shards=2)))
    parent.start()
    let_go(store, FIRST[:1])
    # Each worker has a shard; one has a tenant behind it.
    wait_for(lambda: bool(begun(store, FIRST[1]) and begun(store, SECOND[0])))
    (run,) = list_runs(store)
    wait_for(lambda: describe_run(store, run)[0].done == 1)
    status = recent_runs(store, last=1)[0]
    assert (status.state, status.tenants, status.done) == ("running", 5, 1)
    assert sorted(status.working) == [FIRST[1], SECOND[0]]
    assert {one.flow: one.state for one in known_runs(last=5)}.get("retrain_shard") is None, "a part of another run"

    # The machine of one of them is gone: the worker, and the process that it had started.
    (lost,) = begun(store, FIRST[1])
    killed = next(pid for pid in pids if pid == parent_of(lost))
    os.killpg(killed, signal.SIGKILL)
    os.killpg(lost, signal.SIGKILL)
    let_go(store, [*FIRST, *SECOND])
    parent.join(PATIENCE_SECONDS)

    (summary,) = summaries
    assert [outcome.tenant for outcome in summary.outcomes] == [*FIRST, *SECOND]
    assert {outcome.state for outcome in summary.outcomes} == {"not_eligible"}
    assert read_fleet(store).entries.keys() == {*FIRST, *SECOND}
    assert {tenant: len(begun(store, tenant)) for tenant in (*FIRST, *SECOND)} == {
        **dict.fromkeys((*FIRST, *SECOND), 1),
        FIRST[1]: 2,
    }, "only what the killed process was at is done again"
    status, outcomes = describe_run(store, run)
    assert (status.state, status.counts, len(outcomes)) == ("completed", {"not_eligible": 5}, 5)


def parent_of(pid: int) -> int:
    """The parent of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def test_served_deployments_run_on_request_and_on_an_event_and_stop_with_their_process(
    store: ObjectStore, tmp_path: Path
) -> None:
    deploy_deployments(Timetable(cron=None), pools=Pools(training="elsewhere"), job_variables={}, say=lambda _: None)
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("elsewhere").type == "process"
        assert client.read_deployment_by_name("retrain_fleet/retrain_fleet").work_pool_name == "elsewhere"

    with (tmp_path / "serve.log").open("ab") as log:
        command = [sys.executable, "-m", "macrofleet", "flows", "serve", "--cron", "0 3 * * *", "--limit", "4"]
        serving = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        with get_client(sync_client=True) as client:

            def fleet() -> DeploymentResponse:
                return client.read_deployment_by_name("retrain_fleet/retrain_fleet")

            wait_for(lambda: bool(fleet().work_pool_name is None and any(one.active for one in fleet().schedules)))
            wait_for(lambda: "scheduled" in {one.state for one in known_runs(last=5)})

            asked = cast(FlowRun, run_deployment("rollback/rollback", parameters={"tenants": ["nobody"]}, timeout=0))
            emit_event(RETRAIN_EVENT, {"prefect.resource.id": f"{TENANT_RESOURCE}.acme", TENANT_RESOURCE: "acme"})

            def ended() -> bool:
                state = client.read_flow_run(asked.id).state
                return state is not None and state.is_final()

            wait_for(ended)
            (record,) = [one for one in recent_runs(store, last=5) if one.flow == "rollback"]
            assert (record.state, record.flow_run_id) == ("failed", str(asked.id))
            assert "not in the fleet" in record.reason

            def triggered() -> list[FlowRun]:
                named = FlowFilter(name=FlowFilterName(any_=["retrain_tenant"]))
                return client.read_flow_runs(flow_filter=named)

            wait_for(lambda: bool(triggered()))
            assert [run.parameters for run in triggered()] == [{"tenant": "acme"}]

            serving.send_signal(signal.SIGTERM)
            assert serving.wait(PATIENCE_SECONDS) == 0
            assert fleet().paused, "nothing is scheduled that nobody would run"
    finally:
        if serving.poll() is None:
            os.killpg(serving.pid, signal.SIGKILL)
            serving.wait()
