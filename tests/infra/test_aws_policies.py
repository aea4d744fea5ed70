"""infra/aws's policies, evaluated for what the code really asks of the store, and for what nobody should ask.

Programs are released, a tenant is trained, served, gives feedback, is changed and deleted, and garbage is collected: over a
real S3 server, whose every request is written down and looked up in the policy of who makes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import anyio
import pytest
from typer.testing import CliRunner

import macrofleet
from flows import need, retraining
from flows.retraining import Retraining
from flows.rollout_settings import RolloutSettings
from flows.run_traces import RunsPlace, forget_in_runs
from flows.runs import RunPlan, keep_plan, list_runs, prune_runs, read_plan, run_name
from flows.settings import FlowSettings
from registry.database import DatabaseSettings
from registry.deletion.deleting import Place, delete_tenant
from registry.deletion.key_place import KeysPlace
from registry.deletion.places import FleetPlace, HiddenPlace, LeasePlace, StorePlace, forget_own
from registry.fleet.control import pin
from registry.garbage.store_garbage import collect_garbage
from registry.leases import Leases
from registry.model.program import program_digest, publish_program
from registry.regions.copying import copy_region
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.tenant_settings import edit_tenant_settings
from registry.tracking.models import Tracking
from serving.feedback.journal import Segment
from serving.feedback.pace import Pace
from serving.feedback.shipping import Shipper
from serving.settings import ServingSettings
from tests.infra.iam import Policy, Request, allowed
from tests.infra.images import INFRA
from tests.infra.recorded import Call, Recording, recording
from tests.infra.store_rights import FEEDBACK, READERS, WHO, WRITERS
from tests.serving.helpers import ready, ticket
from training.examples import Example
from training.fitting import FitSettings
from training.synthetic import DEFAULT_END, make_tenant
from training.tenants import import_examples

POLICIES = INFRA / "aws" / "policies"
PREFIX = "production"
BUCKET = "versioned"
ARN = f"arn:aws:s3:::{BUCKET}"
# Where the copier copies to.
WEST, WEST_PREFIX = "macrofleet", "west"
RELEASE = "arn:aws:iam::111122223333:role/macrofleet-release"
COPIER = "arn:aws:iam::111122223333:role/macrofleet-copier"
VALUES = {
    "bucket": ARN,
    "prefix": PREFIX,
    "key": "arn:aws:kms:eu-central-1:111122223333:key/0",
    "release": RELEASE,
    "copier": RELEASE,
    "repository": "arn:aws:ecr:eu-central-1:111122223333:repository/macrofleet-serving",
    "logs": "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/sagemaker/Endpoints/macrofleet",
}


IN_THE_WEST = {
    **VALUES,
    "bucket": f"arn:aws:s3:::{WEST}",
    "prefix": WEST_PREFIX,
    "copier": COPIER,
    "home_bucket": ARN,
    "home_prefix": PREFIX,
    "home_key": VALUES["key"],
}


def policy(name: str) -> Policy:
    """As it is in the home region; the copier's, which there is none of there, as in the other one."""
    return Policy.rendered(POLICIES / f"{name}.json", **(IN_THE_WEST if name == "copier" else VALUES))


def may(who: str, request: Request, *, tls: bool = True) -> bool:
    """Whether a role may, with the bucket's own policy."""
    context = {
        "aws:SecureTransport": str(tls).lower(),
        "aws:PrincipalArn": f"arn:aws:iam::111122223333:role/macrofleet-{who}",
    }
    asked = replace(request, context={**context, **request.context})
    west = request.resource.startswith(f"arn:aws:s3:::{WEST}")
    buckets = Policy.rendered(POLICIES / "bucket-models.json", **IN_THE_WEST) if west else policy("bucket-models")
    return allowed(asked, identity=policy(who), resource=buckets)


