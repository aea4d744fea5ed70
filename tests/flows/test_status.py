from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import flow_commands
from flows.outcome import Outcome
from flows.run_report import MAX_ROWS, markdown, sentence
from flows.runs import RunRecord, ShardRecord, run_name, write_record
from flows.status import RunStatus, describe_run, recent_runs, with_prefect
from registry.errors import MacrofleetError
from registry.layout import run_shard_key
from registry.store import ObjectStore
from registry.store.local import LocalStore

NOW = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
BEGAN = NOW - timedelta(minutes=30)
RUNNER = CliRunner()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return LocalStore(tmp_path / "store")


def outcome(tenant: str, state: str = "trained", reason: str = "") -> dict[str, Any]:
    return Outcome(tenant=tenant, state=state, reason=reason, seconds=1.5).as_dict()


def record(number: int = 1, **fields: Any) -> RunRecord:
    run = run_name(BEGAN + timedelta(seconds=number), f"{number:012x}")
    given = {"flow": "retrain_fleet", "state": "running", "started_at": BEGAN, **fields}
    return RunRecord.model_validate({"run": run, "flow_run_id": f"id-{number}", **given})


def shard(store: ObjectStore, found: RunRecord, number: int, *outcomes: dict[str, Any], **fields: Any) -> None:
    row = ShardRecord(outcomes=outcomes, **{"written_at": NOW, **fields})
    store.put(run_shard_key(found.run, number), row.to_bytes())


def test_a_run_that_goes_on_says_how_far_it_is_and_whom_it_works_on(store: ObjectStore) -> None:
    found = record(tenants=5)
    write_record(store, found)
    shard(store, found, 0, outcome("acme"), outcome("tiny", "not_eligible"), working=("globex",))
    shard(store, found, 1, outcome("initech"), working=("umbrella",))
    (status,) = recent_runs(store, last=5, now=NOW)
    assert (status.state, status.done, status.tenants, status.seconds) == ("running", 3, 5, 1800.0)
    assert (status.counts, status.working) == ({"trained": 2, "not_eligible": 1}, ["globex", "umbrella"])


def test_a_run_that_has_not_written_for_a_minute_is_silent(store: ObjectStore) -> None:
    found = record(tenants=2)
    write_record(store, found)
    for ago, state in ((59, "running"), (61, "silent")):
        shard(store, found, 0, written_at=NOW - timedelta(seconds=ago))
        assert recent_runs(store, last=1, now=NOW)[0].state == state


def test_a_run_that_is_over_is_told_from_its_record_alone(store: ObjectStore) -> None:
    found = record(
        state="completed", ended_at=BEGAN + timedelta(seconds=90), counts={"trained": 2}, generation=7, tenants=2
    )
    write_record(store, found)
    (status,) = recent_runs(store, last=5, now=NOW)
    assert (status.state, status.seconds, status.done, status.generation) == ("completed", 90.0, 2, 7)


def test_the_latest_runs_come_first(store: ObjectStore) -> None:
    for number in range(4):
        write_record(store, record(number, flow=f"flow-{number}"))
    assert [status.flow for status in recent_runs(store, last=2)] == ["flow-3", "flow-2"]


def test_a_run_tells_of_its_tenants_in_their_order(store: ObjectStore) -> None:
    found = record(tenants=2)
    write_record(store, found)
    shard(store, found, 0, outcome("globex"))
    shard(store, found, 1, outcome("acme", "failed", "it hangs"))
    status, outcomes = describe_run(store, found.run, now=NOW)
    assert (status.done, [one["tenant"] for one in outcomes]) == (2, ["acme", "globex"])


def known(flow_run_id: str, state: str, **fields: Any) -> RunStatus:
    given = {"run": "", "flow": "retrain_fleet", "started_at": NOW, "counts": {}, **fields}
    return RunStatus(flow_run_id=flow_run_id, state=state, **given)


