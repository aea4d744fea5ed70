"""`macrofleet bench flows`: a fleet trained, registered and published; what fails; what is left after a kill."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.flow_run import HANGS, HUNGRY
from benchmarks.flow_world import LIMITS, MACROS, TICKETS, FlowWorld
from benchmarks.machine import describe_machine
from benchmarks.prefect_server import local_prefect
from benchmarks.stage import staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.layout import examples_key
from registry.model.program import publish_program
from registry.settings import StoreSettings
from registry.store import open_store
from training.synthetic import make_tenant

POISON = "planted-poison"
PLANTED = (HANGS, HUNGRY, POISON)
BOUNDS = {
    "seconds_per_tenant": Bound(at_most=1.0),
    "overhead_seconds_per_tenant": Bound(at_most=0.3),
    "unchanged_seconds": Bound(at_most=30),
    "failed_by_themselves": Bound(at_most=0),
    "planted_named": Bound(at_least=len(PLANTED)),
    "memory_drift": Bound(at_most=0.05),
}
# So many tenants are enough for every step to be under way in one process while another one is elsewhere.
_KILLED_TENANTS = 4
_MOST_RERUNS = 10
_DONE = ("trained", "not_promoted", "unchanged")


def measure_flows(*, tenants: int, processes: int, kills: int, seed: int, s3: bool, step: Step) -> dict[str, Any]:
    """Train a fleet, again with nothing changed, and small fleets that are killed and run again.

    Three tenants are planted into the first run: a lake file that is none, one that never ends and one that takes all
    memory (both by `benchmarks.flow_run`, in the training process). A run is a process of its own against a Prefect
    server that is there already; its start is part of its time.

    Args:
        tenants: with 300 examples and 12 macros; the planted ones come on top.
        processes: that train.
        kills: random points, from the first sign of fitting to the end of an undisturbed run.
        seed: of the tenants and of the points.
        s3: the store is a real S3 server instead of a folder; kills are measured over folders all the same.

    Returns:
        `seconds_per_tenant`: the run's whole time by tenants; `overhead_seconds_per_tenant`: that less the mean of
        featurising and fitting by processes; `unchanged_seconds`: of the same run again without the planted tenants;
        `failed`: the names of those that failed in the first run; `memory_drift`: the highest peak of a training process
        in the last fifth of tenants to that in the second, less 1; `kills` that hit, and how many of them `converged`: the
        fleet serves what an undisturbed run serves, and MLflow has one version of each.
    """
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(staged(step, models_at_rest=tenants + 2 * _KILLED_TENANTS, s3=s3))
        step("starting Prefect", 0.02)
        prefect = stack.enter_context(local_prefect(stage.folder / "prefect"))
        step(f"making {tenants} tenants", 0.03)
        world = FlowWorld(stage.folder / "run", stage.store_settings, disk=stage.disk, prefect=prefect)
        names = world.fill(tenants, seed=seed)
        _plant(world, seed)
        first = world.run(processes=processes, saying=_within(step, 0.05, 0.5))
        again = world.run(processes=processes, tenants=names, saying=_within(step, 0.5, 0.7))
        peaks = world.peaks()[: len(names)]
        small = stage.folder / "small"
        store = StoreSettings(url=str(small / "store"))
        publish_program(open_store(store), stage.disk / "programs" / stage.program)
        still = FlowWorld(small, store, disk=stage.disk, prefect=prefect)
        hit, converged, whole = _converge(
            still,
            small,
            names=still.fill(_KILLED_TENANTS, seed=seed),
            processes=processes,
            kills=kills,
            seed=seed,
            step=_within(step, 0.7, 1.0),
        )
    fitting = sum(outcome["fit_seconds"] for outcome in first.outcomes.values()) / len(names)
    each = first.seconds / len(names)
    failed = first.of("failed")
    figures = {
        "seconds_per_tenant": round(each, 3),
        "overhead_seconds_per_tenant": round(each - fitting / processes, 3),
        "unchanged_seconds": round(again.seconds, 1),
        "failed_by_themselves": len(set(failed) - set(PLANTED)),
        "planted_named": len(set(failed) & set(PLANTED)),
        "memory_drift": memory_drift(peaks),
        "kills": hit,
        "converged": converged,
    }
    bounds = {**BOUNDS, "kills": Bound(at_least=kills), "converged": Bound(at_least=hit)}
    return {
        "bench": "flows",
        **figures,
        "failed": failed,
        **judge(figures, bounds, void=_void(processes, whole=whole)),
        "fit_seconds_mean": round(fitting, 3),
        "reasons": {tenant: first.outcomes[tenant]["reason"] for tenant in failed},
        "states": states(first.outcomes),
        "states_again": states(again.outcomes),
        "peak_mb": [round(max(part) / 1e6) for part in fifths(peaks)],
        "settings": {
            "tenants": tenants,
            "examples": TICKETS,
            "macros": MACROS,
            "processes": processes,
            "kills": kills,
            "seed": seed,
            "store": "SeaweedFS" if s3 else "local folder",
            "mlflow": "SQLite",
            "prefect": "a server of its own, SQLite",
            **LIMITS,
        },
        "machine": describe_machine(),
    }


def _plant(world: FlowWorld, seed: int) -> None:
    for tenant in (HANGS, HUNGRY):
        world.add(tenant, make_tenant(tenant, seed=seed, tickets=TICKETS, macros=MACROS))
    world.store.put(examples_key(POISON), b"no lake file")


def _converge(
    still: FlowWorld, folder: Path, *, names: Sequence[str], processes: int, kills: int, seed: int, step: Step
) -> tuple[int, int, bool]:
    """Kill runs at random points and run them again.

    Args:
        still: never run; every run has a copy of it.

    Returns:
        How many kills hit, how many of those converged, and whether what they are held to is whole.
    """
    step("a run that nobody disturbs", 0.0)
    calm = still.copied(folder / "calm")
    undisturbed = calm.run(processes=processes)
    expected = calm.serving()
    points, hit, converged = random.Random(seed), 0, 0
    for attempt in range(2 * kills):
        if hit == kills:
            break
        step(f"kill {hit + 1} of {kills}", (hit + 1) / (kills + 1))
        shaken = still.copied(folder / f"shaken-{attempt}")
        if not shaken.run(processes=processes, kill_after=points.uniform(0, undisturbed.training_seconds)).killed:
            continue  # it was quicker
        hit += 1
        for _ in range(_MOST_RERUNS):
            if len(shaken.run(processes=processes).of(*_DONE)) == len(names):
                break
        converged += shaken.serving() == expected and shaken.registered(names) == len(names)
    return hit, converged, len(undisturbed.of(*_DONE)) == len(names)


def memory_drift(peaks: Sequence[int]) -> float | None:
    """The highest peak of the last fifth to that of the second, less 1; None where there are too few."""
    parts = fifths(peaks)
    return round(max(parts[-1]) / max(parts[1]) - 1, 4) if len(parts) == 5 else None


def fifths(values: Sequence[int]) -> list[Sequence[int]]:
    """Five parts of about one length; none where there are fewer than five values."""
    if len(values) < 5:
        return []
    cuts = [len(values) * place // 5 for place in range(6)]
    return [values[start:end] for start, end in pairwise(cuts)]


def states(outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many tenants ended in each state."""
    found = [outcome["state"] for outcome in outcomes.values()]
    return {state: found.count(state) for state in sorted(set(found))}


def _within(step: Step, start: float, end: float) -> Step:
    """What tells a part of the whole."""
    return lambda doing, share: step(doing, start + (end - start) * share)


def _void(processes: int, *, whole: bool) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    reasons = [f"{processes} processes on {cores} cores"] if cores < processes else []
    return reasons if whole else [*reasons, "tenants failed in the run that nobody disturbed"]
