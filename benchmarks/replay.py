"""`macrofleet bench load`: a trace replayed against any HTTP server, ours or another."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from benchmarks.latency import encoded
from benchmarks.load import Integers, Plan, Run, Samples, describe, http_request, per_second, percentiles, running
from benchmarks.machine import describe_machine
from benchmarks.refusals import refusals
from benchmarks.trace import Trace
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.errors import InvalidInput

OUR_PATH = "/v1/tenants/{tenant}/suggestions"
# Requests made beforehand for each tenant, with another body each.
_EACH = 4
_LOOK_SECONDS = 0.5
_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How a server is asked.

    Attributes:
        url: its address; whatever path it has comes before `path`.
        path: of a request, with `{tenant}` where the name goes.
        bodies: of the requests; each tenant gets some of them.
        key: an API key for all tenants.
        keys: API keys by tenant, in place of `key`.
        headers: on top.
        remote: whether it may be another machine than this one.
    """

    url: str
    path: str = OUR_PATH
    bodies: Sequence[bytes]
    key: str | None = field(default=None, repr=False)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    remote: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise InvalidInput(f"{self.url!r} is no address of a server", remedy="It begins with http:// or https://.")
        if not self.remote and not _is_loopback(parts.hostname):
            raise InvalidInput(
                f"{parts.hostname} is not this machine", remedy="Add --remote where you may load that server."
            )
        if not self.bodies:
            raise InvalidInput("there is no request body", remedy="Name a file with one body a line.")

    def requests(self, tenants: Sequence[str]) -> list[bytes]:
        """`_EACH` whole requests of each tenant, one tenant after the other."""
        prefix = urlsplit(self.url).path.rstrip("/")
        made = []
        for place, tenant in enumerate(tenants):
            path = prefix + self.path.replace("{tenant}", quote(tenant, safe=""))
            key = self.keys.get(tenant, self.key)
            for copy in range(_EACH):
                body = self.bodies[(place * _EACH + copy) % len(self.bodies)]
                made.append(http_request(self.url, path, body, key=key, headers=self.headers))
        return made


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def picks_of(trace: Trace, *, seed: int) -> Integers:
    """Which of `Target.requests` each arrival sends."""
    picks: Integers = trace.places * _EACH + np.random.default_rng(seed).integers(0, _EACH, len(trace.places))
    return picks


def measure_load(
    trace: Trace,
    target: Target,
    *,
    seed: int = 1,
    max_connections: int = 2000,
    patience_seconds: float = 30.0,
    bounds: Mapping[str, Bound] | None = None,
    step: Step,
) -> dict[str, Any]:
    """Replay a trace in an open loop. Ctrl-C ends it early, with what came until then.

    Args:
        trace: what to send, and when.
        target: whom to.
        seed: of which body goes with which arrival.
        max_connections: at once; an arrival that finds none waits, its latency running.
        patience_seconds: how long the end waits for answers that are still out.
        bounds: on figures of the report, by name.

    Returns:
        Latencies of successes, from when a request was due; every refusal by status and reason; the same of first
        requests of tenants alone; the histogram.
    """
    plan = Plan(
        url=target.url,
        requests=target.requests(trace.tenants),
        picks=picks_of(trace, seed=seed),
        at=trace.at,
        max_connections=max_connections,
        patience_seconds=patience_seconds,
        keep_refusals=True,
    )
    samples, interrupted = watched(plan, step)
    return {"bench": "load", **report_of(trace, samples, interrupted=interrupted, bounds=bounds or {})}


def watched(plan: Plan, step: Step) -> tuple[Samples, bool]:
    """Run a plan with its progress; whether Ctrl-C ended it."""
    assert plan.at is not None
    seconds = float(plan.at[-1]) if len(plan.at) else 0.0
    step("connecting", 0.0)
    with running(plan) as run:
        try:
            _watch(run, seconds, len(plan.at), step)
        except KeyboardInterrupt:
            step("stopping", 1.0)
            run.stop()
            return run.result(), True
        return run.result(), False


def _watch(run: Run, seconds: float, count: int, step: Step) -> None:
    while not run.ended_within(_LOOK_SECONDS):
        passed = time.monotonic() - run.began
        if passed < seconds:
            step(f"replaying {count:,} requests over {seconds:.0f} s", passed / seconds)
        else:
            step("waiting for the last answers", 1.0)


def report_of(trace: Trace, samples: Samples, *, interrupted: bool, bounds: Mapping[str, Bound]) -> dict[str, Any]:
    """What came of a trace."""
    good = (samples.status >= 200) & (samples.status < 300)
    latency = np.where(good, samples.latency, np.nan)
    found = describe(samples)
    first = trace.first[: len(samples.status)]
    figures = {
        **percentiles(latency),
        "rps": per_second(int(good.sum()), samples.seconds),
        "offered_rps": found["offered_rps"],
        "failed": int((~good).sum()),
        "failed_share": round(float((~good).mean()), 6) if len(good) else 0.0,
    }
    void = ["interrupted"] if interrupted else []
    if found["void"]:
        void.append(f"the generator was late: {found['lag_p99_ms']} ms in the 99th percentile")
    return {
        **figures,
        **judge(figures, bounds, void=void),
        "requests": len(samples.status),
        "statuses": found["statuses"],
        "refusals": refusals(samples),
        "first_requests": {**percentiles(latency[first]), "requests": int(first.sum())},
        "later_requests": {**percentiles(latency[~first]), "requests": int((~first).sum())},
        "generator": {name: found[name] for name in ("late", "lag_p99_ms", "generator_processor_share")},
        "hdr": encoded(latency),
        "trace": trace.describe(),
        "machine": describe_machine(),
    }