def test_what_only_prefect_knows_is_added_and_what_it_has_given_up_is_said(store: ObjectStore) -> None:
    for number, state in enumerate(["running", "running", "completed"]):
        write_record(store, record(number, state=state))
    stored = recent_runs(store, last=5, now=BEGAN)
    merged = with_prefect(
        stored,
        [known("id-0", "crashed"), known("id-1", "running"), known("id-2", "crashed"), known("other", "late")],
    )
    states = {status.flow_run_id: status.state for status in merged}
    assert states == {"id-0": "crashed", "id-1": "running", "id-2": "completed", "other": "late"}
    assert [status.run for status in merged if status.flow_run_id == "id-0"] == [record(0).run], "its own record stays"
    assert merged[0].flow_run_id == "other", "the latest first"


def invoke(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(flow_commands.flows, ["status", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_command_prints_runs_for_people_and_for_programs(store: ObjectStore) -> None:
    end = BEGAN + timedelta(seconds=90)
    left = ({"tenant": "acme", "state": "failed", "reason": "it hangs"},)
    write_record(store, record(1, state="completed", ended_at=end, counts={"trained": 2}, tenants=2, generation=7))
    write_record(
        store, record(2, state="completed", ended_at=end, counts={"trained": 4, "failed": 1}, tenants=5, left=left)
    )
    shown = invoke(code=1)
    first, second = shown.splitlines()[1:3]
    assert first.startswith(record(2).run)
    assert "completed" in first
    assert "4 trained, 1 failed" in first
    assert "2 trained" in second
    assert f"{record(2).run}: left: acme (failed): it hangs" in shown
    report = json.loads(invoke("--json", code=1))
    assert [one["counts"] for one in report["runs"]] == [{"trained": 4, "failed": 1}, {"trained": 2}]
    assert report["runs"][0]["left"] == list(left)


def test_nothing_left_is_a_good_end_and_an_older_run_does_not_count(store: ObjectStore) -> None:
    left = ({"tenant": "acme", "state": "failed", "reason": "it hangs"},)
    write_record(store, record(1, state="failed", ended_at=NOW, left=left))
    write_record(store, record(2, state="completed", ended_at=NOW))
    invoke()
    write_record(store, record(3, flow="rollback", state="failed", ended_at=NOW, reason="tenant acme has none"))
    assert "tenant acme has none" in invoke(code=1)


def test_the_command_prints_a_run_tenant_by_tenant(store: ObjectStore) -> None:
    found = record(tenants=2)
    write_record(store, found)
    shard(store, found, 0, outcome("globex"), outcome("acme", "failed", "it hangs"))
    shown = invoke("--run", found.run)
    assert [line.split()[0] for line in shown.splitlines()[2:4]] == ["acme", "globex"]
    assert "it hangs" in shown
    report = json.loads(invoke("--run", found.run, "--json"))
    assert [one["tenant"] for one in report["outcomes"]] == ["acme", "globex"]


def test_a_run_that_there_never_was_is_a_sentence(store: ObjectStore) -> None:
    with pytest.raises(MacrofleetError, match="macrofleet flows status"):
        invoke("--run", "yesterday")


def test_an_empty_store_has_no_runs(store: ObjectStore) -> None:
    assert json.loads(invoke("--json")) == {"runs": [], "warnings": []}


def test_a_run_is_one_sentence_for_a_chat() -> None:
    assert sentence("retrain_fleet", "completed", {"trained": 2, "failed": 1}, 61.2) == (
        "retrain_fleet completed in 61 s: 2 trained, 1 failed"
    )
    assert sentence("rollback", "failed", {}, 0.4) == "rollback failed in 0 s"


@pytest.mark.parametrize(
    ("first", "then"), [("failed", "trained"), ("busy", "unchanged"), ("not_promoted", "unchanged")]
)
def test_what_a_person_is_to_look_at_comes_first(first: str, then: str) -> None:
    rows = [Outcome(tenant="a", state=then), Outcome(tenant="b", state=first)]
    table = markdown(rows).splitlines()
    assert [line.split("|")[1].strip() for line in table if line.startswith("| ")][1:] == ["b", "a"]


def test_a_page_of_a_large_fleet_still_opens() -> None:
    row = Outcome(tenant="a", state="trained")
    text = markdown([replace(row, tenant=f"t{n}") for n in range(MAX_ROWS + 7)])
    assert text.count("\n| t") == MAX_ROWS + 1, "and the head"
    assert "and 7 more" in text
