"""What the console tells Prometheus: figures of trainings, for operators' keys, documented, and never with a tenant's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics import parser

from benchmarks.console_fleet import fill_store
from flows.console.fleet_index import FleetRows
from flows.console.metrics import OUTCOMES, Kept, collect
from flows.console.rows import TenantRow
from flows.status import RunStatus
from registry.errors import DatabaseUnavailable, StoreUnavailable
from registry.regions.marks import CopyMark, write_mark
from registry.store.local import LocalStore
from tests.flows.console_world import Console, asking, make_console

PARSE: Any = parser.text_string_to_metric_families
NOW = datetime(2026, 11, 28, 8, tzinfo=UTC)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def figures(known: FleetRows, runs: list[RunStatus], **more: Any) -> dict[str, float]:
    """Figures by name and labels' values: `macrofleet_tenants serving`."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in collect(known, runs, now=NOW, **more)
        for sample in family.samples
    }


def run(flow: str = "retrain_fleet", state: str = "completed", *, hours: float = 1, **more: Any) -> RunStatus:
    values = {"run": "r", "flow_run_id": "", "seconds": 600.0, "counts": {}, **more}
    return RunStatus(flow=flow, state=state, started_at=NOW - timedelta(hours=hours), **values)


def rows(*found: TenantRow, **more: Any) -> FleetRows:
    return FleetRows(rows=found, generation=7, records_read=True, **more)


SERVING: Any = {"version": "a" * 16}


def test_tenants_are_counted_by_what_holds_for_them() -> None:
    told = figures(
        rows(
            TenantRow(tenant="a", trained="trained", top3=0.9, **SERVING),
            TenantRow(tenant="b", trained="failed", top3=0.5, **SERVING),
            TenantRow(tenant="c", trained="not_promoted", top3=0.7, **SERVING),
            TenantRow(tenant="d", trained="trained", stage="halted", **SERVING),
            TenantRow(tenant="e", trained="trained", candidate="b" * 16),
            TenantRow(tenant="f", trained="failed"),
            TenantRow(tenant="g"),
            TenantRow(tenant="h", trained="of a later release"),
        ),
        [],
    )
    assert told["macrofleet_tenants serving"] == told["macrofleet_tenants without_model"] == 4
    trained = {name.split()[1]: count for name, count in told.items() if name.startswith("macrofleet_tenants_trained")}
    assert trained == {"trained": 3, "not_promoted": 1, "not_eligible": 0, "failed": 2, "never": 1, "other": 1}
    attention = {n.split()[1]: count for n, count in told.items() if n.startswith("macrofleet_tenants_attention")}
    assert attention == {"failed": 2, "not_promoted": 1, "halted": 1, "candidate": 1}
    # "f" has no model that could be old.
    assert told["macrofleet_tenants_stale"] == 1
    assert told["macrofleet_tenants_top3 0.5"] == 0.7
    assert told["macrofleet_console_fleet_generation"] == 7


def test_what_the_last_run_left_is_stale_until_a_later_one_did_it() -> None:
    known = rows(TenantRow(tenant="a", trained="trained", **SERVING))
    left = run(left=[{"tenant": "a", "state": "busy", "reason": ""}], counts={"busy": 1}, hours=20)
    assert figures(known, [left])["macrofleet_tenants_stale"] == 1
    assert figures(known, [run(hours=2), left])["macrofleet_tenants_stale"] == 0
    # One that goes on has not done it yet, and one of another flow never will.
    assert figures(known, [run(state="running"), run("verify_fleet"), left])["macrofleet_tenants_stale"] == 1


def test_runs_are_told_by_the_last_that_ended() -> None:
    told = figures(
        rows(),
        [
            run(state="silent", hours=0.5),
            run(state="running", hours=0.2),
            run(counts={"trained": 3, "failed": 2, "busy": 1, "nonsense": 4}, hours=3),
            run(state="failed", hours=30),
            run("verify_fleet", "failed", hours=5),
            run("a_flow_of_somebody_elses", hours=5),
        ],
    )
    assert told["macrofleet_run_age_seconds retrain_fleet"] == 3 * 3600 - 600
    assert told["macrofleet_run_seconds retrain_fleet"] == 600
    assert told["macrofleet_run_left retrain_fleet"] == 3
    assert (told["macrofleet_run_failed retrain_fleet"], told["macrofleet_run_failed verify_fleet"]) == (0, 1)
    assert (told["macrofleet_run_tenants trained"], told["macrofleet_run_tenants other"]) == (3, 4)
    assert (told["macrofleet_runs_under_way silent"], told["macrofleet_runs_under_way running"]) == (1, 1)
    assert not [name for name in told if "somebody" in name]