class World:
    """A store, and what happens in it. Each step is one role's."""

    def __init__(self, settings: StoreSettings, folder: Path, program: Path, heard: Recording) -> None:
        self.settings, self.folder, self.program, self.heard = settings, folder, program, heard
        self.database = DatabaseSettings(url=cast("Any", f"sqlite:///{folder / 'macrofleet.db'}"))

    def store(self) -> ObjectStore:
        return open_store(self.settings)

    def release(self) -> None:
        publish_program(self.store(), self.program)
        publish_program(self.store(), self.program)  # it is there

    def train(self) -> None:
        """Tickets come in, and a run trains two tenants and serves them; one of them is deleted meanwhile."""
        store = self.store()
        for tenant in ("acme", "gone"):
            made = make_tenant(tenant, seed=1, tickets=120, macros=8, end=DEFAULT_END)
            rows = [
                Example(
                    ticket_id=t.ticket_id, subject=t.subject, body=t.body, macro_id=t.macro_id, applied_at=t.applied_at
                )
                for t in made.tickets
            ]
            import_examples(store, tenant, rows, titles={macro.id: macro.title for macro in made.macros})
        settings = FlowSettings(disk_folder=self.folder / "training", training_processes=0)
        trainer = Retraining(store, _tracking(), settings, RolloutSettings())
        for number in range(2):
            run = run_name(DEFAULT_END, f"{number}a2b3c4d-0000-0000-0000-000000000000")
            keep_plan(store, run, RunPlan(tenants=("acme", "gone"), shards=1, options={}))
        trainer.look(["acme"], wish=need.NO_WISH)
        outcome = trainer.train("acme")
        assert outcome.version, outcome
        trainer.serve([outcome], force=True)
        assert len(list_runs(store)) == 2
        assert read_plan(store, run).tenants
        assert prune_runs(store, keep=1, now=DEFAULT_END + timedelta(days=365))
        forget_own(store, "gone")
        forget_in_runs(store, "gone")

    def make_keys(self) -> str:
        done = CliRunner().invoke(macrofleet.app, ["keys", "create", "--tenant", "acme"])
        assert done.exit_code == 0, done.output
        (key,) = re.findall(r"mf_\w+", done.stdout)
        return str(key)

    def operate(self) -> None:
        store = self.store()
        edit_tenant_settings(store, ["acme"], {"least_tickets": 50})
        pin(store, ["acme"])

    def serve(self, key: str) -> None:
        """A server starts, suggests, takes feedback and ends."""
        settings = ServingSettings(
            disk_folder=self.folder / "serving",
            trusted_programs=frozenset({program_digest(self.program)}),
            fleet_poll_seconds=0.05,
            access_poll_seconds=0.05,
            holdback_share=0,
            request_timeout_ms=30_000,
        )

        async def ask() -> None:
            async with ready(settings, self.store()) as client:
                client.headers["Authorization"] = f"Bearer {key}"
                answer = await client.post("/v1/tenants/acme/suggestions", json=ticket())
                assert answer.status_code == 200, answer.text
                said = {"suggestion_id": answer.json()["suggestion_id"], "applied": None}
                assert (await client.post("/v1/tenants/acme/feedback", json=said)).status_code == 202

        anyio.run(ask)

    def ship_of_deleted(self) -> None:
        """Feedback that was put before it was known that its tenant is deleted."""
        segment = Segment(path=self.folder, writer="w", number=7, day="2026-11-03", begun=0.0, size=0)
        shipper = Shipper(self.store(), deleted_among=set)
        shipper.ship(segment, "acme", [b"{}"], Pace(lambda: 1.0))
        assert shipper.take_back(segment, ["acme"]) == {"acme"}

    def copy(self) -> None:
        """To another region, twice: the second time there is little to do."""
        west = open_store(self.settings.model_copy(update={"url": f"s3://{WEST}/{WEST_PREFIX}"}))
        for everything in (False, True):
            assert copy_region(self.store(), west, everything=everything).generation > 0

    def delete(self) -> None:
        store = self.store()
        places: list[Place] = [
            FleetPlace(store), KeysPlace(store, self.database), RunsPlace(store), HiddenPlace(store), StorePlace(store),
            LeasePlace(store),
        ]  # fmt: skip
        assert delete_tenant(store, "acme", places, leases=Leases(store, holder="test")).complete
        collect_garbage(store)


def _tracking() -> Tracking:
    """MLflow has no part in this: it has a bucket of its own."""
    made = MagicMock(spec=Tracking)
    made.register.return_value = SimpleNamespace(run_id="0", version="1")
    return cast("Tracking", made)


