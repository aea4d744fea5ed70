"""`macrofleet bench cold`: the first answer for a tenant that was never loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.client import Client
from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.load import Floats, percentiles
from benchmarks.machine import describe_machine
from benchmarks.processes import drop_pages, processor_seconds, read_whole
from benchmarks.stage import staged
from benchmarks.tickets import WORDS, ticket_bodies
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import update_fleet
from registry.layout import WEIGHTS

BOUNDS = {
    "disk_median_ratio_to_warm": Bound(at_most=3),
    "disk_uncached_ratio_to_read": Bound(at_most=2),
    "s3_p99_ms": Bound(at_most=60),
}
# A request is sent this long after the last answer: whoever asks a cold tenant did not just ask another.
_PAUSE_SECONDS = 0.01


def measure_cold(*, tenants: int, s3_tenants: int, step: Step) -> dict[str, Any]:
    """First answers, one at a time: from local disk with its page cache warm, without it, and from an S3 server.

    Args:
        tenants: first answers from local disk, of each of the two kinds.
        s3_tenants: first answers from the S3 server; a hundred or more for a 99th percentile.

    Returns:
        `disk_median_ratio_to_warm`: median of first answers, bundles on local disk and in the page cache, to the median
        of second ones of the same tenants; `disk_uncached_ratio_to_read`: median of first answers after the kernel was
        made to forget the weights, to the median of plainly reading the same files forgotten likewise, in turn with
        them; `s3_p99_ms`: of first answers that fetch, verify and map; percentiles of all, the processor's time that a first
        answer takes beyond a second one (`processor_ms`), and the machine.
    """
    bodies = ticket_bodies(200, seed=2, words=WORDS)
    disk, disk_core, void = _from_disk(tenants, bodies, step)
    s3, s3_core = _from_s3(s3_tenants, bodies, step)
    medians = {name: float(np.median(seconds)) for name, seconds in disk.items()}
    figures = {
        "disk_median_ratio_to_warm": round(medians["first"] / medians["warm"], 2),
        "disk_uncached_ratio_to_read": round(medians["uncached"] / medians["read"], 2),
        "s3_p99_ms": percentiles(s3["first"])["p99_ms"],
    }
    if len(s3["first"]) < 100:
        void.append("fewer than 100 answers have no 99th percentile")
    return {
        "bench": "cold",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "disk": percentiles(disk["first"]),
        "disk_warm": percentiles(disk["warm"]),
        "disk_uncached": percentiles(disk["uncached"]),
        "disk_uncached_read": percentiles(disk["read"]),
        "s3": percentiles(s3["first"]),
        "s3_warm": percentiles(s3["warm"]),
        "processor_ms": {"disk": round(1000 * disk_core, 2), "s3": round(1000 * s3_core, 2)},
        "settings": {
            "tenants": tenants,
            "s3_tenants": s3_tenants,
            "words": WORDS,
            "store_for_s3": "SeaweedFS, loopback",
        },
        "machine": describe_machine(),
    }


def _from_disk(tenants: int, bodies: list[bytes], step: Step) -> tuple[dict[str, Floats], float, list[str]]:
    cached, uncached = tenant_names(tenants, "cached"), tenant_names(tenants, "uncached")
    with staged(step, models_at_rest=2 * tenants) as stage:
        step(f"making {2 * tenants} models", 0.05)
        fleet = stage.models(2 * tenants)
        models = fleet.make((name, "m") for name in [*cached, *uncached])
        fleet.install(stage.disk, models)
        write_catalogues(stage.put, dict.fromkeys([*cached, *uncached], fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        weights = {m.tenant: stage.disk / "models" / m.tenant / m.manifest.version / WEIGHTS for m in models}
        os.sync()
        step("starting the server", 0.3)
        with stage.server(_settings(len(models), fleet.model_bytes)) as server, Client(server.url) as client:
            _warm_up(client, cached[0], bodies)
            step("first answers from local disk", 0.4)
            for name in cached:
                read_whole(weights[name])
            first, warm, core = _first_and_second(client, server.pid, cached[1:], bodies)
            step("first answers from local disk, page cache dropped", 0.5)
            reads, answers, dropped = [], [], []
            for place, name in enumerate(uncached):
                dropped.append(drop_pages(weights[name]))
                began = time.perf_counter()
                read_whole(weights[name])
                reads.append(time.perf_counter() - began)
                dropped.append(drop_pages(weights[name]))
                answers.append(_ask(client, name, bodies, place))
    void = [] if all(dropped) else ["the kernel did not forget every file (a file system in memory, say)"]
    found = {"first": first, "warm": warm, "read": reads, "uncached": answers}
    return {name: np.array(seconds) for name, seconds in found.items()}, core, void


def _from_s3(tenants: int, bodies: list[bytes], step: Step) -> tuple[dict[str, Floats], float]:
    names = tenant_names(tenants + 1, "s3")
    with staged(lambda text, share: step(text, 0.6 + share / 2), models_at_rest=2 * len(names), s3=True) as stage:
        step(f"publishing {len(names)} models to the S3 server", 0.65)
        fleet = stage.models(len(names))
        models = fleet.make((name, "m") for name in names)
        fleet.publish(stage.put, models)
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        os.sync()
        step("starting the server", 0.85)
        settings = {**_settings(len(models), fleet.model_bytes), "preload": "none"}
        with stage.server(settings) as server, Client(server.url) as client:
            _warm_up(client, names[0], bodies)
            step("first answers from the S3 server", 0.9)
            first, warm, core = _first_and_second(client, server.pid, names[1:], bodies)
    return {"first": np.array(first), "warm": np.array(warm)}, core


def _first_and_second(
    client: Client, pid: int, tenants: Sequence[str], bodies: list[bytes]
) -> tuple[list[float], list[float], float]:
    """Seconds of first answers, of second ones, and of the processor's time that a first one took beyond a second."""
    before = processor_seconds(pid)
    first = [_ask(client, name, bodies, place) for place, name in enumerate(tenants)]
    between = processor_seconds(pid)
    second = [_ask(client, name, bodies, place) for place, name in enumerate(tenants)]
    beyond = (between - before) - (processor_seconds(pid) - between)
    return first, second, max(0.0, beyond / len(tenants))


def _settings(models: int, model_bytes: int) -> dict[str, object]:
    return {"memory_bytes": 2 * models * model_bytes}


def _warm_up(client: Client, tenant: str, bodies: list[bytes]) -> None:
    """The program's and the server's first answers are not a tenant's."""
    for place in range(50):
        client.suggest(tenant, bodies[place])


def _ask(client: Client, tenant: str, bodies: list[bytes], place: int) -> float:
    time.sleep(_PAUSE_SECONDS)
    return client.suggest(tenant, bodies[place % len(bodies)])
