"""Two runs that want one tenant at once: one of them trains it, and nothing older is served over anything newer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

import macrofleet
from flows import judging, retraining
from flows.outcome import Outcome
from flows.retrain_fleet import Summary, retrain_fleet
from flows.retraining import Retraining
from flows.run_report import markdown
from registry.fleet.state import read_fleet
from registry.layout import lease_key
from registry.leases import Lease, Leases, LeaseState
from registry.store import ObjectStore
from tests.flows import test_retrain_fleet
from tests.registry.lease_world import Clock
from training.gate import Decision, decide
from training.record import read_record
from training.trainer import Trainer

pytestmark = test_retrain_fleet.pytestmark
store = test_retrain_fleet.store
fill = test_retrain_fleet.fill


T = TypeVar("T")


class Stopped:
    """A run in a thread of its own that stops on the way."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.go_on = threading.Event()
        self.taken: Lease | None = None

    def stop(self) -> None:
        self.there.set()
        self.go_on.wait()


@contextmanager
def stopped(run: Callable[[], T], place: Stopped) -> Iterator[Future[T]]:
    """A run that has come to its place, and goes on when the context ends, at the latest."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        future.add_done_callback(lambda _: place.there.set())
        try:
            place.there.wait()
            assert not future.done(), "it ended without coming by"
            yield future
        finally:
            place.go_on.set()


@pytest.fixture
def in_training(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    """Where the first training of acme stops: under its lease, before anything is fitted."""
    place = Stopped()
    train = Trainer.train
    first = iter([True])

    def train_slowly(trainer: Trainer, tenant: str, *given: Any, **named: Any) -> Any:
        if tenant == "acme" and next(first, False):
            place.stop()
        return train(trainer, tenant, *given, **named)

    monkeypatch.setattr(Trainer, "train", train_slowly)
    take = Leases.take

    def remember(leases: Leases, tenant: str) -> Lease:
        place.taken = take(leases, tenant)
        return place.taken

    monkeypatch.setattr(Leases, "take", remember)
    return place


@pytest.fixture
def before_the_fleet(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    """Where the first run stops that has trained all its tenants, and writes the fleet next."""
    place = Stopped()
    serve = Retraining.serve
    first = iter([True])

    def serve_late(run: Retraining, outcomes: list[Outcome], *, force: bool) -> Any:
        if next(first, False):
            place.stop()
        return serve(run, outcomes, force=force)

    monkeypatch.setattr(Retraining, "serve", serve_late)
    return place


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of all leases in this process; it passes only when somebody waits for one."""
    clock = Clock()
    monkeypatch.setattr(retraining, "Leases", partial(Leases, clock=clock, sleep=clock.sleep))
    return clock


def champion(tmp_path: Path, tenant: str) -> str:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return str(client.get_model_version_by_alias(f"macrofleet.{tenant}", "champion").tags["macrofleet.manifest"])


def test_a_tenant_that_another_run_trains_is_left_to_it(store: ObjectStore, in_training: Stopped, clock: Clock) -> None:
    fill(store, "acme")
    fill(store, "globex")
    with stopped(retrain_fleet, in_training) as first:
        assert in_training.taken is not None
        clock.meanwhile = in_training.taken.renew  # as its thread does
        second = retrain_fleet(["acme", "globex"])
        assert set(read_fleet(store).entries) == {"globex"}
    busy, globex = second.outcomes
    assert (busy.state, globex.state) == ("busy", "trained")
    assert "acme is being worked on by process" in busy.reason
    assert "| acme | busy |" in markdown(second.outcomes)
    assert second.as_dict()["tenants"][0]["reason"] == busy.reason
    states = {outcome.tenant: outcome.state for outcome in first.result().outcomes}
    assert states == {"acme": "trained", "globex": "unchanged"}, "the second run has trained it meanwhile"
    fleet = read_fleet(store)
    assert set(fleet.serving()) == {"acme", "globex"}
    assert {tenant: entry.lease_token for tenant, entry in fleet.entries.items()} == {"acme": 1, "globex": 1}


def test_a_busy_tenant_writes_nothing(store: ObjectStore, clock: Clock) -> None:
    fill(store, "acme")
    lease = Leases(store, holder="somebody", clock=clock, sleep=clock.sleep).take("acme")
    clock.meanwhile = lease.renew
    (outcome,) = retrain_fleet(["acme"]).outcomes
    assert (outcome.state, read_fleet(store).generation) == ("busy", 0)
    assert [info.key for info in store.list("tenants/acme/models/")] == []


def test_a_run_that_died_is_replaced_by_the_next_one(store: ObjectStore, clock: Clock) -> None:
    fill(store, "acme")
    Leases(store, holder="the dead", clock=clock).take("acme")
    (outcome,) = retrain_fleet(["acme"]).outcomes
    assert (outcome.state, outcome.lease_token) == ("trained", 2)
    lease = LeaseState.model_validate_json(store.get(lease_key("acme")).data)
    assert (lease.token, lease.released) == (2, True)


def test_a_run_that_writes_the_fleet_late_does_not_undo_a_later_one(
    store: ObjectStore, before_the_fleet: Stopped, tmp_path: Path
) -> None:
    fill(store, "acme")
    fill(store, "globex")
    with stopped(retrain_fleet, before_the_fleet) as first:
        fill(store, "acme", tickets=150)
        (later,) = retrain_fleet(["acme"]).outcomes
    fenced, globex = first.result().outcomes
    assert (later.state, fenced.state, globex.state) == ("trained", "fenced", "trained")
    assert fenced.version != later.version
    assert later.version in fenced.reason
    entry = read_fleet(store).entries["acme"]
    assert (entry.version, entry.previous, entry.lease_token) == (later.version, None, 2)
    assert champion(tmp_path, "acme") == later.manifest
    assert champion(tmp_path, "globex") == globex.manifest


