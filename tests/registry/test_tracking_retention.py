"""Which runs of MLflow go, and that nothing of them is left where the database is at hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from macrofleet import app
from registry.model.bundle import Manifest
from registry.tracking import retention as tracking_retention
from registry.tracking.listing import list_experiments, list_runs
from registry.tracking.models import Registration, Tracking
from registry.tracking.records import TrackedRun
from registry.tracking.retention import prune_runs, to_prune
from tests.registry.conftest import ask
from tests.registry.test_differences import manifest_of

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
LONG_AFTER = datetime.now(UTC) + timedelta(days=40)
MONTH = timedelta(days=30)


def run(run_id: str, day: int = 0, **update: Any) -> TrackedRun:
    given = {"tenant": "acme", "fleet_run": "", "parent": "", "status": "FINISHED", "experiment_id": "1", **update}
    return TrackedRun(run_id=run_id, manifest="", started_at=BEGAN + timedelta(days=day), **given)


def night(name: str, day: int = 0, **update: Any) -> TrackedRun:
    return run(name, day, tenant="", fleet_run=name, **update)


def going(runs: list[TrackedRun], *registered: str, keep: int = 0, day: int = 100) -> set[str]:
    return {one.run_id for one in to_prune(runs, registered, keep=keep, before=BEGAN + timedelta(days=day))}


def test_a_run_goes_with_its_version_once_it_is_old_enough() -> None:
    runs = [run("a", 0), run("b", 5), run("c", 9)]
    assert going(runs, "b") == {"a", "c"}
    assert going(runs, day=5) == {"a"}
    assert going([run("a", status="RUNNING"), run("b", status="KILLED")]) == {"b"}


def test_the_latest_of_each_tenant_stay() -> None:
    runs = [*(run(f"a{day}", day) for day in range(4)), *(run(f"g{day}", day, tenant="globex") for day in range(2))]
    assert going(runs, keep=2) == {"a0", "a1"}
    assert going(runs, "a0", keep=1) == {"a1", "a2", "g0"}


def test_a_fleet_run_goes_with_the_last_of_its_models() -> None:
    runs = [night("n1"), run("a", parent="n1"), run("b", parent="n1"), night("n2", 1), night("n3", status="RUNNING")]
    assert going(runs, "b") == {"a", "n2"}
    assert going(runs) == {"a", "b", "n1", "n2"}
    assert going(runs, day=1) == {"a", "b", "n1"}, "the second is not old enough"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acme", "globex"]),
            st.integers(0, 20),
            st.sampled_from(["RUNNING", "FINISHED"]),
            st.sampled_from(["", "n0", "n1"]),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.integers(0, 3),
    st.integers(0, 21),
)
def test_nothing_goes_that_is_needed(rows: list[tuple[str, int, str, str, bool]], keep: int, day: int) -> None:
    runs = [
        run(f"r{place}", begun, tenant=tenant, status=status, parent=parent)
        for place, (tenant, begun, status, parent, _) in enumerate(rows)
    ]
    registered = {f"r{place}" for place, row in enumerate(rows) if row[4]}
    gone = going([*runs, night("n0"), night("n1", 10)], *registered, keep=keep, day=day)
    assert not gone & registered
    stayed = [one for one in runs if one.run_id not in gone]
    assert not {one.parent for one in stayed} & gone
    for one in runs:
        if one.run_id in gone:
            assert one.started_at < BEGAN + timedelta(days=day)
            assert one.status != "RUNNING"
    for tenant in ("acme", "globex"):
        theirs = [one for one in runs if one.tenant == tenant]
        assert sum(one.tenant == tenant for one in stayed) >= min(keep, len(theirs))


def register(tracking: Tracking, manifest: Manifest, night: str | None = None) -> Registration:
    return tracking.register(manifest, parameters={"examples": 3}, tags={}, fleet_run=night)


def runs_of(tracking: Tracking) -> set[str]:
    experiments = list_experiments(tracking.connection, "macrofleet")
    return {one.run_id for one in list_runs(tracking.connection, experiments, before=LONG_AFTER)}


def test_nothing_is_left_of_what_goes_and_everything_of_what_stays(tracking: Tracking, tmp_path: Path) -> None:
    first = register(tracking, manifest_of(seed=0), "20261101T020000-aaaaaaaaaaaa")
    second = register(tracking, manifest_of(seed=1), "20261102T020000-bbbbbbbbbbbb")
    alone = register(tracking, manifest_of(seed=2))
    other = register(tracking, manifest_of("globex", seed=3), "20261102T020000-bbbbbbbbbbbb")
    for night in ("20261101T020000-aaaaaaaaaaaa", "20261102T020000-bbbbbbbbbbbb"):
        tracking.runs.finish(night, figures={"tenants_trained": 1})
    for gone in (first, second, alone):
        tracking.drop_version("acme", int(gone.version))

    options: dict[str, Any] = {"keep": 0, "older_than": MONTH, "now": LONG_AFTER}
    assert prune_runs(tracking, **{**options, "now": datetime.now(UTC)}).runs == ()
    planned = prune_runs(tracking, **options, write=False)
    assert {first.run_id, second.run_id, alone.run_id} < set(planned.runs)
    assert len(planned.runs) == 4, "the first night's own among them"
    assert planned.experiments == ("macrofleet/20261101T020000-aaaaaaaaaaaa",)
    before = runs_of(tracking)
    assert set(planned.runs) < before

    pruned = prune_runs(tracking, **options)
    assert (set(pruned.runs), pruned.experiments) == (set(planned.runs), planned.experiments)
    assert (pruned.removed, pruned.waiting) == (4, 0)
    assert runs_of(tracking) == before - set(pruned.runs)
    assert set(list_experiments(tracking.connection, "macrofleet").values()) == {
        "macrofleet",
        "macrofleet/20261102T020000-bbbbbbbbbbbb",
    }
    database = (tmp_path / "mlflow.db").read_bytes() + (tmp_path / "mlflow.db-wal").read_bytes()
    assert other.run_id.encode() in database
    for run_id in pruned.runs:
        with pytest.raises(Exception, match="cannot get_run"):
            ask(tracking, "get_run", run_id)
    held = {path.parts[-3] for path in tmp_path.joinpath("mlflow-artifacts").rglob("MLmodel")}
    assert len(held) == 1
    assert prune_runs(tracking, **options).runs == ()


def test_a_rerun_finishes_what_was_only_marked(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    made = register(tracking, manifest_of(seed=0))
    tracking.drop_version("acme", 1)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {"keep": 0, "older_than": MONTH, "now": LONG_AFTER}
    with monkeypatch.context() as patched:
        patched.setattr(tracking_retention, "_remove_run", crash)
        with pytest.raises(KeyboardInterrupt):
            prune_runs(tracking, **options)
    assert made.run_id not in runs_of(tracking)
    again = prune_runs(tracking, **options)
    assert (again.runs, again.removed) == ((), 1)


def test_behind_a_server_what_is_deleted_waits_for_its_operator(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tracking, manifest_of(seed=0))
    tracking.drop_version("acme", 1)
    monkeypatch.setattr(tracking_retention, "_backend", lambda client: object())
    pruned = prune_runs(tracking, keep=0, older_than=MONTH, now=LONG_AFTER)
    assert (len(pruned.runs), pruned.removed, pruned.waiting) == (1, 0, 1)


def test_the_command_says_what_would_go_and_deletes_it(tracking: Tracking) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["garbage", "runs", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    made = register(tracking, manifest_of(seed=0))
    tracking.drop_version("acme", 1)
    long_ago = int((datetime.now(UTC) - timedelta(days=31)).timestamp() * 1000)

    def age(client: Any) -> None:
        import sqlalchemy

        with client._tracking_client.store.engine.begin() as database:
            database.execute(sqlalchemy.text(f"UPDATE runs SET start_time = {long_ago}"))

    tracking.connection.ask("", age)
    assert "deleted 0 runs" in run(), "the latest of each tenant stay"
    assert "deleted 0 runs" in run("--keep", "0", "--days", "32")
    assert "would delete 1 runs of MLflow's, and 0 experiments" in run("--keep", "0", "--dry-run")
    assert made.run_id in runs_of(tracking)
    report = json.loads(run("--keep", "0", "--json"))
    assert (report["runs"], report["removed"], report["dry_run"]) == ([made.run_id], 1, False)
    assert made.run_id not in runs_of(tracking)
