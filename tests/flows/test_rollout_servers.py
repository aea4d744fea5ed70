"""A staged roll-out watched on a real server over HTTP; instead of sleeping, it is asked."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from benchmarks.fleets import make_bundle, publish_tenants
from flows.outcome import Outcome
from flows.rollout import Counts, Heard, ServerCounts, first_by_hash
from flows.rollout_settings import RolloutSettings
from flows.servers import HttpServers, read_counts
from flows.staging import Staging
from registry.errors import ProgramCorrupt
from registry.fleet.state import read_fleet
from registry.model.program import SPEC, ProgramSpec, program_digest, publish_program
from registry.publishing import publish_bundle
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.doors import Door, DrainPlan, serve_until
from serving.metrics import Metrics
from serving.settings import ServingSettings
from serving.trials.canaries import Canaries
from serving.trials.metrics import add_trial_metrics

TENANTS = [f"t{number}" for number in range(6)]
CANARIES = set(first_by_hash(TENANTS, 2))
TICKET = {"ticket": {"id": "1", "subject": "My parcel has not arrived, where is it?"}}
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Place:
    """A store with a program in it, and how to make models for that."""

    store: LocalStore
    folder: Path
    program: str
    spec: ProgramSpec

    def new_versions(self, *, threshold: float = 0.0, program: str | None = None) -> list[Outcome]:
        """A second version of every tenant, as a run makes them."""
        outcomes = []
        for tenant in TENANTS:
            folder = self.folder / f"{tenant}-new"
            program = program or self.program
            made = make_bundle(folder, tenant=tenant, program=program, spec=self.spec, seed=1, threshold=threshold)
            publish_bundle(self.store, folder, tenant=tenant)
            outcomes.append(Outcome(tenant=tenant, state="trained", version=made.version, manifest=made.digest))
        return outcomes

    def versions(self) -> dict[str, str | None]:
        return {tenant: entry.version for tenant, entry in read_fleet(self.store).entries.items()}


@pytest.fixture
def place(tmp_path: Path, bag_folder: Path) -> Place:
    store = LocalStore(tmp_path / "store")
    spec = ProgramSpec.parse((bag_folder / SPEC).read_bytes(), what=SPEC, error=ProgramCorrupt)
    digest = publish_program(store, bag_folder)
    assert digest == program_digest(bag_folder)
    publish_tenants(store, TENANTS, program=digest, spec=spec)
    return Place(store, tmp_path, digest, spec)


@contextmanager
def running(place: Place) -> Iterator[tuple[httpx.Client, str]]:
    """A server in a thread: a client of its product API, and its operator address."""
    settings = ServingSettings.model_validate(
        {
            "disk_folder": place.folder / "disk",
            "trusted_programs": frozenset({place.program}),
            "request_timeout_ms": 30_000,
            "access": "open",
        }
    )
    doors: list[Door] = []
    opened, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        apps = create_apps(settings, place.store)
        doors.append(Door(apps.public, socket.create_server(("127.0.0.1", 0)), lifespan=True))
        doors.append(Door(apps.operator, socket.create_server(("127.0.0.1", 0)), lifespan=False))
        plan = DrainPlan(notice=0, idle=0, total=5)
        await serve_until(stop, doors, force=asyncio.Event(), plan=plan, on_open=opened.set, on_stop=lambda: None)

    with asyncio.Runner() as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        try:
            assert opened.wait(PATIENCE_SECONDS)
            with httpx.Client(base_url=doors[0].url, timeout=PATIENCE_SECONDS) as client:
                for _ in range(10_000):
                    if client.get("/readyz").status_code == 200:
                        break
                yield client, doors[1].url
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            thread.join()


@dataclass
class Watched:
    """A roll-out whose time goes on as its server is asked."""

    place: Place
    client: httpx.Client
    operator: str
    now: float = 0.0
    seen: list[dict[str, str | None]] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def ask(self, times: int) -> None:
        for tenant in TENANTS * times:
            self.statuses.add(self.client.post(f"/v1/tenants/{tenant}/suggestions", json=TICKET).status_code)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.seen.append(self.place.versions())
        self.ask(5)

    def serve(self, outcomes: list[Outcome], *, requests: int = 100) -> dict[str, set[str]]:
        settings = RolloutSettings(
            canary_share=0.3, canary_seconds=600, canary_requests=requests, servers=(self.operator,)
        )
        servers = HttpServers(settings.servers)
        staging = Staging(self.place.store, settings, servers=servers, clock=lambda: self.now, sleep=self.sleep)
        states: dict[str, set[str]] = {}
        for outcome in staging.serve(outcomes).outcomes:
            states.setdefault(f"{outcome.state} {outcome.reason}".split(": ")[0].strip(), set()).add(outcome.tenant)
        return states


def test_versions_that_do_no_harm_reach_everybody(place: Place) -> None:
    before, outcomes = place.versions(), place.new_versions()
    new = {outcome.tenant: outcome.version for outcome in outcomes}
    with running(place) as (client, operator):
        watched = Watched(place, client, operator)
        watched.ask(30)
        assert watched.serve(outcomes) == {"trained": set(TENANTS)}
        assert place.versions() == new
        staged = {tenant: new[tenant] if tenant in CANARIES else before[tenant] for tenant in TENANTS}
        assert watched.seen
        assert all(each == staged for each in watched.seen)
        assert watched.statuses == {200}


def test_versions_that_always_abstain_reach_the_canaries_alone_and_not_for_long(place: Place) -> None:
    before, outcomes = place.versions(), place.new_versions(threshold=1.0)
    with running(place) as (client, operator):
        watched = Watched(place, client, operator)
        watched.ask(30)
        assert watched.serve(outcomes, requests=100_000) == {"halted the roll-out was halted": set(TENANTS)}
        assert place.versions() == before
        assert watched.now < 600, "it did not wait for the end"
        for tenant in TENANTS:
            for _ in range(10_000):
                answer = client.post(f"/v1/tenants/{tenant}/suggestions", json=TICKET).json()
                if answer["model_version"] == before[tenant]:
                    break
            assert not answer["abstained"]


def test_versions_that_servers_cannot_load_reach_nobody(place: Place) -> None:
    """For a program that the servers do not trust, say; what serves goes on, so that no request fails."""
    before, outcomes = place.versions(), place.new_versions(program="f" * 64)
    with running(place) as (client, operator):
        watched = Watched(place, client, operator)
        watched.ask(1)
        assert watched.serve(outcomes) == {"halted the roll-out was halted": set(TENANTS)}
        assert place.versions() == before
        assert watched.statuses == {200}


def test_a_server_that_does_not_answer_is_left_out(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with running(place) as (client, operator), socket.create_server(("127.0.0.1", 0)) as deaf:
        nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        deaf.close()
        Watched(place, client, operator).ask(1)
        servers = HttpServers([operator, nobody, f"{operator}/nowhere"])
        servers.refresh()
        found = servers.counts()
        assert list(found) == [operator]
        assert found[operator].every == Counts(suggested=len(TENANTS))
    assert caplog.text.count("did not read the fleet") == 2
    assert caplog.text.count("cannot be asked") == 2


class NoShadows:
    def requests(self) -> dict[tuple[str, ...], float]:
        return {}

    comparisons = requests


def test_what_agents_did_is_read_of_a_servers_metrics() -> None:
    canaries, metrics = Canaries(), Metrics()
    add_trial_metrics(metrics, canaries, NoShadows(), lambda _: pytest.fail("nothing is on trial"))  # type: ignore[arg-type]
    canaries.count("acme", "v", "suggested")
    for outcome in ("accepted", "declined", "declined"):
        canaries.hear("acme", "v", outcome)
    found = read_counts(metrics.exposition(None)[0].decode())
    assert found == ServerCounts(every=Counts(suggested=1), every_heard=Heard(1, 2))


def test_what_is_no_metric_counts_as_none() -> None:
    assert read_counts("") == ServerCounts()
    assert read_counts(Metrics().exposition(None)[0].decode()) == ServerCounts()
    with pytest.raises(ValueError, match=r".+"):
        read_counts("macrofleet_answers_total{")