def test_a_copy_is_told_of_where_there_is_one() -> None:
    mark = CopyMark(source="file:///home", generation=6, finished_at=NOW.timestamp() - 90)
    told = figures(rows(), [], copied=mark)
    assert (told["macrofleet_copy_age_seconds"], told["macrofleet_copy_generation"]) == (90, 6)
    assert not [name for name in figures(rows(), []) if "copy" in name]


def test_what_is_not_known_is_no_zero() -> None:
    told = figures(FleetRows(), [])
    assert not [name for name in told if name.startswith(("macrofleet_tenants", "macrofleet_run_"))]
    told = figures(FleetRows(rows=(TenantRow(tenant="a"),), generation=1), [])
    assert "macrofleet_tenants_stale" not in told
    assert told["macrofleet_tenants without_model"] == 1


def test_a_store_that_does_not_answer_is_told_and_the_last_runs_stay() -> None:
    now = [0.0]
    answers: list[Any] = [[run()], StoreUnavailable("away"), [run(), run()]]

    def read() -> list[RunStatus]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    kept: Kept[list[RunStatus]] = Kept(read, [], clock=lambda: now[0])
    seen = []
    for seconds in (0, 10, 31, 62):
        now[0] = seconds
        seen.append((len(kept.get()), kept.problem))
    assert seen == [(1, False), (1, False), (1, True), (2, False)]
    assert figures(rows(), [], problem=True)["macrofleet_console_current"] == 0
    assert figures(rows(problem="the store is away"), [])["macrofleet_console_current"] == 0
    assert figures(rows(), [])["macrofleet_console_current"] == 1


@pytest.fixture
def console(tmp_path: Path) -> Console:
    store = LocalStore(tmp_path / "store")
    fill_store(store, 12)
    copy = LocalStore(tmp_path / "copy")
    write_mark(copy, CopyMark(source=store.url, generation=1, finished_at=1.0))
    return make_console(tmp_path, store, watched=("hazel-books",), copy=copy)


@pytest.fixture
def client(console: Console) -> Iterator[httpx.Client]:
    with asking(console) as made:
        yield made


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_only_an_operators_key_reads_it(console: Console, client: httpx.Client) -> None:
    tenants, _ = console.keys.create("hazel-books", ["tenant-admin"], note="")
    signed_in = console.sign_in(client)
    assert signed_in.status_code == 303
    for headers in ({}, bearer("mf_0123456789_nonsense"), bearer(tenants), {"Authorization": console.operator}):
        answer = client.get("/metrics", headers=headers)  # a session opens it no more than nothing does
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "macrofleet_" not in answer.text
    assert client.get("/metrics", headers=bearer(console.operator)).status_code == 200
    assert client.post("/metrics", headers=bearer(console.operator)).status_code == 405
    # And the key opens nothing else in that way.
    client.cookies.clear()
    assert client.get("/", headers=bearer(console.operator)).status_code == 303


def test_a_key_that_cannot_be_looked_at_reads_nothing(
    console: Console, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str) -> bool:
        raise DatabaseUnavailable("the database is away")

    monkeypatch.setattr(console.world.sessions, "is_operator", away)
    answer = client.get("/metrics", headers=bearer(console.operator))
    assert (answer.status_code, "away" in answer.text) == (503, False)


def test_every_metric_is_documented_and_every_documented_one_is_there(console: Console, client: httpx.Client) -> None:
    client.get("/healthz")  # answered once it has begun, and read the fleet
    console.world.index.refresh_records()
    answer = client.get("/metrics", headers=bearer(console.operator) | {"Accept": OPENMETRICS})
    found = {
        family.name: (family.type, {label for sample in family.samples for label in sample.labels})
        for family in PARSE(answer.text)
    }
    section = DOCUMENT.read_text().split("\n## Of trainings\n")[1].partition("\n## ")[0]
    said = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(macrofleet_\w+)` \| (\w+) \|([^|]*)\|", section, re.MULTILINE)
    }
    assert said == found
    assert len(re.findall('tenant="hazel-books"', answer.text)) == 3
    assert len(re.findall(r'\{tenant="', answer.text)) == 3


def test_outcomes_are_those_of_trainings() -> None:
    described = (Path(__file__).parents[2] / "flows" / "outcome.py").read_text()
    assert set(re.findall(r'"(\w+)"[ ;.(]', described.partition("Attributes:")[2].partition("reason:")[0])) == set(
        OUTCOMES
    )