@pytest.fixture(scope="module")
def calls(
    versioned_bucket: StoreSettings, tmp_path_factory: pytest.TempPathFactory, bag_folder: Path
) -> Iterator[list[Call]]:
    folder = tmp_path_factory.mktemp("world")
    settings = versioned_bucket.model_copy(update={"url": f"s3://{BUCKET}/{PREFIX}"})
    with pytest.MonkeyPatch.context() as patch, recording() as heard:
        for name, value in settings.model_dump().items():
            text = value.get_secret_value() if name == "secret_key" else value
            if text is not None:
                patch.setenv(f"MACROFLEET_STORE_{name.upper()}", str(text))
        patch.setenv("MACROFLEET_DATABASE_URL", f"sqlite:///{folder / 'macrofleet.db'}")
        patch.setattr(need, "FIT", FitSettings(least_steps=20))
        patch.setattr(retraining, "_utc_now", lambda: DEFAULT_END)
        world = World(settings, folder, bag_folder, heard)
        with heard.on_behalf_of("release"):
            world.release()
        with heard.on_behalf_of("training"):
            world.train()
        with heard.on_behalf_of("operations"):
            key = world.make_keys()
            world.operate()
        with heard.on_behalf_of("serving"):
            world.serve(key)
            world.ship_of_deleted()
        with heard.on_behalf_of("copier"):
            world.copy()
        with heard.on_behalf_of("operations"):
            world.delete()
        with heard.on_behalf_of("copier"):
            world.copy()
        yield heard.calls


@pytest.mark.parametrize("who", [*WHO, "copier"])
def test_everybody_may_do_what_they_do(calls: list[Call], who: str) -> None:
    mine = {call for call in calls if call.who == who}
    assert mine
    refused = [(call, request) for call in mine for request in call.requests() if not may(who, request)]
    assert refused == []


def test_what_was_done_is_what_there_is_to_do(calls: list[Call]) -> None:
    """Or the test before would be of less than it says."""
    assert {call.who for call in calls} == {*WHO, "copier"}
    done = {(call.who, call.operation) for call in calls}
    assert done >= {
        ("release", "PutObject"),
        ("training", "GetObject"),
        ("training", "PutObject"),
        ("training", "ListObjectsV2"),
        ("training", "ListObjectVersions"),
        ("training", "DeleteObjects"),
        ("serving", "GetObject"),
        ("serving", "PutObject"),
        ("serving", "ListObjectVersions"),
        ("serving", "ListMultipartUploads"),
        ("serving", "DeleteObjects"),
        ("operations", "PutObject"),
        ("operations", "ListObjectVersions"),
        ("operations", "DeleteObjects"),
    }
    places = {
        (call.who, call.key.removeprefix(f"{PREFIX}/").partition("/")[0])
        for call in calls
        if call.operation == "PutObject"
    }
    assert places >= {
        ("release", "programs"), ("training", "tenants"), ("training", "lake"), ("training", "fleet"), ("training", "runs"),
        ("serving", "lake"), ("operations", "access"), ("operations", "tenants"), ("operations", "fleet"),
        ("operations", "deleted"), ("operations", "garbage"),
    }  # fmt: skip
    # What is not there is read, too.
    assert any(call.who == "serving" and call.key.endswith("/acme/settings.json") for call in calls)


def test_every_request_takes_the_right_that_it_takes(calls: list[Call]) -> None:
    """Each right is needed: without any one of its actions, somebody's request is refused."""
    spare = {}
    for who in (*WHO, "copier"):
        needed = {request.action for call in calls if call.who == who for request in call.requests()}
        spare[who] = {action for action in policy(who).actions() if action.startswith("s3:")} - needed
    # The code begins no upload in parts, and ends those that other tools left. Operations may train by hand, too.
    parts = {"s3:AbortMultipartUpload"}
    assert spare == {
        "serving": parts,
        "training": parts,
        "operations": {*parts, "s3:DeleteObject"},
        "release": set(),
        "copier": parts,
    }


@pytest.mark.parametrize("who", WHO)
def test_who_writes_where(who: str) -> None:
    for action in (
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:AbortMultipartUpload",
        "s3:PutObjectAcl",
    ):
        wrote = {key for key in WRITERS if may(who, Request(action, f"{ARN}/{PREFIX}/{key}"))}
        writers = {key for key, those in WRITERS.items() if who in those}
        assert wrote == writers if action == "s3:PutObject" else wrote <= writers, action


@pytest.mark.parametrize("who", WHO)
def test_who_reads_what(who: str) -> None:
    read = {key for key in READERS if may(who, Request("s3:GetObject", f"{ARN}/{PREFIX}/{key}"))}
    assert read == {key for key, those in READERS.items() if who in those}


