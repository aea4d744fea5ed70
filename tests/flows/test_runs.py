from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.runs import (
    RunPlan,
    RunRecord,
    ShardRecord,
    counted,
    forget_tenant,
    keep_plan,
    left_over,
    list_runs,
    prune_runs,
    read_plan,
    read_record,
    read_shards,
    run_name,
    write_record,
)
from registry.errors import InvalidInput
from registry.layout import run_key, run_shard_key, run_tracking_key
from registry.store import ObjectStore
from registry.store.local import LocalStore

NOW = datetime(2026, 11, 28, 2, 30, tzinfo=UTC)
RUN = run_name(NOW, "f0bdc153-127c-447d-8693-d3f0e2d784d7")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path / "store")


def record(run: str = RUN, **fields: Any) -> RunRecord:
    return RunRecord(run=run, flow="retrain_fleet", flow_run_id="f", state="running", started_at=NOW, **fields)


def outcome(tenant: str, state: str = "trained", reason: str = "") -> dict[str, str]:
    return {"tenant": tenant, "state": state, "reason": reason}


def test_a_run_is_named_after_its_time_and_its_flow_run_so_that_starting_it_again_finds_it() -> None:
    assert RUN == "20261128T023000-f0bdc153127c"


def test_a_plan_is_written_once_and_holds(store: ObjectStore) -> None:
    first = RunPlan(tenants=("acme",), shards=1, options={"force": True})
    assert keep_plan(store, RUN, first) == first
    assert keep_plan(store, RUN, RunPlan(tenants=("acme", "globex"), shards=2, options={})) == first
    assert read_plan(store, RUN) == first


def test_a_store_without_the_plan_says_what_to_check(store: ObjectStore) -> None:
    with pytest.raises(InvalidInput, match=r"has no plan of the run .*MACROFLEET_STORE_URL on every machine"):
        read_plan(store, RUN)


def test_an_unknown_run_and_a_name_that_is_none_are_told_apart_from_a_failure(store: ObjectStore) -> None:
    for name in (RUN, "../../etc/passwd", "20261128T023000"):
        with pytest.raises(InvalidInput, match="macrofleet flows status"):
            read_record(store, name)


def test_records_come_back_as_they_were_written(store: ObjectStore) -> None:
    written = record(counts={"trained": 2}, left=(outcome("acme", "failed", "x"),), generation=7)
    write_record(store, written)
    assert read_record(store, RUN) == written


def test_shards_come_back_in_their_order(store: ObjectStore) -> None:
    for shard in (2, 10):
        row = ShardRecord(written_at=NOW, outcomes=(outcome(f"of-{shard}"),))
        store.put(run_shard_key(RUN, shard), row.to_bytes())
    assert [shard.outcomes[0]["tenant"] for shard in read_shards(store, RUN)] == ["of-2", "of-10"]


def test_the_latest_runs_come_first_and_the_oldest_are_pruned(store: ObjectStore) -> None:
    names = [run_name(NOW.replace(minute=minute), f"{minute:012x}") for minute in range(6)]
    for name in names:
        write_record(store, record(name))
        store.put(run_shard_key(name, 0), ShardRecord(written_at=NOW).to_bytes())
    assert list_runs(store, last=2) == [names[5], names[4]]
    assert prune_runs(store, keep=2, now=NOW + timedelta(days=7, minutes=-30)) == 0, "it may go on yet"
    assert prune_runs(store, keep=6) == 0
    assert prune_runs(store, keep=2, now=NOW + timedelta(days=8)) == 4
    assert list_runs(store) == [names[5], names[4]]
    assert len(list(store.list())) == 4, "nothing of the others is left"
    assert prune_runs(store, keep=2, now=NOW + timedelta(days=8)) == 0


def test_what_is_left_is_what_a_rerun_would_change() -> None:
    rows = [outcome("a"), outcome("b", "failed", "why"), outcome("c", "busy"), outcome("d", "not_promoted")]
    assert [row["tenant"] for row in left_over(rows)] == ["b", "c"]
    assert counted(rows) == {"trained": 1, "failed": 1, "busy": 1, "not_promoted": 1}


def test_a_tenant_is_taken_out_of_all_that_runs_left_behind(store: ObjectStore) -> None:
    keep_plan(store, RUN, RunPlan(tenants=("acme", "acme-2"), shards=1, options={}))
    left = (outcome("acme", "failed", "x"), outcome("acme-2", "failed", "y"))
    write_record(store, record(left=left, warnings=("tenant acme serves, but …", "tenant acme-2 serves, but …")))
    shard = ShardRecord(
        written_at=NOW, outcomes=(outcome("acme"), outcome("acme-2")), working=("acme",), left_behind=("acme",)
    )
    store.put(run_shard_key(RUN, 0), shard.to_bytes())
    store.put(run_tracking_key(RUN), b'{"experiment_id": "1", "run_id": "2"}')
    other = run_name(NOW, "000000000000")
    write_record(store, record(other))

    changed = [run_key(RUN, "plan.json"), run_key(RUN, "run.json"), run_shard_key(RUN, 0)]
    assert forget_tenant(store, "acme") == changed
    found = b"".join(store.get(info.key).data for info in store.list())
    assert b'"acme"' not in found
    assert b"tenant acme " not in found
    assert found.count(b"acme-2") == 4
    assert forget_tenant(store, "acme") == []
