"""Every flow runs with the rights of its identity and would not with less, where those of workers are the least.

Each is run against SeaweedFS with the identities of infra/compose.yaml, which refuses what they may not do, and every request
that it makes is written down and looked up in the policy of infra/aws that its identity has there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import Flow
from prefect.client.schemas.objects import State

import flows.retrain_fleet
import flows.retrain_shard
from flows import retraining, single_flows
from flows.deployments import FLOWS
from flows.identities import Identity, identity_of
from flows.runs import RunPlan, keep_plan, run_name
from registry.database import DatabaseSettings, opened_database
from registry.keys.book import KeyBook
from registry.keys.publishing import publish_keys
from registry.model.program import publish_program
from registry.settings import StoreSettings, TrackingSettings
from registry.store import open_store
from registry.tracking.models import Tracking
from tests.flows.killed_run import NoJudge, NoTrainers, WithoutTensorFlow
from tests.infra.composed_store import MAKE_SECRETS, Server, composed_store
from tests.infra.iam import Policy, Request, allowed
from tests.infra.images import INFRA
from tests.infra.recorded import Call, Recording, recording

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
HOME, PREFIX, COPY = MAKE_SECRETS.BUCKET, MAKE_SECRETS.PREFIX, "west"
ACCOUNT = "arn:aws:iam::111122223333:role/macrofleet-"
VALUES = {
    "prefix": PREFIX, "home_prefix": PREFIX, "home_bucket": f"arn:aws:s3:::{HOME}", "key": "key", "home_key": "key",
    "release": f"{ACCOUNT}release",
}  # fmt: skip


def may(who: Identity, request: Request) -> bool:
    """Whether a role of infra/aws may, by its policy and the bucket's: the copier's is in the region that it copies to."""
    copied = request.resource.startswith(f"arn:aws:s3:::{COPY}")

    def policy(name: str, bucket: str) -> Policy:
        copier = f"{ACCOUNT}copier" if bucket == COPY else VALUES["release"]
        file = INFRA / "aws" / "policies" / f"{name}.json"
        return Policy.rendered(file, **VALUES, bucket=f"arn:aws:s3:::{bucket}", copier=copier)

    context = {"aws:SecureTransport": "true", "aws:PrincipalArn": f"{ACCOUNT}{who}", **request.context}
    return allowed(
        Request(request.action, request.resource, context),
        identity=policy(who, COPY if who is Identity.COPIER else HOME),
        resource=policy("bucket-models", COPY if copied else HOME),
    )


class Worker:
    """Works off flows' runs, as one identity or another."""

    def __init__(self, server: Server, folder: Path, patch: pytest.MonkeyPatch, heard: Recording) -> None:
        self._server, self._folder, self._patch, self._heard = server, folder, patch, heard
        self.states: dict[str, State[Any]] = {}
        # By flow: how it ended, and what was in the store before and after.
        self.refused: dict[str, tuple[State[Any], dict[str, str], dict[str, str]]] = {}

    def be(self, who: str) -> None:
        """Have the keys of one of compose's identities; the copier has operations' there, and keys of the copy's store."""
        access, secret = self._server.keys("operations" if who == Identity.COPIER else who)
        admin, admins = self._server.keys("admin")
        for name, value in {
            "STORE_URL": f"s3://{HOME}/{PREFIX}",
            "STORE_ENDPOINT_URL": self._server.url,
            "STORE_REGION": "us-east-1",
            "STORE_ACCESS_KEY": access,
            "STORE_SECRET_KEY": secret,
            "COPY_STORE_URL": f"s3://{COPY}/{PREFIX}",
            "COPY_STORE_ENDPOINT_URL": self._server.url,
            "COPY_STORE_REGION": "us-east-1",
            "COPY_STORE_ACCESS_KEY": admin,
            "COPY_STORE_SECRET_KEY": admins,
        }.items():
            self._patch.setenv(f"MACROFLEET_{name}", value)

    def kept(self) -> dict[str, str]:
        """Every object with its entity tag, but for records of runs."""
        found = self._server.client("admin").list_objects_v2(Bucket=HOME, Prefix=PREFIX)
        assert not found["IsTruncated"]
        return {
            each["Key"]: each["ETag"] for each in found["Contents"] if not each["Key"].startswith(f"{PREFIX}/runs/")
        }

    @contextmanager
    def as_(self, who: str, doing: str) -> Iterator[None]:
        self.be(who)
        with self._heard.on_behalf_of(doing):
            yield

    def run(self, flow: Flow[..., Any], *given: Any, **parameters: Any) -> None:
        """Run a flow as its identity; it must come to a good end."""
        with self.as_(identity_of(flow.name), flow.name):
            state = cast("State[Any]", flow(*given, **parameters, return_state=True))
        assert state.is_completed(), f"{flow.name}: {state.message}"
        self.states[flow.name] = state


