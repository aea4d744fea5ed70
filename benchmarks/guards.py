"""`macrofleet bench warm --guards`: what knowing callers and hiding macros cost of the throughput; beside it, masking."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

import numpy as np

from benchmarks.fleets import serve, tenant_names, write_catalogues
from benchmarks.load import Samples, zipf_shares
from benchmarks.machine import describe_machine
from benchmarks.processes import processor_seconds
from benchmarks.stage import TenantLoad, load_bodies, staged
from benchmarks.verdicts import Bound, judge
from registry.catalogue import Catalogue, make_catalogue
from registry.console_output import Step
from registry.errors import CatalogueUnavailable
from registry.fleet.state import update_fleet
from registry.tenant_settings import edit_tenant_settings

BOUNDS = {"guards_share": Bound(at_most=0.10)}
_GROUPS = ["100", "200", "support", "7", "42"]


def measure_guards(*, tenants: int, seconds: float, rounds: int, connections: int, step: Step) -> dict[str, Any]:
    """A server with keys and rules, one that only masks tickets, and one that does neither, each in turn the first.

    All three answer the same tickets. The first asks for a key, hides macros that are restricted to groups, personal,
    switched off, excluded or in another language than the ticket's, and masks the ticket. The second one
    (`benchmarks.unguarded_masking`) only masks it, the third one (`benchmarks.unguarded`) does none of it. All lie on the
    same core; those that are not asked have nothing to do.

    Args:
        tenants: in the fleet, all loaded before; asked for by Zipf(1). Each has a key and 100 macros.
        seconds: length of one measurement.
        rounds: pairs of measurements.
        connections: of the closed loop.

    Returns:
        `guards_share`: what knowing callers and hiding macros take of the throughput: the median over rounds of
        1 - guarded / masking; `guards_and_masking_share`, the same with masking (1 - guarded / plain), which has no bound;
        and of processor time a request, `guards_us` and `masking_us`.
    """
    names = tenant_names(tenants)
    shares = zipf_shares(tenants)
    with staged(step, models_at_rest=tenants) as stage:
        step(f"making {tenants} models", 0.05)
        fleet = stage.models(tenants)
        models = fleet.make((name, "m") for name in names)
        fleet.install(stage.disk, models)
        write_catalogues(stage.put, dict.fromkeys(names, _guarded(fleet.catalogue(["m"]))))
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
        edit_tenant_settings(stage.store, names, {"exclude_macros": ["m-3", "m-9"], "off_groups": ["trainees"]})
        os.sync()  # its writing is not to be measured with what comes after
        keys = stage.publish_keys(names)
        given = {"memory_bytes": 2 * tenants * fleet.model_bytes}
        step("starting the servers", 0.3)
        with (
            stage.server({**given, "access": "keys"}) as guarded,
            stage.server({**given, "access": "open"}, module="benchmarks.unguarded_masking") as masking,
            stage.server({**given, "access": "open"}, module="benchmarks.unguarded") as plain,
        ):
            servers = {"guarded": guarded, "masking": masking, "plain": plain}
            loads = {
                "guarded": _AgentLoad(guarded.url, names, core=stage.cores.load, keys=keys),
                "masking": _AgentLoad(masking.url, names, core=stage.cores.load),
                "plain": _AgentLoad(plain.url, names, core=stage.cores.load),
            }
            step("touching every model", 0.4)
            touched = [load.touch_all() for load in loads.values()]
            for load in loads.values():
                load.saturate(shares, seconds=min(2.0, seconds), connections=connections)
            found: dict[str, list[Samples]] = {name: [] for name in servers}
            used = dict.fromkeys(servers, 0.0)
            for part in range(rounds):
                step(f"round {part + 1} of {rounds}", 0.45 + 0.55 * part / rounds)
                # Whichever is the first meets the machine as the round before has left it.
                for name in list(servers)[:: 1 if part % 2 else -1]:
                    before = processor_seconds(servers[name].pid)
                    found[name].append(loads[name].saturate(shares, seconds=seconds, connections=connections))
                    used[name] += processor_seconds(servers[name].pid) - before
    rates = {name: [_rate(samples) for samples in runs] for name, runs in found.items()}
    costs = {
        name: [1 - ours / theirs for ours, theirs in zip(rates["guarded"], rates[name], strict=True)]
        for name in ("masking", "plain")
    }
    took = {name: used[name] / sum(len(samples.status) for samples in runs) * 1e6 for name, runs in found.items()}
    figures = {"guards_share": round(float(np.median(costs["masking"])), 4)}
    answered = [*touched, *(samples for runs in found.values() for samples in runs)]
    void = [*stage.cores.void]
    if any((samples.status != 200).any() for samples in answered):
        void.append("not every request was answered with 200")
    return {
        "bench": "guards",
        **figures,
        **judge(figures, BOUNDS, void=void),
        "guards_and_masking_share": round(float(np.median(costs["plain"])), 4),
        "guards_us": round(took["guarded"] - took["masking"], 1),
        "masking_us": round(took["masking"] - took["plain"], 1),
        "processor_us_per_request": {name: round(value, 1) for name, value in took.items()},
        "shares": {name: [round(cost, 4) for cost in each] for name, each in costs.items()},
        "rps": {name: [round(rate, 1) for rate in runs] for name, runs in rates.items()},
        "settings": {"tenants": tenants, "seconds": seconds, "rounds": rounds, "connections": connections, "words": 50},
        "machine": describe_machine(),
    }


class _AgentLoad(TenantLoad):
    """Tickets in English, for an agent in five groups."""

    def body(self, pick: int) -> bytes:
        return _agent_bodies()[pick % len(_agent_bodies())]


@functools.cache
def _agent_bodies() -> list[bytes]:
    bodies = []
    for body in load_bodies():
        asked = json.loads(body)
        asked["ticket"]["locale"] = "en-GB"
        asked["agent"] = {"id": "a-17", "groups": _GROUPS}
        bodies.append(json.dumps(asked).encode())
    return bodies


def _guarded(catalogue: bytes) -> bytes:
    """The same macros: a third of groups, a tenth switched off, a few personal, in three languages."""
    macros = Catalogue.parse(catalogue, what="a catalogue", error=CatalogueUnavailable).macros
    changed = []
    for number, macro in enumerate(macros):
        group = {"type": "Group", "ids": [number % 50]} if number % 3 == 0 else None
        changed.append(
            macro.model_copy(
                update={
                    "active": number % 10 != 0,
                    "restriction": {"type": "User", "id": 1} if number % 37 == 0 else group,
                    "locale": [None, "en", "de", "fr"][number % 4],
                }
            )
        )
    return make_catalogue(changed).to_bytes()


def _rate(samples: Samples) -> float:
    return float((samples.status == 200).sum() / samples.seconds)
