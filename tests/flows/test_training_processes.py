from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.progress import listener
from flows.retrain_fleet import retrain_fleet
from registry.fleet.state import read_fleet
from registry.model.program import publish_program
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from training.examples import Example
from training.synthetic import make_tenant
from training.tenants import import_examples

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bag_folder: Path, mlflow_uri: str) -> ObjectStore:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.setenv("MACROFLEET_MONTHS", "120")
    monkeypatch.setenv("MACROFLEET_TRACKING_URI", mlflow_uri)
    store = open_store(StoreSettings())
    publish_program(store, bag_folder)
    return store


def fill(store: ObjectStore, tenant: str) -> None:
    made = make_tenant(tenant, seed=1, tickets=120, macros=8)
    rows = [
        Example(ticket_id=t.ticket_id, subject=t.subject, body=t.body, macro_id=t.macro_id, applied_at=t.applied_at)
        for t in made.tickets
    ]
    import_examples(store, tenant, rows, titles={macro.id: macro.title for macro in made.macros})


def test_a_fleet_is_trained_in_two_processes_and_comes_out_as_in_one(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in ("acme", "globex", "initech"):
        fill(store, tenant)
    import_examples(store, "tiny", [Example(ticket_id="1", body="a", macro_id="m")])
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "2")
    told: list[tuple[str, int, int, float]] = []
    token = listener.set(lambda *event: told.append(event))
    try:
        summary = retrain_fleet()
    finally:
        listener.reset(token)
    states = {outcome.tenant: outcome.state for outcome in summary.outcomes}
    assert states == {"acme": "trained", "globex": "trained", "initech": "trained", "tiny": "not_eligible"}
    assert list(states) == sorted(states), "in the order of the lake, whoever came first"
    assert set(read_fleet(store).serving()) == {"acme", "globex", "initech"}
    assert told[-1][1:] == (4, 4, 1.0)
    assert [event[1] for event in told] == sorted(event[1] for event in told)
    assert [event[3] for event in told] == sorted(event[3] for event in told)

    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
    again = retrain_fleet(["acme"], retrain=True)
    assert again.outcomes[0].version == summary.outcomes[0].version, "the same data make the same version"


def test_what_takes_longer_than_it_may_is_named_also_where_it_is_the_only_one_left(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "acme")
    import_examples(store, "tiny", [Example(ticket_id="1", body="a", macro_id="m")])
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "2")
    monkeypatch.setenv("MACROFLEET_TRAINING_SECONDS", "0.01")
    acme, tiny = retrain_fleet().outcomes
    assert (acme.state, tiny.state) == ("failed", "not_eligible")
    assert "took longer than 0.01 s. MACROFLEET_TRAINING_SECONDS is the limit." in acme.reason


def test_by_default_there_is_a_process_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.settings import FlowSettings

    monkeypatch.delenv("MACROFLEET_TRAINING_PROCESSES")
    assert FlowSettings().training_processes == len(os.sched_getaffinity(0))
