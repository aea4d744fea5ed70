from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import macrofleet
from registry.deletion.tombstones import bury
from registry.errors import TenantDeleted
from registry.feedback.records import encode_object, read_feedback
from registry.layout import examples_key, feedback_key, lake_prefix, sync_prefix
from registry.store import ObjectState
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings
from tests.registry.memory_store import MemoryStore
from training.examples import Example
from training.lake import Lake
from training.lake_retention import first_kept, tidy_lake

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def example(number: int, when: datetime | None) -> Example:
    return Example(ticket_id=str(number), body="Where is it?", macro_id="m1", applied_at=when)


def shipped(store: Any, day: str, number: int) -> None:
    told = {
        "kind": "feedback",
        "tenant": "acme",
        "at": 1.0,
        "id": f"{day}-{number}",
        "suggestion_id": "s",
        "applied": None,
    }
    store.put(feedback_key("acme", day, "a" * 16, number), encode_object([json.dumps(told).encode()]))


def ids(store: Any) -> list[str]:
    return [one.ticket_id for one in Lake(store).read("acme")]


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore(versioned=True, now=NOW.timestamp())
    times = [datetime(2025, 11, 30, 23, 59, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC), NOW, None]
    Lake(made).merge("acme", [example(number, when) for number, when in enumerate(times)])
    for day, number in (("2025-11-30", 1), ("2025-12-01", 1), ("2025-12-01", 2), ("2026-11-28", 1), ("2026-11-28", 2)):
        shipped(made, day, number)
    return made


def test_what_is_older_goes_and_the_rest_is_packed(store: MemoryStore) -> None:
    would = tidy_lake(store, "acme", keep_months=12, now=NOW, write=False)
    assert ids(store) == ["0", "1", "2", "3"]
    done = tidy_lake(store, "acme", keep_months=12, now=NOW)
    # A dry run does not see what the run itself writes over.
    assert {**would.as_dict(), "hidden": 0} == {**done.as_dict(), "hidden": 0}
    assert (done.tickets, done.undated, done.left, done.feedback, done.packed, done.made) == (1, 1, 3, 1, 2, 1)
    assert done.before == datetime(2025, 12, 1, tzinfo=UTC)
    assert ids(store) == ["1", "2", "3"]
    days = [record.key.removeprefix("feedback ")[:10] for record in read_feedback(store, "acme")]
    assert days == ["2025-12-01", "2025-12-01", "2026-11-28", "2026-11-28"]
    assert {state.kind for state in store.states(lake_prefix("acme"))} == {"current"}, "nor do its versions have it"
    again = tidy_lake(store, "acme", keep_months=12, now=NOW)
    assert (again.tickets, again.feedback, again.packed, again.hidden) == (0, 0, 0, 0)


def test_tickets_that_come_meanwhile_stay(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    load, imported = Lake._load, False

    def loaded(lake: Lake, tenant: str) -> Any:
        nonlocal imported
        found = load(lake, tenant)
        if not imported:
            imported = True
            Lake(store).merge(tenant, [example(9, NOW)])
        return found

    monkeypatch.setattr(Lake, "_load", loaded)
    assert Lake(store).expire("acme", datetime(2025, 12, 1, tzinfo=UTC)).removed == 1
    assert ids(store) == ["1", "2", "3", "9"]


def test_a_synchronisation_that_nobody_went_on_with_is_forgotten(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = sync_prefix("acme", "zendesk")
    store.now = datetime(2025, 11, 1, tzinfo=UTC).timestamp()
    for name in ("labelled-1.parquet", "state.json"):
        store.put(prefix + name, b"old")
    store.put(sync_prefix("acme", "other") + "labelled-1.parquet", b"old")
    store.now = NOW.timestamp()
    store.put(sync_prefix("acme", "other") + "state.json", b"new")
    gone: list[str] = []
    purge = store.purge

    def purged(states: Iterable[ObjectState]) -> None:
        found = list(states)
        gone.extend(state.key for state in found)
        purge(found)

    monkeypatch.setattr(store, "purge", purged)
    assert tidy_lake(store, "acme", keep_months=12, now=NOW).synchronisations == 1
    assert [info.key for info in store.list(prefix)] == []
    assert len(list(store.list(sync_prefix("acme", "other")))) == 2
    assert next(key for key in gone if key.startswith(prefix)) == f"{prefix}state.json"


def test_nothing_of_a_tenant_that_was_deleted_comes_back(store: MemoryStore) -> None:
    def deleted(key: str) -> None:
        if key == examples_key("acme"):
            bury(store, "acme", token=1)

    store.on_put = deleted
    with pytest.raises(TenantDeleted):
        tidy_lake(store, "acme", keep_months=12, now=NOW)
    assert list(store.states(lake_prefix("acme"))) == []


@given(now=st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)), months=st.integers(1, 1200))
def test_a_ticket_is_kept_for_at_most_its_months_and_at_least_one_less(now: datetime, months: int) -> None:
    def back(day: date, by: int) -> tuple[int, int]:
        return divmod(day.year * 12 + day.month - 1 - by, 12)

    first = first_kept(now.replace(tzinfo=UTC), months)
    assert first.day == 1
    assert (first.year, first.month - 1) == back(now.date(), months - 1)
    assert first.date() + timedelta(days=31 * months) >= now.date()


def test_the_command_goes_by_each_tenants_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path))
    monkeypatch.setenv("MACROFLEET_KEEP_MONTHS", "36")
    store = LocalStore(tmp_path)
    old = datetime.now(UTC) - timedelta(days=600)
    for tenant in ("acme", "beta", "broken"):
        Lake(store).merge(tenant, [example(1, old), example(2, datetime.now(UTC)), example(3, None)])
    edit_tenant_settings(store, ["acme"], {"keep_months": 12})
    store.put(examples_key("broken"), b"no parquet")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(macrofleet.app, ["garbage", "lake", *arguments])

    said = run("--dry-run")
    assert "would remove 1 tickets and 0 objects of feedback that are too old" in said.stdout
    assert "3 tickets have no time" not in said.stdout
    assert len(Lake(store).read("acme")) == 3
    done = run("--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 1, "a tenant could not be tidied"
    assert [(row["tenant"], row["tickets"], row["undated"], row["left"]) for row in report["tenants"]] == [
        ("acme", 1, 1, 2),
        ("beta", 0, 1, 3),
    ]
    assert [problem.partition(":")[0] for problem in report["problems"]] == ["broken"]
    assert run("acme").exit_code == 0
    assert run("ACME").exit_code != 0