@pytest.mark.parametrize("who", [*WHO, "sagemaker", "copier"])
def test_nobody_leaves_the_prefix_or_changes_the_bucket(who: str) -> None:
    for key in ("fleet/root.json", "elsewhere/fleet/root.json", f"{PREFIX}x/fleet/root.json", f"x/{PREFIX}/programs/0"):
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
            assert not may(who, Request(action, f"{ARN}/{key}")), (action, key)
    for action in (
        "s3:PutBucketPolicy",
        "s3:DeleteBucket",
        "s3:PutLifecycleConfiguration",
        "s3:PutBucketVersioning",
        "s3:PutBucketAcl",
    ):
        assert not may(who, Request(action, ARN)), action


def test_servers_write_nothing_but_feedback() -> None:
    statements = [
        each for each in policy("serving").statements if "Put" in str(each["Action"]) or "Delete" in str(each["Action"])
    ]
    assert {each["Resource"] for each in statements} == {f"{ARN}/{PREFIX}/lake/tenants/*/feedback/*"}


@pytest.mark.parametrize("who", WHO)
def test_nothing_goes_in_the_clear(who: str) -> None:
    for key in {**READERS, FEEDBACK: set()}:
        assert not may(who, Request("s3:GetObject", f"{ARN}/{PREFIX}/{key}"), tls=False)
    for name in ("bucket-models", "bucket-mlflow"):
        clear = Request("s3:GetObject", f"{ARN}/x", {"aws:SecureTransport": "false"})
        assert policy(name).says(clear) == "Deny"


def test_programs_are_written_by_a_release_whatever_a_role_says() -> None:
    """A policy that is too wide, an administrator's for one, does not help."""
    everything = Policy(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    )
    for principal, expected in (
        (RELEASE, True),
        ("arn:aws:iam::111122223333:role/administrator", False),
        (COPIER, False),
    ):
        request = Request(
            "s3:PutObject",
            f"{ARN}/{PREFIX}/programs/0/program.json",
            {"aws:PrincipalArn": principal, "aws:SecureTransport": "true"},
        )
        assert allowed(request, identity=everything, resource=policy("bucket-models")) is expected


def test_the_copier_reads_at_home_and_writes_to_the_copy() -> None:
    west = f"arn:aws:s3:::{WEST}/{WEST_PREFIX}"
    for key in (
        "programs/0/program.json",
        "fleet/root.json",
        "access/keys.json",
        "tenants/acme/macros.json",
        "copy/mark.json",
    ):
        assert may("copier", Request("s3:PutObject", f"{west}/{key}")), key
        assert may("copier", Request("s3:GetObject", f"{ARN}/{PREFIX}/{key}")), key
        assert not may("copier", Request("s3:PutObject", f"{ARN}/{PREFIX}/{key}")), key
    assert may("copier", Request("s3:PutObject", f"{ARN}/{PREFIX}/runs/0/run.json")), (
        "the flow copy_region has a record"
    )
    for key in ("lake/tenants/acme/examples.parquet", FEEDBACK, "runs/0/run.json"):
        assert not may("copier", Request("s3:GetObject", f"{ARN}/{PREFIX}/{key}")), "nobody serves from it"


def test_mlflow_has_its_artifacts_and_sagemaker_its_archives() -> None:
    artifacts = Request("s3:PutObject", f"{ARN}/artifacts/1/model/MLmodel", {"aws:SecureTransport": "true"})
    assert allowed(artifacts, identity=policy("mlflow"), resource=policy("bucket-mlflow"))
    archive = f"{ARN}/{PREFIX}/sagemaker/acme/9e3c77e6c55fe4d6-b3caa028.tar.gz"
    assert may("sagemaker", Request("s3:GetObject", archive))
    assert not may("sagemaker", Request("s3:GetObject", f"{ARN}/{PREFIX}/tenants/acme/macros.json"))
    assert may("operations", Request("s3:PutObject", archive))


@pytest.mark.parametrize("name", sorted(path.stem for path in POLICIES.glob("*.json")))
def test_no_policy_is_wider_than_it_says(name: str) -> None:
    document = json.loads((POLICIES / f"{name}.json").read_text())
    for statement in document["Statement"]:
        if statement["Effect"] == "Allow":
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not any("*" in action for action in actions), statement
            # Both have no resource to name.
            assert statement["Resource"] != "*" or set(actions) <= {
                "ecr:GetAuthorizationToken",
                "cloudwatch:PutMetricData",
            }
        sids = [each["Sid"] for each in document["Statement"]]
        assert len(set(sids)) == len(sids)
