"""Requests of many tenants."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.load import Floats, Plan, Samples
from benchmarks.stage import EACH, TenantLoad, changed_speed, load_bodies, measured_capacity

TENANTS = ["acme", "beta", "gamma"]
URL = "http://127.0.0.1:1"


def load(seed: int = 1, core: int | None = None) -> TenantLoad:
    return TenantLoad(URL, TENANTS, core=core, seed=seed)


def offered(load: TenantLoad, shares: list[float], *, rate: float = 1000.0, seconds: float = 5.0) -> Plan:
    return load.offered(np.array(shares), rate=rate, seconds=seconds)


def samples_of(plan: Plan, status: list[int] | None = None, seconds: float = 1.0) -> Samples:
    times: Floats = np.zeros(len(plan.picks))
    return Samples(
        began=0.0,
        seconds=seconds,
        picks=plan.picks,
        intended=times,
        fired=times,
        sent=times,
        done=times,
        status=np.array(status or [200] * len(times)),
    )


def test_a_request_is_its_tenant_s_and_has_the_body_that_its_number_names() -> None:
    bench = load()
    picks = bench.requests_of(np.repeat([0, 1, 2], 50))
    plan = bench.plan(picks, np.arange(150) / 100)
    tenants = bench.tenant_of(samples_of(plan))
    assert tenants.tolist() == np.repeat([0, 1, 2], 50).tolist()
    assert len(set(picks.tolist())) == len(TENANTS) * EACH
    for pick, place in zip(picks.tolist(), tenants.tolist(), strict=True):
        head, _, body = plan.requests[pick].partition(b"\r\n\r\n")
        assert head.startswith(f"POST /v1/tenants/{TENANTS[place]}/suggestions HTTP/1.1\r\n".encode())
        assert body == bench.body(pick)


def test_a_tenant_asks_about_several_tickets_and_the_bodies_come_round_again() -> None:
    bench = load()
    assert len({bench.body(pick) for pick in range(EACH)}) == EACH
    assert bench.body(len(load_bodies()) + 3) == bench.body(3) == load_bodies()[3]


def test_load_comes_in_the_shares_and_at_the_rate_that_were_asked_for() -> None:
    bench = load(core=1)
    plan = offered(bench, [0.7, 0.3, 0.0])
    assert plan.at is not None
    assert len(plan.at) == len(plan.picks)
    assert len(plan.picks) == pytest.approx(5000, abs=5 * 5000**0.5)
    counts = np.bincount(bench.tenant_of(samples_of(plan)), minlength=3) / len(plan.picks)
    assert counts.tolist() == pytest.approx([0.7, 0.3, 0.0], abs=0.04)
    assert counts[2] == 0
    assert (plan.url, plan.core, len(plan.requests)) == (URL, 1, len(TENANTS) * EACH)


def test_load_is_the_same_for_the_same_seed() -> None:
    one, same, other = (offered(load(seed), [0.5, 0.3, 0.2]).picks.tolist() for seed in (1, 1, 2))
    assert one == same != other


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run, each request of which is answered with 200 but the first, within two seconds in all."""
    run: list[Plan] = []

    def run_load(plan: Plan) -> Samples:
        run.append(plan)
        return samples_of(plan, [503] + [200] * (len(plan.picks) - 1), seconds=2.0)

    monkeypatch.setattr("benchmarks.stage.run_load", run_load)
    return run


def test_every_tenant_is_touched_once(plans: list[Plan]) -> None:
    bench = load()
    samples = bench.touch_all(connections=2)
    assert bench.tenant_of(samples).tolist() == [0, 1, 2]
    (plan,) = plans
    assert (plan.at, plan.seconds, plan.connections) == (None, None, 2)


def test_capacity_is_what_is_answered_with_200_in_a_closed_loop(plans: list[Plan]) -> None:
    found = measured_capacity(load(), np.array([0.5, 0.5, 0.0]), seconds=2.0, connections=8)
    (plan,) = plans
    assert found == (len(plan.picks) - 1) / 2
    assert (plan.at, plan.seconds, plan.connections) == (None, 2.0, 8)
    assert plan.picks.max() < 2 * EACH


def test_a_machine_that_changed_its_speed_is_told() -> None:
    assert changed_speed([3000, 2500]) == []
    (reason,) = changed_speed([3000, 2000])
    assert "3000 and 2000" in reason
    assert changed_speed([2000, 3000])
