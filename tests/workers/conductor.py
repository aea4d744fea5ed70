"""Conducts runs of `retrain_fleet` on the hub: `python -m tests.workers.conductor`.

Reads a word a line, and answers each with a line of JSON: `fill` makes tenants with tickets, `pool` a work pool with the
deployment of `tests.workers.hosted_shard`, `run` trains the fleet in two shards, `report` says what is there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType

from flows import fan_choice
from flows.retrain_fleet import retrain_fleet
from flows.shard_fan import ShardRunner
from registry.fleet.state import read_fleet
from registry.layout import models_prefix
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.models import Tracking
from registry.verify.differences import Kind
from registry.verify.reconcile import verify_fleet
from tests.flows.test_retrain_fleet import fill as import_tickets
from tests.workers.hosted_shard import retrain_shard, work_in_ray

POOL = "hosts"
# The first three are in shard 0 of 2.
TENANTS = ("tenant-0", "tenant-1", "tenant-3", "tenant-2", "tenant-4")


def fill() -> None:
    """Import tickets of five tenants."""
    store = open_store(StoreSettings())
    for tenant in TENANTS:
        import_tickets(store, tenant)


def pool() -> None:
    """What workers take runs from."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    RunnerDeployment.from_flow(
        retrain_shard, name="retrain_shard", entrypoint_type=EntrypointType.MODULE_PATH, work_pool_name=POOL
    ).apply()


def run() -> dict[str, Any]:
    """Train the fleet, by workers of the pool or nodes of Ray, as the environment says."""
    return retrain_fleet(shards=2).as_dict()


def report() -> dict[str, Any]:
    """What is in the store, in MLflow, and in Prefect's list of shards."""
    settings = StoreSettings()
    store = open_store(settings)
    uri = os.environ["MACROFLEET_TRACKING_URI"]
    mlflow = MlflowClient(uri, registry_uri=uri)
    with get_client(sync_client=True) as client:
        shards = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain_shard"])))
    tracking = Tracking(tracking_uri=uri, store=settings, artifact_location=os.environ["MACROFLEET_ARTIFACT_LOCATION"])
    verified = verify_fleet(store, tracking)
    return {
        "serving": {tenant: entry.version for tenant, entry in read_fleet(store).entries.items()},
        "published": {tenant: list(store.names(models_prefix(tenant))) for tenant in TENANTS},
        "registered": {
            tenant: [
                found.tags["macrofleet.manifest"][:16]
                for found in mlflow.search_model_versions(f"name='macrofleet.{tenant}'")
            ]
            for tenant in TENANTS
        },
        "shards": sorted(str(one.state.name) for one in shards if one.state),
        # Nothing is fitted, so that there is no program.
        "differences": [str(one) for one in verified.findings if one.difference.kind != Kind.PROGRAM_MISSING],
    }


def on_ray(address: str) -> ShardRunner:
    """Shards as tasks of Ray, with the trainer of `tests.workers.hosted_shard`."""
    from flows.ray_shards import RayShards

    return RayShards(address, work=work_in_ray)


WORDS: dict[str, Callable[[], object]] = {"fill": fill, "pool": pool, "run": run, "report": report}


def main() -> None:
    """Do what is asked for until standard input ends."""
    answer = os.dup(1)
    os.dup2(2, 1)
    vars(fan_choice)["_ray"] = on_ray
    for word in sys.stdin:
        os.write(answer, json.dumps(WORDS[word.strip()]()).encode() + b"\n")


if __name__ == "__main__":
    main()
