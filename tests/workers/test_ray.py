"""A Ray cluster of two nodes on loopback. Not collected where Ray is not installed: it is an extra of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from flows.ray_shards import RayShards
from flows.runs import RunPlan, keep_plan, read_shards, run_name
from flows.shard_fan import Patience, ShardFan
from registry.errors import InvalidInput
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from tests.flows.waiting_shard import BEGUN, GO, work_without_prefect

ROOT = Path(__file__).parents[2]
RUN = run_name(datetime(2026, 11, 28, 2, 30, tzinfo=UTC), "f0bdc153127c")
# In shard 0 of 2, and in shard 1.
FIRST, SECOND = ("tenant-0", "tenant-1", "tenant-3"), ("tenant-2", "tenant-4")
PATIENCE_SECONDS = 120.0

# Ray's own: sockets and files that it leaves to the garbage collector, and its announcements.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    environment = {
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MACROFLEET_STORE_URL": str(tmp_path / "store"),
        "MACROFLEET_SHARD_BEAT_SECONDS": "0.5",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return open_store(StoreSettings())


@pytest.fixture
def cluster(store: ObjectStore) -> Iterator[Any]:
    """A head without cores; a test adds the nodes that do the work."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield started
    ray.shutdown()
    started.shutdown()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def begun(store: ObjectStore, tenant: str) -> list[int]:
    """The processes that began with a tenant."""
    return [int(store.get(info.key).data) for info in store.list(f"{BEGUN}{tenant}/")]


def is_alive(pid: int) -> bool:
    """Whether a process still does something: one that nobody waits for stays in the list when it is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_node_that_is_killed_loses_no_tenant_and_none_is_made_twice(store: ObjectStore, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    runner = RayShards(cluster.address, work=work_without_prefect)
    plan = keep_plan(store, RUN, RunPlan(tenants=(*FIRST, *SECOND), shards=2, options={}))
    told: list[str] = []
    fan = ShardFan(
        store,
        RUN,
        runner,
        patience=Patience(poll_seconds=0.2, lost_seconds=60),
        told=lambda outcome: told.append(str(outcome["tenant"])),
        say=lambda _: None,
    )
    outcomes: list[Any] = []
    parent = threading.Thread(target=lambda: outcomes.extend(fan.train(plan.cut())))
    parent.start()
    store.put(f"{GO}{FIRST[0]}", b"")
    wait_for(lambda: bool(begun(store, FIRST[1]) and begun(store, SECOND[0])))
    wait_for(lambda: sum(len(shard.outcomes) for shard in read_shards(store, RUN)) == 1)

    at_work = [*begun(store, FIRST[1]), *begun(store, SECOND[0])]
    cluster.remove_node(nodes[0], allow_graceful=False)
    # A task outlives its node for a moment, and would finish its shard.
    wait_for(lambda: sum(map(is_alive, at_work)) == 1)
    for tenant in (*FIRST, *SECOND):
        store.put(f"{GO}{tenant}", b"")
    parent.join(PATIENCE_SECONDS)

    assert sorted(row["tenant"] for row in outcomes) == sorted((*FIRST, *SECOND))
    assert {row["state"] for row in outcomes} == {"not_eligible"}
    assert sorted(told) == sorted((*FIRST, *SECOND)), "each once"
    times = {tenant: len(begun(store, tenant)) for tenant in (*FIRST, *SECOND)}
    assert sorted(times.values()) == [1, 1, 1, 1, 2], "only what the killed node was at is done again"
    assert {tenant for tenant, number in times.items() if number == 2} <= {FIRST[1], SECOND[0]}


def test_no_cluster_is_a_sentence(store: ObjectStore) -> None:
    with pytest.raises(InvalidInput, match=r"no Ray cluster is reached at '127\.0\.0\.1:1'"):
        RayShards("127.0.0.1:1")
