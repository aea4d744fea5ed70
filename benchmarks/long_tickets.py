"""`macrofleet bench neighbour --long`: what the others notice when one tenant sends tickets as long as they may be."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.load import (
    Samples,
    describe,
    http_request,
    interleaved,
    joined,
    percentiles,
    poisson_arrivals,
    run_load,
)
from benchmarks.machine import describe_machine
from benchmarks.stage import TenantLoad, changed_speed, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import update_fleet

BOUNDS = {
    "others_p99_ms": Bound(at_most=10),
    "others_refused": Bound(at_most=0),
    "long_answered": Bound(at_least=1),
}
# A server takes 64 KiB, JSON around the text included.
_BYTES = 64_000
# What takes a server longest, by what of its work: masking, cleaning, featurising, and refusing.
_PIECES = {
    "words": "Where is my order? It should have arrived on Monday. ",
    "numbers": "00 49 30 1 2 3 4 5 6 7 8 ",
    "cards": "4 1 1 1 ",
    "dates": "03.04.2024 ",
    "orders": "order 030 1234567 ",
    "lines": "From: x\nx\n",
    "markup": "<p>x<br>",
    "attributes": "<p id=x_x_x_x_x_x_x_x_>",
    "links": "http://x.example/a ",
    "wide": "\ufdfa",
}


def long_bodies() -> dict[str, bytes]:
    """Bodies of requests, by kind: a subject and two messages of the same, and one that is no request."""

    def body(piece: str) -> bytes:
        text = piece * (_BYTES // 3 // (len(json.dumps(piece, ensure_ascii=False).encode()) - 2))
        comments = [{"author": "customer", "body": text}, {"author": "customer", "body": f"{text}x"}]
        ticket = {"id": "long", "subject": text, "comments": comments}
        return json.dumps({"ticket": ticket}, ensure_ascii=False).encode()

    malformed = b'{"ticket":{"id":"long","comments":[' + b",".join([b"{}"] * 20_000) + b"]}}"
    return {**{kind: body(piece) for kind, piece in _PIECES.items()}, "malformed": malformed}


def measure_long_tickets(
    *, tenants: int, seconds: float, rounds: int, load_share: float, connections: int, step: Step
) -> dict[str, Any]:
    """All tenants at their share with tickets of 50 words, and then the first with tickets of 64 KiB instead.

    Args:
        tenants: with equal shares.
        seconds: length of one measurement.
        rounds: of each kind, in turn.
        load_share: what all shares together are of the capacity, which is measured with tickets of 50 words.
        connections: of the closed loop that finds the capacity.

    Returns:
        `others_p99_ms`: of the others while the first sends long tickets; `others_refused`: answers other than 200 of theirs;
        `long_answered`: of the first's requests, how many were answered (with 200, or 422 where that is due).
    """
    names = tenant_names(tenants)
    shares = np.full(tenants, 1 / tenants)
    with staged(step, models_at_rest=tenants) as stage:
        step(f"making {tenants} models", 0.1)
        fleet = stage.models(tenants)
        models = fleet.make((name, "m") for name in names)
        fleet.install(stage.disk, models)
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        os.sync()
        step("starting the server", 0.2)
        with stage.server({"memory_bytes": 2 * tenants * fleet.model_bytes}) as server:
            load = TenantLoad(server.url, names, core=stage.cores.load)
            load.touch_all()
            step("finding the capacity", 0.3)
            capacity = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
            share = load_share * capacity / tenants
            path = f"/v1/tenants/{names[0]}/suggestions"
            long = [http_request(server.url, path, body) for body in long_bodies().values()]
            found: dict[str, list[Samples]] = {"quiet": [], "long": []}
            for part in range(2 * rounds):
                kind = ("quiet", "long")[part % 2]
                step(kind, 0.4 + 0.6 * part / (2 * rounds))
                sent = long if kind == "long" else []
                found[kind].append(_run(load, share, long=sent, seconds=seconds, seed=part // 2))
            step("finding the capacity again", 0.99)
            later = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
    quiet, beside = (joined(found[kind]) for kind in ("quiet", "long"))
    others = {name: run.where(_is_others(load, run)) for name, run in (("quiet", quiet), ("long", beside))}
    first = beside.where(load.tenant_of(beside) >= tenants)
    p99 = {name: percentiles(run.latency[run.status == 200])["p99_ms"] for name, run in others.items()}
    figures = {
        "others_p99_ms": p99["long"],
        "others_refused": int((others["long"].status != 200).sum()),
        "long_answered": int(np.isin(first.status, (200, 422)).sum()),
    }
    void = [*stage.cores.void, *changed_speed([capacity, later])]
    if not (quiet.kept_schedule and beside.kept_schedule):
        void.append("the generator was late")
    if not (quiet.status == 200).all():
        void.append("there were refusals without a long ticket")
    return {
        "bench": "neighbour",
        **figures,
        "p99_ratio": round(p99["long"] / p99["quiet"], 2) if all(p99.values()) else None,
        **judge(figures, BOUNDS, void=void),
        "others_quiet": describe(others["quiet"]),
        "others_beside_long_tickets": describe(others["long"]),
        "long_tickets": describe(first),
        "settings": {
            "tenants": tenants,
            "seconds": seconds,
            "rounds": rounds,
            "load_share": load_share,
            "capacity_rps": round(capacity, 1),
            "share_rps": round(share, 2),
            "kinds": [*long_bodies()],
        },
        "machine": describe_machine(),
    }


def _is_others(load: TenantLoad, run: Samples) -> Any:
    tenants = load.tenant_of(run)
    return (tenants != 0) & (tenants < len(load.tenants))


def _run(load: TenantLoad, share: float, *, long: list[bytes], seconds: float, seed: int) -> Samples:
    """The others' arrivals, and the times of the first's, are the same whatever it sends."""
    rng = np.random.default_rng(seed)
    others = poisson_arrivals(share * (len(load.tenants) - 1), seconds, rng=rng)
    places = rng.integers(1, len(load.tenants), len(others))
    first = poisson_arrivals(share, seconds, rng=rng)
    picks = load.requests_of(np.zeros(len(first), np.int64))
    if long:
        picks = load.first_of_more + np.arange(len(first)) % len(long)
    at, (chosen,) = interleaved([others, first], [[load.requests_of(places), picks]])
    return run_load(load.plan(chosen, at, more=long))