@pytest.fixture(scope="module")
def worker(
    tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path, bag_folder: Path, prefect_server: None
) -> Iterator[tuple[Worker, list[Call]]]:
    """Every flow, once or twice."""
    folder = tmp_path_factory.mktemp("worker")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    with (
        composed_store(tmp_path_factory.mktemp("secrets"), tmp_path_factory.mktemp("seaweedfs")) as server,
        pytest.MonkeyPatch.context() as patch,
        recording() as heard,
    ):
        server.make_buckets()
        server.client("admin").create_bucket(Bucket=COPY)
        patch.setenv("MACROFLEET_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MACROFLEET_DATABASE_URL", f"sqlite:///{folder / 'macrofleet.db'}")
        patch.setenv("MACROFLEET_DISK_FOLDER", str(folder / "disk"))
        patch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
        patch.setattr(retraining, "Trainers", NoTrainers)
        patch.setattr(retraining, "Judge", NoJudge)
        patch.setattr(flows.retrain_fleet, "Retraining", WithoutTensorFlow)
        patch.setattr(flows.retrain_shard, "Retraining", WithoutTensorFlow)
        made = Worker(server, folder, patch, heard)
        day(made, folder, bag_folder)
        yield made, heard.calls


def tickets(folder: Path, *, more: int = 0) -> str:
    """A file of tickets that a worker can read."""
    now = datetime.now(UTC).isoformat()
    rows = [f"{n},a question number {n},m{n % 3},{now}" for n in range(120 + more)]
    (folder / "tickets.csv").write_text("\n".join(["ticket_id,text,label,applied_at", *rows]))
    return str(folder / "tickets.csv")


def day(worker: Worker, folder: Path, program: Path) -> None:
    """What workers do for a fleet until one of its tenants is deleted."""
    for tenant in ("acme", "globex"):
        worker.run(single_flows.import_tickets, tenant, tickets(folder), add_macros=True)
    with worker.as_("operations", "keys"):
        store = open_store(StoreSettings())
        with opened_database(DatabaseSettings()) as database:
            keys = KeyBook(database)
            keys.create("acme", ["suggest"])
            publish_keys(keys, store)
    worker.run(flows.retrain_fleet.retrain_fleet)
    worker.run(single_flows.import_tickets, "acme", tickets(folder, more=40), add_macros=True)
    worker.run(single_flows.retrain_tenant, "acme")
    worker.run(single_flows.rollback, ["acme"])
    # A run that is cut into shards, of which a worker takes one.
    run = run_name(datetime.now(UTC), "0a2b3c4d-0000-0000-0000-000000000000")
    with worker.as_("training", "retrain_fleet"):
        keep_plan(open_store(StoreSettings()), run, RunPlan(tenants=("globex",), shards=1, options={"force": True}))
    worker.run(flows.retrain_shard.retrain_shard, run, 0, 1)
    with worker.as_("training", "somebody"):
        tracking = Tracking.from_settings(TrackingSettings(), StoreSettings())
        tracking.drop_alias("acme", "champion")
    with worker.as_("release", "somebody"):  # nothing was fitted, so that there is no program yet
        publish_program(open_store(StoreSettings()), program)
    worker.run(single_flows.verify_fleet, repair=True, deep=True)
    worker.run(single_flows.tidy_lake)
    worker.run(single_flows.copy_region, collect=True)
    worker.run(single_flows.collect_garbage)
    refused(worker)
    worker.run(single_flows.delete_tenant, "acme")
    worker.run(single_flows.copy_region)


def refused(worker: Worker) -> None:
    """What needs more than training has, tried with no more than that."""
    for flow, given in ((single_flows.collect_garbage, ()), (single_flows.delete_tenant, ("acme",))):
        before = worker.kept()
        with worker.as_("training", "somebody"):
            state: State[Any] = flow(*given, return_state=True)
        worker.refused[flow.name] = (state, before, worker.kept())


def test_every_flow_was_run_as_its_identity(worker: tuple[Worker, list[Call]]) -> None:
    assert worker[0].states.keys() == {flow.name for flow in FLOWS}
    assert {call.who for call in worker[1]} >= {flow.name for flow in FLOWS}


@pytest.mark.parametrize("flow", [flow.name for flow in FLOWS])
def test_amazon_would_let_it(worker: tuple[Worker, list[Call]], flow: str) -> None:
    mine = {call for call in worker[1] if call.who == flow}
    assert mine
    not_allowed = {
        (call.operation, request.action, call.bucket, call.key)
        for call in mine
        for request in call.requests()
        if not may(identity_of(flow), request)
    }
    assert not_allowed == set()


@pytest.mark.parametrize("flow", [flow.name for flow in FLOWS if identity_of(flow.name) is not Identity.TRAINING])
def test_who_trains_may_not_do_it(worker: tuple[Worker, list[Call]], flow: str) -> None:
    """Or it would need no identity of its own."""
    requests = [request for call in worker[1] if call.who == flow for request in call.requests()]
    assert [request for request in requests if not may(Identity.TRAINING, request)]


@pytest.mark.parametrize("flow", [flow.name for flow in FLOWS if identity_of(flow.name) is Identity.OPERATIONS])
def test_the_store_refuses_it_to_who_trains_and_nothing_is_changed(
    worker: tuple[Worker, list[Call]], flow: str
) -> None:
    state, before, after = worker[0].refused[flow]
    assert state.is_failed()
    assert "refuses these credentials" in str(state.message)
    assert after == before
