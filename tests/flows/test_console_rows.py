"""Which rows a page of the fleet shows, and what the live figures make of servers' metrics."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from flows.console.figures import Reading, quantile, read_metrics, since, summarise
from flows.console.rendering import ago, count, percent, seconds, size
from flows.console.rows import RowQuery, TenantRow, select
from flows.console.words import marked, words_of
from tests.flows.console_world import metrics

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def rows(count: int) -> list[TenantRow]:
    return [
        TenantRow(
            tenant=f"t{n:04d}",
            version="a" * 16 if n % 3 else None,
            trained="failed" if n == 7 else "trained",
            trained_at=NOW - timedelta(hours=n),
            top1=None if n % 5 == 0 else n / 1000,
            pinned=n == 3,
        )
        for n in range(count)
    ]


def test_a_page_is_cut_from_what_is_found_and_chosen() -> None:
    page = select(rows(120), RowQuery(page=3))
    assert [row.tenant for row in page.rows] == [f"t{n:04d}" for n in range(100, 120)]
    assert (page.total, page.page, page.pages, page.first) == (120, 3, 3, 100)
    assert select(rows(120), RowQuery(page=99)).page == 3
    found = select(rows(120), RowQuery(text="t000", show="without"))
    assert [row.tenant for row in found.rows] == ["t0000", "t0003", "t0006", "t0009"]
    assert {name: found.counts[name] for name in ("all", "serving", "without", "attention", "pinned")} == {
        "all": 10, "serving": 6, "without": 4, "attention": 1, "pinned": 1,
    }  # fmt: skip
    assert select([], RowQuery()).pages == 1


@pytest.mark.parametrize("descending", [False, True])
def test_what_is_not_known_comes_last_whichever_way_it_is_sorted(descending: bool) -> None:
    found = select(rows(20), RowQuery(sort="top1", descending=descending)).rows
    known = [row.top1 for row in found if row.top1 is not None]
    assert known == sorted(known, reverse=descending)
    assert [row.tenant for row in found[-4:]] == ["t0000", "t0005", "t0010", "t0015"]


def test_an_address_that_says_nonsense_shows_what_is_shown_by_default() -> None:
    assert RowQuery.read({"page": "-1", "size": "7", "sort": "__class__", "show": "x", "dir": "up"}) == RowQuery()
    assert RowQuery.read({"page": "9" * 30}).page == 1
    query = RowQuery.read({"q": "  AcMe&x ", "sort": "top1", "dir": "desc", "page": "2", "show": "held"})
    assert query.href() == "/?q=acme%26x&show=held&sort=top1&dir=desc"
    assert query.sorted_by("top1") == "/?q=acme%26x&show=held&sort=top1"
    assert RowQuery().href() == "/"


def test_figures_are_what_happened_between_two_readings() -> None:
    before, now = read_metrics(metrics(1000), at=10.0), read_metrics(metrics(3000, refused=5), at=20.0)
    told = summarise([since(now, before)], window_seconds=10.0)
    assert told["requests"] == 2000
    assert told["requests_per_second"] == 200.0
    assert told["hit_rate"] == 0.985
    assert told["cold_loads"] == 30
    assert told["refusal_reasons"] == {"tenant_rate": 2}
    assert told["models_loaded"] == 612
    assert 0.5 < told["p50_ms"] < 1.0
    assert 2.5 < told["p99_ms"] < 10.0


def test_a_server_that_began_again_counts_from_its_beginning() -> None:
    before, now = read_metrics(metrics(3000), at=10.0), read_metrics(metrics(100), at=20.0)
    assert since(now, before) is now
    assert since(now, None) is now


def test_nobody_asked_is_no_figure_and_not_a_zero() -> None:
    one = read_metrics(metrics(1000), at=1.0)
    told = summarise([since(one, one)], window_seconds=2.0)
    assert (told["hit_rate"], told["p50_ms"], told["requests_per_second"]) == (None, None, 0.0)
    assert summarise([], window_seconds=None)["requests_per_second"] is None
    assert quantile(0.5, {}) is None
    assert quantile(0.99, {0.1: 1.0, math.inf: 100.0}) == 0.1


def test_metrics_of_a_real_server_are_read() -> None:
    pytest.importorskip("tensorflow")
    from prometheus_client import generate_latest

    from serving.metrics import Metrics

    made = Metrics()
    registry = next(value for value in vars(made).values() if hasattr(value, "collect") and hasattr(value, "register"))
    found = read_metrics(generate_latest(registry).decode(), at=0.0)
    assert "cold_loads.disk" in found.counters
    assert "cache_hits.memory" in found.counters
    assert Reading(at=0.0).buckets == {}


def test_words_are_marked_where_they_stand_alone() -> None:
    words = words_of(
        {"explanation": [{"text": "parcel", "contribution": 2.0}, {"text": "my parcel", "contribution": -1.0}]}
    )
    found = marked("My  parcel, a PARCEL, parcels", words)
    assert [(piece.text, piece.mark) for piece in found] == [
        ("My  parcel", "against"), (", a ", ""), ("PARCEL", "for"), (", parcels", ""),
    ]  # fmt: skip
    assert "".join(piece.text for piece in found) == "My  parcel, a PARCEL, parcels"
    assert marked("", words) == []
    assert [piece.text for piece in marked("x", [])] == ["x"]
    signs = words_of({"explanation": [{"text": "荷物", "contribution": 1.0}]})
    assert [piece.mark for piece in marked("私の荷物は", signs)] == ["", "for", ""]
    odd = words_of({"explanation": [{"text": "a.b(c", "contribution": 1.0}, {"text": "<b>", "contribution": 1.0}]})
    assert "".join(piece.text for piece in marked("see a.b(c and <b>", odd)) == "see a.b(c and <b>"


def test_figures_and_times_are_written_one_way() -> None:
    assert percent(0.9314) == "93.1 %"
    assert count(1234567) == "1\u202f234\u202f567"
    assert percent(None) == count(None) == "\u2013"
    assert ago(NOW - timedelta(hours=3), NOW) == "3 h ago"
    assert ago(NOW + timedelta(minutes=3), NOW) == "in 3 min"
    assert (seconds(4.2), seconds(600.0), seconds(9000.0)) == ("4 s", "10 min", "2.5 h")
    assert (size(999), size(10_240_000)) == ("999 B", "10.2 MB")
