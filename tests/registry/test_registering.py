"""One bundle is one version in MLflow: after a crash at every step, and with callers side by side."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from registry.errors import InvalidInput
from registry.settings import StoreSettings
from registry.store import open_store
from registry.tracking.artifact import ArtifactTemplate
from registry.tracking.listing import list_experiments, list_runs
from registry.tracking.models import Tracking
from registry.tracking.records import TrackedRun
from registry.verify.reconcile import verify_fleet
from tests.registry.conftest import Publish, ask
from tests.registry.test_differences import manifest_of

LATER = timedelta(days=1)
STEPS = ("create_run", "log_batch", "create_registered_model", "create_model_version", "set_terminated")


def versions(tracking: Tracking, tenant: str = "acme") -> list[Any]:
    return list(ask(tracking, "search_model_versions", f"name = 'macrofleet.{tenant}'"))


def statuses(tracking: Tracking) -> list[str]:
    experiments = list_experiments(tracking.connection, "macrofleet")
    return sorted(run.status for run in list_runs(tracking.connection, experiments, before=datetime.now(UTC) + LATER))


class Crash(BaseException):
    """The process is gone; nothing handles it."""


def crash(monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
    """Crash at a step of MLflow's client, before it is done or after."""
    from mlflow import MlflowClient

    owner, name = (ArtifactTemplate, "write") if step == "artifact" else (MlflowClient, step)
    real = getattr(owner, name)

    def crashing(*arguments: Any, **options: Any) -> None:
        if after:
            real(*arguments, **options)
        raise Crash

    monkeypatch.setattr(owner, name, crashing)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [*STEPS, "artifact"])
def test_a_crash_at_any_step_leaves_one_version_and_nothing_that_is_not_mended(
    tracking: Tracking, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    store = open_store(StoreSettings(url=str(tmp_path / "store")))
    manifest = publish(store, "acme")
    tracking.prepare()
    with monkeypatch.context() as patched:
        crash(patched, step, after=after)
        with pytest.raises(Crash):
            tracking.register(manifest, parameters={}, tags={})
    rerun = Tracking(tracking_uri=tracking.connection.uri, store=StoreSettings(url=str(tmp_path / "store")))
    made = rerun.register(manifest, parameters={}, tags={})
    assert rerun.register(manifest, parameters={}, tags={}) == made
    (version,) = versions(rerun)
    assert (str(version.version), version.run_id) == ("1", made.run_id)

    verify_fleet(store, rerun, repair=True, clock=lambda: datetime.now(UTC) + LATER)
    assert set(statuses(rerun)) <= {"FINISHED", "KILLED"}
    assert statuses(rerun).count("FINISHED") == 1, "the run of the version, and no other"
    assert ask(rerun, "get_run", made.run_id).info.status == "FINISHED"


def test_callers_that_take_turns_make_one_version(tracking: Tracking) -> None:
    lease = threading.Lock()
    manifest = manifest_of()

    def register(_: int) -> str:
        own = Tracking(tracking_uri=tracking.connection.uri, store=StoreSettings())
        with lease:
            return own.register(manifest, parameters={}, tags={}).version

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(register, range(8))) == {"1"}
    assert len(versions(tracking)) == 1


NIGHT, EVE = "20261128T020000-aaaaaaaaaaaa", "20261127T020000-aaaaaaaaaaaa"


def another(tracking: Tracking, tmp_path: Path, **options: Any) -> Tracking:
    """One of another process, of the same MLflow and store."""
    return Tracking(tracking_uri=tracking.connection.uri, store=StoreSettings(url=str(tmp_path / "store")), **options)


def test_a_registration_is_nested_in_its_fleet_run(tracking: Tracking, tmp_path: Path) -> None:
    first = tracking.register(manifest_of("acme"), parameters={}, tags={}, fleet_run=NIGHT)
    other = another(tracking, tmp_path)
    second = other.register(manifest_of("globex"), parameters={}, tags={}, fleet_run=NIGHT)
    parent = tracking.runs.get(NIGHT)
    for made in (first, second):
        run = ask(tracking, "get_run", made.run_id)
        assert run.data.tags["mlflow.parentRunId"] == parent.run_id
        assert run.info.experiment_id == parent.experiment_id
    assert ask(tracking, "get_experiment", parent.experiment_id).name == f"macrofleet/{NIGHT}"

    tracking.runs.finish(NIGHT, figures={"tenants_trained": 2})
    closed = ask(tracking, "get_run", parent.run_id)
    assert (closed.info.status, closed.data.metrics) == ("FINISHED", {"tenants_trained": 2})
    # A run that is tried again goes on in the same one.
    again = another(tracking, tmp_path)
    assert again.runs.get(NIGHT) == parent
    assert ask(tracking, "get_run", parent.run_id).info.status == "RUNNING"
    again.runs.finish(NIGHT, figures={"tenants_trained": 3}, failed=True)
    assert ask(tracking, "get_run", parent.run_id).info.status == "FAILED"


def parents(tracking: Tracking) -> list[TrackedRun]:
    experiments = list_experiments(tracking.connection, "macrofleet")
    found = list_runs(tracking.connection, experiments, before=datetime.now(UTC) + LATER)
    return [run for run in found if run.fleet_run]


@pytest.mark.parametrize("options", [{}, {"experiment_per_run": False}], ids=["own experiment", "shared experiment"])
def test_processes_that_are_first_at_the_same_moment_open_one_fleet_run(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The shards of a run, each on a machine of its own: all have looked before one of them has made it."""
    from mlflow import MlflowClient

    others = [another(tracking, tmp_path, **options) for _ in range(4)]
    for one in others:
        one.prepare()
    together = threading.Barrier(len(others))
    create = MlflowClient.create_run

    def at_the_same_moment(*arguments: Any, **given: Any) -> Any:
        together.wait(60)
        return create(*arguments, **given)

    monkeypatch.setattr(MlflowClient, "create_run", at_the_same_moment)
    with ThreadPoolExecutor(len(others)) as pool:
        opened = set(pool.map(lambda one: one.runs.get(NIGHT).run_id, others))
    assert [run.run_id for run in parents(tracking)] == list(opened)
    others[0].runs.finish(NIGHT, figures={"tenants_trained": 4})
    assert [run.status for run in parents(tracking)] == ["FINISHED"]


def test_a_fleet_run_whose_process_died_before_it_was_written_down_is_the_next_ones(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        crash(patched, "create_run", after=True)
        with pytest.raises(Crash):
            tracking.runs.get(NIGHT)
    (left,) = parents(tracking)
    assert another(tracking, tmp_path).runs.get(NIGHT).run_id == left.run_id
    assert len(parents(tracking)) == 1


def test_fleet_runs_may_share_an_experiment(tracking: Tracking, tmp_path: Path) -> None:
    shared = another(tracking, tmp_path, experiment_per_run=False)
    nights = [shared.runs.get(name) for name in (EVE, NIGHT)]
    assert {one.experiment_id for one in nights} == {shared.runs.experiment_id()}
    assert nights[0].run_id != nights[1].run_id
    shared.runs.finish(EVE, figures={})
    assert [ask(shared, "get_run", one.run_id).info.status for one in nights] == ["FINISHED", "RUNNING"]


def test_a_night_without_a_model_leaves_nothing_and_mlflow_is_not_asked(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(tracking.connection, "ask", None)
        tracking.runs.finish(NIGHT, figures={"tenants_unchanged": 500})
        with pytest.raises(InvalidInput, match="is not the name of a run"):
            tracking.runs.get("a'b")
    assert list_experiments(tracking.connection, "macrofleet") == {}
