"""`serve --replicas 1..2` with its own marks and a real load: a second server comes, and goes when there is nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.fleets import tenant_names
from benchmarks.load import Samples, run_load
from benchmarks.replicas import publish_alike
from benchmarks.stage import TenantLoad, staged

TENANTS = 20
# A minute of quiet is what it takes, and a minute is for a busy machine.
PATIENCE_SECONDS = 120.0


def until(condition: Callable[[], bool], play: Callable[[], Samples]) -> int:
    """Load in pieces until something holds; how many requests were asked, all of them answered with 200."""
    asked, deadline = 0, time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the number of replicas has not followed the load"
        run = play()
        assert set(run.status.tolist()) == {200}
        asked += len(run.status)
    return asked


def test_a_second_one_comes_with_the_load_and_goes_with_it() -> None:
    names, shares = tenant_names(TENANTS), np.full(TENANTS, 1 / TENANTS)
    with staged(lambda _text, _share: None, models_at_rest=3 * TENANTS) as stage:
        settings = {"memory_bytes": 2 * publish_alike(stage, names), "preload": "share", "fleet_poll_seconds": 1}
        with stage.server(settings, arguments=["--replicas", "1..2", "--separate-disks"]) as server:
            load = TenantLoad(server.url, names, core=stage.cores.load)

            def replicas() -> int:
                return len(server.addresses) - 1  # the first is the proxy's

            def full() -> Samples:
                return load.saturate(shares, seconds=2, connections=32)

            def little() -> Samples:
                return run_load(load.offered(shares, rate=20, seconds=2))

            assert replicas() == 1
            assert until(lambda: replicas() == 2, full) > 0
            assert until(lambda: replicas() == 1, little) > 0
