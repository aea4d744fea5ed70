"""A tenant is deleted while a run is at work on it: wherever the run stands, nothing of the tenant comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from flows import retraining
from flows.judging import Judge
from flows.outcome import Outcome
from flows.prefect_traces import PrefectPlace
from flows.retrain_fleet import Summary, retrain_fleet
from flows.run_traces import RunsPlace
from registry.deletion.deleting import Deletion, Place, delete_tenant
from registry.deletion.places import DiskPlace, FleetPlace, HiddenPlace, LeasePlace, StorePlace
from registry.deletion.tombstones import is_buried
from registry.errors import TenantDeleted
from registry.fleet.state import read_fleet
from registry.leases import Leases
from registry.settings import StoreSettings
from registry.store import ObjectStore
from registry.tracking.deletion import TrackingPlace
from registry.tracking.models import Tracking
from tests.flows import test_leases, test_retrain_fleet
from tests.flows.test_leases import Stopped, stopped
from training import tenants
from training.examples import Example
from training.lake import Lake
from training.tenants import import_examples

pytestmark = [*test_retrain_fleet.pytestmark, pytest.mark.usefixtures("logs_at_once")]
store = test_retrain_fleet.store
fill = test_retrain_fleet.fill
in_training = test_leases.in_training
before_the_fleet = test_leases.before_the_fleet
TENANT = "acme"


def all_places(store: ObjectStore, tmp_path: Path) -> list[Place]:
    tracking = Tracking(
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", store=StoreSettings(url=str(tmp_path / "store"))
    )
    return [
        FleetPlace(store),
        RunsPlace(store),
        HiddenPlace(store),
        TrackingPlace(tracking),
        DiskPlace([tmp_path / "disk" / "champions"], store),
        StorePlace(store),
        LeasePlace(store),
    ]


def delete(store: ObjectStore, tmp_path: Path) -> Deletion:
    leases = Leases(store, holder="the deletion", sleep=lambda _: None)
    return delete_tenant(store, TENANT, all_places(store, tmp_path), leases=leases)


def left(store: ObjectStore, tmp_path: Path) -> list[str]:
    return [trace for place in all_places(store, tmp_path) for trace in place.find(TENANT)]


def run_fleet() -> Summary:
    return retrain_fleet()


@pytest.fixture(params=["publish_bundle", "record_provenance", "register", "_record", "judge"])
def at_a_step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    """Where the first training of the tenant stops: just before one of the things that it writes, or after all of them."""
    place = Stopped()
    owner: Any = {
        "register": Tracking,
        "_record": retraining.Retraining,
        "judge": Judge,
    }.get(request.param, retraining)
    original: Callable[..., Any] = getattr(owner, request.param)
    first = iter([True])

    def late(*given: Any, **named: Any) -> Any:
        about = f"{given} {named}"
        if TENANT in about and next(first, False):
            place.stop()
        return original(*given, **named)

    monkeypatch.setattr(owner, request.param, late)
    return place


def check(outcome: Outcome, store: ObjectStore, tmp_path: Path) -> None:
    assert (outcome.tenant, outcome.state) == (TENANT, "fenced")
    assert re.search(r"(the tenant|tenant acme) was deleted meanwhile", outcome.reason)
    assert left(store, tmp_path) == []
    assert set(read_fleet(store).serving()) == {"globex"}
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [found.experiment_id for found in client.search_experiments(view_type=ViewType.ALL)]
    runs = client.search_runs(experiments, run_view_type=ViewType.ALL)
    # One of them is the fleet's run, which is of no tenant.
    assert {run.data.tags.get("macrofleet.tenant") for run in runs} - {None} == {"globex"}
    assert PrefectPlace(["retrain_fleet"]).remove(TENANT) > 0, "the log and the task of the run"
    assert PrefectPlace(["retrain_fleet"]).find(TENANT) == []


def test_a_training_that_was_stopped_at_any_step_leaves_nothing(
    store: ObjectStore, at_a_step: Stopped, tmp_path: Path
) -> None:
    fill(store, TENANT)
    fill(store, "globex")
    with stopped(run_fleet, at_a_step) as run:
        done = delete(store, tmp_path)
        assert {name for name, found in done.left.items() if found} <= {"runs"}, "which the run still writes"
    outcomes = {outcome.tenant: outcome for outcome in run.result().outcomes}
    assert outcomes["globex"].state == "trained"
    check(outcomes[TENANT], store, tmp_path)


def test_a_training_that_was_stopped_while_it_fitted_leaves_nothing(
    store: ObjectStore, in_training: Stopped, tmp_path: Path
) -> None:
    fill(store, TENANT)
    fill(store, "globex")
    with stopped(run_fleet, in_training) as run:
        delete(store, tmp_path)
    check({outcome.tenant: outcome for outcome in run.result().outcomes}[TENANT], store, tmp_path)


def test_a_run_that_has_trained_the_tenant_does_not_serve_it(
    store: ObjectStore, before_the_fleet: Stopped, tmp_path: Path
) -> None:
    fill(store, TENANT)
    fill(store, "globex")
    with stopped(run_fleet, before_the_fleet) as run:
        delete(store, tmp_path)
    check({outcome.tenant: outcome for outcome in run.result().outcomes}[TENANT], store, tmp_path)


@pytest.mark.parametrize("step", ["_planned", "write_catalogue"])
def test_an_import_that_was_stopped_leaves_nothing_and_the_next_one_brings_the_tenant_back(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    fill(store, TENANT)
    rows = [Example(ticket_id=f"new {number}", body="a", macro_id="another") for number in range(3)]
    place = Stopped()
    original = getattr(tenants, step)
    first = iter([True])

    def late(*given: Any, **named: Any) -> Any:
        made = original(*given, **named) if step == "_planned" else None
        if next(first, False):
            place.stop()
        return made or original(*given, **named)

    monkeypatch.setattr(tenants, step, late)

    def bring() -> Any:
        return import_examples(store, TENANT, rows, add_macros=True)

    with stopped(bring, place) as importing:
        delete(store, tmp_path)
        assert Lake(store).tenants() == []
    if step == "_planned":
        # It had not begun to write: it is an import after the deletion, of which nothing of before comes back.
        assert importing.result().total == 3
    else:
        with pytest.raises(TenantDeleted, match="Import its tickets again"):
            importing.result()
        assert left(store, tmp_path) == []
        assert is_buried(store, TENANT)
        assert bring().total == 3
    assert not is_buried(store, TENANT)
    assert {example.ticket_id for example in Lake(store).read(TENANT)} == {row.ticket_id for row in rows}
