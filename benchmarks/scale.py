"""`macrofleet bench scale`: thousands of models in one server's memory, beside ten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fleets import SyntheticModel, serve, tenant_names, write_catalogues
from benchmarks.load import Samples, describe, joined
from benchmarks.machine import describe_machine
from benchmarks.processes import Usage, mapped_bytes, usage
from benchmarks.refusals import refusals
from benchmarks.stage import Stage, TenantLoad, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import Change, FleetEntry, update_fleet

BOUNDS = {
    "rss_anon_mb": Bound(at_most=1200),
    "threads_grown": Bound(at_most=0),
    "ready_seconds": Bound(at_most=15),
    "mapped_mb_most": Bound(at_most=4000),
}
_FEW = 10
# Models that are touched between two looks at the server.
_WAVE = 100
# Several at once, so that loads run beside each other; the same with ten models and with thousands.
_CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A server over some models: seconds until it was ready, what it used then and after all were touched."""

    ready_seconds: float
    at_start: Usage
    at_end: Usage
    mapped_most: int
    samples: Samples


def measure_scale(*, tenants: int, models: int, memory_bytes: int, step: Step) -> dict[str, Any]:
    """Memory and threads with `models` distinct models touched, and the seconds until a server over them is ready.

    The tenants beyond `models` are entries of the fleet whose models nobody asks for and nobody has.

    Args:
        tenants: in the fleet.
        models: distinct, on local disk, verified; preloaded by recent traffic (`top:N`) and all touched.
        memory_bytes: the server's memory budget.
    """
    names = tenant_names(tenants)
    with staged(step, models_at_rest=models) as stage:
        fleet = stage.models(models)
        step(f"making {models} models, {models * fleet.model_bytes / 1e9:.1f} GB", 0.05)
        made = fleet.make((name, "m") for name in names[:models])
        fleet.install(stage.disk, made[:_FEW])
        write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
        os.sync()
        step(f"{_FEW} models", 0.3)
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in made[:_FEW]})
        few = _look(stage, made[:_FEW], memory_bytes=memory_bytes)
        # Not before: a server takes from its disk what is in no fleet.
        step(f"writing {models} models to disk", 0.4)
        fleet.install(stage.disk, made[_FEW:])
        os.sync()
        step(f"{models} models", 0.7)
        entries: dict[str, Change] = {model.tenant: serve(model.manifest) for model in made}
        update_fleet(stage.store, entries | dict.fromkeys(names[models:], _nobodys))
        many = _look(stage, made, memory_bytes=memory_bytes)
    figures = {
        "rss_anon_mb": round(many.at_end.anonymous / 1e6, 1),
        "threads": many.at_end.threads,
        "threads_with_10_models": few.at_end.threads,
        "threads_grown": many.at_end.threads - few.at_end.threads,
        "ready_seconds": round(many.ready_seconds, 2),
        "mapped_mb_most": round(many.mapped_most / 1e6),
    }
    refused = ", ".join(f"{each['count']} of {each['status']} {each['reason']}" for each in refusals(many.samples))
    void = [f"not every model could be touched: {refused}"] if refused else []
    return {
        "bench": "scale",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "first_answers": describe(many.samples),
        "models": models,
        "with_all_models": _described(many),
        "with_10_models": _described(few),
        "settings": {
            "tenants": tenants,
            "models": models,
            "tenants_whose_models_nobody_asks_for": tenants - models,
            "model_bytes": fleet.model_bytes,
            "memory_bytes": memory_bytes,
            "preload": f"top:{models}",
            "connections": _CONNECTIONS,
        },
        "machine": describe_machine(),
    }


def _nobodys(_: FleetEntry | None) -> FleetEntry:
    return FleetEntry(version="0" * 16, manifest="0" * 64)


def _look(stage: Stage, models: Sequence[SyntheticModel], *, memory_bytes: int) -> _Seen:
    """Start a server, touch these models in waves, and look at it after each."""
    # The record that a server keeps of recent traffic: who is preloaded first.
    busiest = {model.tenant: float(len(models) - place) for place, model in enumerate(models)}
    (stage.disk / "traffic.json").write_text(json.dumps({"tenants": busiest}))
    began = time.monotonic()
    with stage.server({"memory_bytes": memory_bytes, "preload": f"top:{len(models)}"}) as server:
        ready_seconds = time.monotonic() - began
        at_start = usage(server.pid)
        mapped, waves = 0, []
        for first in range(0, len(models), _WAVE):
            names = [model.tenant for model in models[first : first + _WAVE]]
            load = TenantLoad(server.url, names, core=stage.cores.load)
            waves.append(load.touch_all(connections=_CONNECTIONS))
            mapped = max(mapped, mapped_bytes(server.pid, stage.disk))
        return _Seen(
            ready_seconds=ready_seconds,
            at_start=at_start,
            at_end=usage(server.pid),
            mapped_most=mapped,
            samples=joined(waves),
        )


def _described(seen: _Seen) -> dict[str, Any]:
    return {
        "ready_seconds": round(seen.ready_seconds, 2),
        "rss_anon_mb_when_ready": round(seen.at_start.anonymous / 1e6, 1),
        "rss_anon_mb": round(seen.at_end.anonymous / 1e6, 1),
        "rss_mb": round(seen.at_end.rss / 1e6, 1),
        "mapped_mb_most": round(seen.mapped_most / 1e6),
        "threads": seen.at_end.threads,
        "descriptors": seen.at_end.descriptors,
    }
