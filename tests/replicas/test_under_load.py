"""Replicas behind Envoy under load while they die, come and go: `make test-replicas`, apart from `make test`.

It takes minutes of both cores. On a busy machine the ratio of latencies says nothing, so this holds the bench to everything
else; `macrofleet bench replicas --check` holds it to that as well.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.replicas import EVENTS, measure_replicas


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return measure_replicas(
        tenants=90, replicas=3, seconds=8, load_share=0.15, connections=32, step=lambda _text, _share: None
    )


@pytest.mark.parametrize(
    "figure", ["affinity", "failed", "moved_without_need", "slowest_recovery_seconds", "hot_replicas"]
)
def test_a_figure_is_what_it_must_be(report: dict[str, Any], figure: str) -> None:
    if figure == "hot_replicas" and report["hot_tenant"]["unmeasured"]:
        pytest.skip(report["hot_tenant"]["unmeasured"][0])
    assert report["passed"][figure], json.dumps(report, indent=1)


def test_the_events_happened(report: dict[str, Any]) -> None:
    """Or the figures would be those of a quiet time."""
    for event in EVENTS:
        assert report["events"][event]["tenants_moved"] > 0, json.dumps(report, indent=1)
    assert report["events"]["killed"]["tried_again"] > 0, json.dumps(report, indent=1)
    assert report["under_bound"] > 500, json.dumps(report, indent=1)
