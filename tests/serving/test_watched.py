"""Tenants whose metrics have a name: those that an operator named, and nobody else."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleets import publish_tenants
from registry.errors import InvalidInput
from registry.fleet.control import limit
from registry.settings import read_settings
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.settings import ServingSettings
from serving.trials.canaries import HEARD, OUTCOMES
from serving.watched import THROTTLED, WatchedTenants
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import BuiltProgram, serving, ticket, until_ready

EVENTS = st.lists(
    st.tuples(st.sampled_from(["acme", "beta", "gamma"]), st.sampled_from([*OUTCOMES, THROTTLED, *HEARD])), max_size=60
)


@settings(max_examples=50, deadline=None)
@given(events=EVENTS)
def test_counts_are_of_the_named_and_complete(events: list[tuple[str, Any]]) -> None:
    watched = WatchedTenants(["acme", "beta", "beta"])
    for tenant, what in events:
        if what == THROTTLED:
            watched.throttle(tenant)
        elif what in HEARD:
            watched.hear(tenant, what)
        else:
            watched.count(tenant, what)
    happened = Counter(events)
    names = ("acme", "beta")
    assert watched.answers() == {
        (name, what): happened[name, what] for name in names for what in (*OUTCOMES, THROTTLED)
    }
    assert watched.judged() == {(name, what): happened[name, what] for name in names for what in HEARD}


@pytest.mark.anyio
async def test_a_server_counts_what_becomes_of_their_requests(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    publish_tenants(store, ["acme", "beta", "gamma"], program=bag.digest, spec=bag.spec)
    limit(store, ["gamma"], requests_per_second=0.001)
    apps = create_apps(make_settings(metrics_tenants="acme,gamma"), store)
    async with serving(apps.public) as client:
        await until_ready(client)
        statuses, outcome_of_acme = [], ""
        for tenant in ("acme", "acme", "beta", "gamma", "gamma", "gamma", "gamma"):
            answer = await client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket())
            statuses.append(answer.status_code)
            if tenant == "acme":
                outcome_of_acme = "abstained" if answer.json()["abstained"] else "suggested"
        assert statuses == [200, 200, 200, 200, 429, 429, 429]
        told = {"suggestion_id": "s1", "shown": ["m1"], "model_version": "0" * 16}
        for tenant, applied in (("acme", "m1"), ("beta", "m1")):
            sent = await client.post(f"/v1/tenants/{tenant}/feedback", json={**told, "applied": applied})
            assert sent.status_code == 202
    page = apps.data_plane.metrics.exposition()[0].decode()
    said = re.findall(
        r'^macrofleet_tenant_(\w+)\{(?:tenant="(\w+)"|outcome="(\w+)"|,)+\} ([1-9]\S*)$', page, re.MULTILINE
    )
    assert {(name, tenant, outcome): float(count) for name, tenant, outcome, count in said} == {
        ("answers_total", "acme", outcome_of_acme): 2,
        ("answers_total", "gamma", outcome_of_acme): 1,
        ("answers_total", "gamma", "throttled"): 3,
        ("judged_total", "acme", "accepted"): 1,
    }
    assert "beta" not in page


def test_a_name_that_is_none_is_refused() -> None:
    for names in ("acme,Nobody!", ",".join(f"t{n}" for n in range(101))):
        with pytest.raises(InvalidInput, match="MACROFLEET_METRICS_TENANTS"):
            read_settings(ServingSettings, metrics_tenants=names)
    assert read_settings(ServingSettings, metrics_tenants=" acme, beta ,").metrics_tenants == ("acme", "beta")