def test_the_challenger_of_a_late_run_is_not_named(
    store: ObjectStore, before_the_fleet: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "acme")
    refused = iter(["worse", None])

    def refuse_the_first(*given: Any, **named: Any) -> Any:
        reason = next(refused)
        return Decision(reasons=(reason,)) if reason else decide(*given, **named)

    monkeypatch.setattr(judging, "decide", refuse_the_first)
    with stopped(retrain_fleet, before_the_fleet) as first:
        fill(store, "acme", tickets=150)
        assert retrain_fleet(["acme"]).outcomes[0].state == "trained"
    assert first.result().outcomes[0].state == "fenced"
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert set(client.get_registered_model("macrofleet.acme").aliases) == {"champion"}


def test_tenants_that_were_deleted_after_their_training_do_not_come_back(
    store: ObjectStore, before_the_fleet: Stopped
) -> None:
    fill(store, "acme")
    fill(store, "tiny", tickets=5)
    with stopped(retrain_fleet, before_the_fleet) as first:
        for prefix in ("tenants/", "lake/tenants/"):
            for info in list(store.list(prefix)):
                store.delete(info.key)
    acme, tiny = first.result().outcomes
    assert (acme.state, acme.reason, tiny.state) == ("fenced", "the tenant was deleted meanwhile", "not_eligible")
    assert read_fleet(store).entries == {}


def test_work_that_lost_its_lease_stops_at_its_next_step(
    store: ObjectStore, in_training: Stopped, clock: Clock
) -> None:
    fill(store, "acme")
    with stopped(retrain_fleet, in_training) as first:
        second = retrain_fleet(["acme"])  # nobody renews: it hangs
    assert second.outcomes[0].state == "trained"
    (outcome,) = first.result().outcomes
    assert outcome.state == "failed"
    assert "the lease of tenant acme has run out" in outcome.reason
    entry = read_fleet(store).entries["acme"]
    assert (entry.version, entry.lease_token) == (second.outcomes[0].version, 2)


def test_work_that_lost_its_lease_does_not_get_in_the_way_of_who_took_it_over(
    store: ObjectStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off, successor = Stopped(), Stopped()
    train, places = Trainer.train, iter([cut_off, successor])

    def train_slowly(*given: Any, **named: Any) -> Any:
        next(places).stop()
        return train(*given, **named)

    monkeypatch.setattr(Trainer, "train", train_slowly)
    fill(store, "acme")
    with stopped(retrain_fleet, cut_off) as first, stopped(retrain_fleet, successor) as second:
        cut_off.go_on.set()
        assert "the lease of tenant acme has run out" in first.result().outcomes[0].reason
        assert read_record(store, "acme").record is None, "what became of it is for the other one to say"
        successor.go_on.set()
        (outcome,) = second.result().outcomes
    assert (outcome.state, outcome.reason) == ("trained", "")
    assert read_fleet(store).entries["acme"].version == outcome.version


def test_work_that_lost_its_lease_when_it_was_fitted_publishes_and_registers_nothing(
    store: ObjectStore, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, train, first = Stopped(), Trainer.train, iter([True])

    def trained(*given: Any, **named: Any) -> Any:
        made = train(*given, **named)
        if next(first, False):
            place.stop()
        return made

    monkeypatch.setattr(Trainer, "train", trained)
    fill(store, "acme")
    with stopped(retrain_fleet, place) as late:
        fill(store, "acme", tickets=150)
        second = retrain_fleet(["acme"])  # nobody renews: the first one is cut off
    assert second.outcomes[0].state == "trained"
    assert "the lease of tenant acme has run out" in late.result().outcomes[0].reason
    published = {info.key.split("/")[3] for info in store.list("tenants/acme/models/")}
    assert published == {second.outcomes[0].version}
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (version,) = client.search_model_versions("name='macrofleet.acme'")
    assert version.tags["macrofleet.manifest"] == second.outcomes[0].manifest


def test_a_name_that_nobody_has_gets_no_lease(store: ObjectStore) -> None:
    assert retrain_fleet(["nobody"]).outcomes[0].state == "unknown"
    assert list(store.list("tenants/")) == []


@pytest.mark.parametrize(("state", "code"), [("busy", 0), ("fenced", 0), ("failed", 1)])
def test_what_another_run_does_is_no_failure_of_the_command(
    monkeypatch: pytest.MonkeyPatch, state: str, code: int
) -> None:
    outcomes = (Outcome(tenant="acme", state="trained"), Outcome(tenant="globex", state=state, reason="why it is so"))
    summary = Summary(generation=1, outcomes=outcomes)
    monkeypatch.setattr("flows.command.run_retrain_fleet", lambda *_, **__: summary)
    done = CliRunner().invoke(macrofleet.app, ["train"])
    assert (done.exit_code, "globex: why it is so" in done.stderr) == (code, True)


def test_settings_say_how_long_a_lease_holds(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "acme")
    monkeypatch.setenv("MACROFLEET_LEASE_SECONDS", "7.5")
    retrain_fleet(["acme"])
    lease = LeaseState.model_validate_json(store.get(lease_key("acme")).data)
    assert lease.seconds == 7.5
