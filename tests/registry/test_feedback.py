"""Records at rest, and what reports make of them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from macrofleet import app
from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.errors import StoreError
from registry.feedback.records import encode_object, parse_record, read_feedback
from registry.feedback.report import OFTEN, report_fleet, report_tenant
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import feedback_key
from registry.store.local import LocalStore
from tests.registry.memory_store import MemoryStore

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AT = NOW.timestamp()
DAY = 86_400.0


def shown(suggestion: str, *macros: str, at: float = AT, **more: Any) -> dict[str, Any]:
    about = {"model_version": "v1", "ticket_id": None, "abstained": not macros, "held_back": False}
    return {"kind": "shown", "tenant": "acme", "at": at, "suggestion_id": suggestion, "macros": macros, **about, **more}


def told(suggestion: str, applied: str | None, *, at: float = AT + 60, **more: Any) -> dict[str, Any]:
    about = {"id": f"{suggestion}/{applied}/{at}", "tenant": "acme", "model_version": None, "ticket_id": None}
    return {
        "kind": "feedback",
        "at": at,
        "suggestion_id": suggestion,
        "applied": applied,
        "shown": None,
        **about,
        **more,
    }


def write(store: Any, *records: dict[str, Any], day: str = "2026-11-20", writer: str = "a" * 16) -> str:
    number = sum(1 for _ in store.list()) + 1
    key = feedback_key("acme", day, writer, number)
    store.put(key, encode_object([json.dumps(record).encode() for record in records]))
    return key


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(versioned=False)


def test_a_view_of_nothing_that_is_no_abstention_is_counted(store: MemoryStore) -> None:
    write(store, shown("s1", abstained=False), told("s1", "m1"))
    total = report_tenant(store, "acme", days=1, now=NOW).total
    assert (total.views, total.answered, total.accepted_at_1, total.by_hand) == (1, 1, 0, 1)


def test_the_same_records_make_the_same_object() -> None:
    assert encode_object([b"{}", b"[]"]) == encode_object([b"{}", b"[]"])
    assert gzip.decompress(encode_object([b"{}", b"[]"])) == b"{}\n[]\n"


def test_records_count_once_across_objects_and_other_tenants_not_at_all(store: MemoryStore) -> None:
    write(store, shown("s1", "m1"), told("s1", "m1"), told("s2", "m1", tenant="beta"))
    write(store, shown("s1", "m1"), told("s1", "m1"), shown("s1", "m1", held_back=True))
    assert [record.key for record in read_feedback(store, "acme")] == [
        "shown s1 0",
        f"feedback s1/m1/{AT + 60}",
        "shown s1 1",
    ]


def test_days_before_are_not_read(store: MemoryStore) -> None:
    write(store, told("s1", "m1"), day="2026-11-18")
    write(store, told("s2", "m1"), day="2026-11-19")
    assert [record.suggestion_id for record in read_feedback(store, "acme", since=date(2026, 11, 19))] == ["s2"]


def test_what_a_later_release_writes_is_left_out_or_kept_as_it_is(store: MemoryStore) -> None:
    write(store, {"kind": "later", "tenant": "acme"}, told("s1", "m1", mood="good"))
    assert [record.suggestion_id for record in read_feedback(store, "acme")] == ["s1"]
    assert parse_record(b'{"kind":"later"}') is None


@pytest.mark.parametrize("data", [b"no gzip", encode_object([b"no json"]), encode_object([b"{}"])[:-9]])
def test_an_object_that_is_none_is_named(store: MemoryStore, data: bytes) -> None:
    key = feedback_key("acme", "2026-11-20", "a" * 16, 1)
    store.put(key, data)
    with pytest.raises(StoreError, match=key):
        list(read_feedback(store, "acme"))


def test_figures(store: MemoryStore) -> None:
    write(
        store,
        shown("first", "m1", "m2", "m3"), told("first", "m1"),
        shown("third", "m1", "m2", "m3"), told("third", "m3"),
        shown("none", "m1"), told("none", None),
        shown("hand", "m1"), told("hand", "m9"),
        shown("silent", "m1"),
        shown("away"), told("away", "m9"),
        shown("held", "m1", "m2", held_back=True), told("held", "m2"),
        shown("missed", "m1", held_back=True), told("missed", "m9"),
    )  # fmt: skip
    report = report_tenant(store, "acme", days=1, now=NOW)
    assert report.total.as_dict() == {
        "views": 8,
        "shown": 5,
        "held_back": 2,
        "abstained": 1,
        "answered": 4,
        "accepted_at_1": 1,
        "accepted_at_3": 2,
        "by_hand": 4,
        "unprompted": 2,
        "right_at_3": 1,
        "coverage": 0.875,
        "abstention": 0.125,
        "acceptance_at_1": 0.25,
        "acceptance_at_3": 0.5,
        "unprompted_at_3": 0.5,
    }
    assert report.versions.keys() == {"v1"}


def test_the_last_word_counts_and_a_lost_view_is_made_up_for(store: MemoryStore) -> None:
    write(
        store,
        told("s1", "m2", at=AT + 9), told("s1", "m1", at=AT + 8), shown("s1", "m1"),
        told("lost", "m1", shown=["m1"]), told("unknown", "m1"),
    )  # fmt: skip
    total = report_tenant(store, "acme", days=1, now=NOW).total
    assert (total.views, total.answered, total.accepted_at_1, total.by_hand) == (2, 2, 1, 1)


def test_days_are_apart_and_older_ones_left_out(store: MemoryStore) -> None:
    records = [shown(f"s{day}", "m1", at=AT - day * DAY) for day in range(4)]
    write(store, *records, told("s1", "m1"))
    report = report_tenant(store, "acme", days=3, now=NOW)
    assert {day.isoformat(): figures.views for day, figures in report.days.items()} == {
        "2026-11-18": 1,
        "2026-11-19": 1,
        "2026-11-20": 1,
    }
    assert report.days[date(2026, 11, 19)].accepted_at_1 == 1  # by the day of the view


def test_macros_that_nobody_uses_and_that_nobody_suggests(store: MemoryStore) -> None:
    macros = [Macro(id=name, title=name) for name in ("m1", "m2", "m9")]
    catalogue = make_catalogue([*macros, Macro(id="off", title="Off", active=False)])
    write_catalogue(store, "acme", catalogue, etag=None)
    views = [(shown(f"s{number}", "m1"), told(f"s{number}", "m9")) for number in range(OFTEN)]
    write(store, *(record for pair in views for record in pair), shown("once", "m1"), told("once", "m8"))
    report = report_tenant(store, "acme", days=1, now=NOW)
    assert report.never_used == ["m1", "m2"]
    assert report.never_suggested == {"m9": OFTEN}


def test_the_fleet_is_the_sum_of_its_tenants(store: MemoryStore) -> None:
    update_fleet(store, {name: lambda _: FleetEntry(reason="new") for name in ("acme", "quiet")})
    write(store, shown("s1", "m1"), told("s1", "m1"))
    total, series, tenants = report_fleet(store, days=2, now=NOW)
    assert (total.views, total.accepted_at_1) == (1, 1)
    assert [day.isoformat() for day in series] == ["2026-11-20"]
    assert list(tenants) == ["acme"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path))
    update_fleet(store, {"acme": lambda _: FleetEntry(reason="new")})
    runner = CliRunner()
    assert "no views" in runner.invoke(app, ["report"]).output
    at = datetime.now(UTC).timestamp()
    write(store, shown("s1", "m1", at=at), told("s1", "m1", at=at), day=f"{datetime.now(UTC):%Y-%m-%d}")
    fleet = json.loads(runner.invoke(app, ["report", "--json"]).output)
    assert (fleet["acceptance_at_1"], fleet["tenants"]["acme"]["views"]) == (1.0, 1)
    one = json.loads(runner.invoke(app, ["report", "--tenant", "acme", "--days", "2", "--json"]).output)
    assert [day["accepted_at_3"] for day in one["series"]] == [1]
    assert "100.0%" in runner.invoke(app, ["report", "--tenant", "acme"]).output
    assert "acme" in runner.invoke(app, ["report"]).output
