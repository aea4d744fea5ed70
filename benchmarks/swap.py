"""`macrofleet bench swap`: versions replaced under load."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import Client, Operator
from benchmarks.consistency import Answered, Published, find_mixed, parse_answer, taken_over
from benchmarks.expected import Expectation, agrees
from benchmarks.fleets import SyntheticFleet, SyntheticModel, serve, tenant_names, write_catalogues
from benchmarks.load import Run, Samples, describe, joined, percentiles, run_load, running
from benchmarks.machine import describe_machine
from benchmarks.other_program import build_other_program
from benchmarks.stage import Stage, TenantLoad, changed_speed, load_bodies, measured_capacity, staged
from benchmarks.verdicts import Bound, judge
from registry.console_output import Step
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.model.program import publish_program, read_spec
from training.programs.release import built_folder

BOUNDS = {
    "swaps": Bound(at_least=200),
    "failed": Bound(at_most=0),
    "mixed": Bound(at_most=0),
    "p99_ratio": Bound(at_most=2),
}
_MACROS = 10
_ROLLBACKS = 10
_PATIENCE_SECONDS = 10.0


def measure_swap(
    *, tenants: int, swaps: int, seconds: float, load_share: float, connections: int, step: Step
) -> dict[str, Any]:
    """Swaps under open-loop load, spread evenly over tenants and time; the one in the middle goes to another program.

    Every version has macros of its own, and every answer is held to the scores that the runtime gives for the version
    that it names, and to the time at which that version was wanted (`benchmarks.consistency`). A swap counts when the
    new version has answered.

    Args:
        tenants: in the fleet, with equal shares of the load.
        swaps: each to a version that the server never saw, which lies in the store.
        seconds: of load with swaps; there is as much without, half before and half after.
        load_share: of the measured capacity.
        connections: of the closed loop that finds the capacity.

    Returns:
        `swaps`, `failed` (answers other than 200), `mixed`, `p99_ratio` (p99 with swaps to p99 without), how long a swap
        and a roll-back took until the first answer, and the machine.
    """
    names = tenant_names(tenants)
    shares = np.full(tenants, 1 / tenants)
    with staged(step, models_at_rest=2 * (tenants + swaps)) as stage, built_folder("bag") as program:
        step("building another program", 0.05)
        other = stage.folder / "other-program"
        build_other_program(other)
        step(f"publishing {tenants + swaps} models", 0.1)
        show = _Show(stage, names, swaps, other)
        step("computing what each must answer", 0.2)
        expectation = Expectation([program, other], load_bodies())
        settings = {
            "memory_bytes": 4 * tenants * show.fleet.model_bytes,
            "trusted_programs": f"{stage.program},{show.other_digest}",
            "fleet_poll_seconds": 1,
        }
        step("starting the server", 0.3)
        with stage.server(settings) as server:
            load = TenantLoad(server.url, names, core=stage.cores.load)
            load.touch_all()
            step("finding the capacity", 0.35)
            capacity = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
            rate = load_share * capacity
            operator = Operator(server.operator_url)
            quiet = []
            for part in range(2):
                step("without swaps", 0.4 + 0.5 * part)
                quiet.append(run_load(load.offered(shares, rate=rate, seconds=seconds / 2, keep_answers=True)))
                if not part:
                    step(f"{swaps} swaps", 0.5)
                    with running(load.offered(shares, rate=rate, seconds=seconds, keep_answers=True)) as run:
                        show.play(run, seconds, operator)
                        during = run.result()
            later = measured_capacity(load, shares, seconds=min(5.0, seconds), connections=connections)
            step("rolling back", 0.95)
            with Client(server.url) as client:
                changed = names[: min(tenants, swaps, _ROLLBACKS)]
                rollbacks = [show.roll_back(name, client, operator, load.body(0)) for name in changed]
    runs = [quiet[0], during, quiet[1]]
    answers = _answers(load, joined(runs))
    problems = find_mixed(show.history, answers) + _wrong_scores(show, expectation, answers)
    took = taken_over(show.history, answers)
    waits = np.array([took[version] for version in show.swapped if version in took])
    failed = sum(int((run.status != 200).sum()) for run in runs)
    during_p99, quiet_p99 = (percentiles(run.latency)["p99_ms"] for run in (during, joined(quiet)))
    figures = {
        "swaps": len(waits),
        "failed": failed,
        "mixed": len(problems),
        "p99_ratio": round(during_p99 / quiet_p99, 2),
    }
    void = [*stage.cores.void, *changed_speed([capacity, later])]
    if not all(run.kept_schedule for run in runs):
        void.append("the generator was late")
    return {
        "bench": "swap",
        **figures,
        **judge(figures, {**BOUNDS, "swaps": Bound(at_least=swaps)}, void=void),
        "to_another_program": sum(version in took for version in show.of_the_other),
        "swap_took": percentiles(waits),
        "rollback_took": percentiles(np.array(rollbacks)),
        "with_swaps": describe(during),
        "without_swaps": describe(joined(quiet)),
        "problems": problems[:10],
        "settings": {
            "tenants": tenants,
            "swaps": swaps,
            "seconds": seconds,
            "load_share": load_share,
            "capacity_rps": round(capacity, 1),
            "model_bytes": show.fleet.model_bytes,
            "store": "local folder",
            "told_by": "POST /admin/fleet/refresh",
        },
        "machine": describe_machine(),
    }


class _Show:
    """The versions that are published one after the other, and what was published when."""

    def __init__(self, stage: Stage, names: Sequence[str], swaps: int, other: Path) -> None:
        self._store = stage.store
        self._swaps = swaps
        self.fleet = stage.models(len(names) + swaps, macros=_MACROS)
        self.other_digest = publish_program(stage.store, other)
        others = SyntheticFleet(program=self.other_digest, spec=read_spec(other), macros=_MACROS, models=1)
        # By place: the first of each tenant, then the swaps, tenant by tenant.
        order = [(names[place % len(names)], f"m-v{place // len(names)}") for place in range(len(names) + swaps)]
        middle = len(names) + swaps // 2
        models = self.fleet.make(order)
        self.fleet.publish(stage.put, models)
        (models[middle],) = others.make([order[middle]])
        others.publish(stage.put, [models[middle]])
        self._makers = {self.fleet.program: self.fleet, self.other_digest: others}
        self.models = {model.manifest.version: model for model in models}
        self.of_the_other = [models[middle].manifest.version]
        self._waiting = iter(models[len(names) :])
        self.swapped: list[str] = []
        prefixes = {name: [prefix for tenant, prefix in order if tenant == name] for name in names}
        write_catalogues(stage.put, {name: self.fleet.catalogue(found) for name, found in prefixes.items()})
        self.history: dict[str, list[Published]] = {name: [] for name in names}
        self._prefixes = dict(zip((model.manifest.version for model in models), (p for _, p in order), strict=True))
        for model in models[: len(names)]:
            self._note(model)
        update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models[: len(names)]})
        os.sync()

    def play(self, run: Run, seconds: float, operator: Operator) -> None:
        """Publish all swaps, evenly over the run."""
        for place, model in enumerate(self._waiting):
            due = run.began + seconds * (place + 0.5) / self._swaps
            time.sleep(max(0.0, due - time.monotonic()))
            self._note(model)
            self.swapped.append(model.manifest.version)
            update_fleet(self._store, {model.tenant: serve(model.manifest)})
            operator.refresh_fleet()

    def roll_back(self, tenant: str, client: Client, operator: Operator, body: bytes) -> float:
        """Have a tenant's previous version serve again; seconds from the fleet's change until it answers."""
        wanted = read_fleet(self._store).entries[tenant].previous
        began = time.monotonic()
        update_fleet(self._store, {tenant: _back})
        operator.refresh_fleet()
        while time.monotonic() < began + _PATIENCE_SECONDS:
            _, answer = client.ask(tenant, body)
            if parse_answer(answer)[0] == wanted:
                return time.monotonic() - began
        raise RuntimeError(f"{tenant} was not rolled back within {_PATIENCE_SECONDS:g} s")

    def scores(self, expectation: Expectation, version: str) -> Any:
        """What a version must answer, ticket by ticket."""
        model = self.models[version]
        return expectation.scores(self._makers[model.manifest.program], model)

    def _note(self, model: SyntheticModel) -> None:
        version = model.manifest.version
        published = Published(version=version, at=time.monotonic(), prefix=self._prefixes[version])
        self.history[model.tenant].append(published)


def _back(entry: FleetEntry | None) -> FleetEntry:
    assert entry is not None
    return entry.model_copy(
        update={
            "version": entry.previous,
            "manifest": entry.previous_manifest,
            "previous": entry.version,
            "previous_manifest": entry.manifest,
        }
    )


def _answers(load: TenantLoad, samples: Samples) -> list[Answered]:
    tenants = load.tenant_of(samples)
    found = []
    for place in np.flatnonzero(samples.status == 200).tolist():
        version, macros = parse_answer(samples.answers[place])
        found.append(
            Answered(
                tenant=load.tenants[tenants[place]],
                sent=float(samples.sent[place]),
                done=float(samples.done[place]),
                version=version,
                macros=macros,
                pick=int(samples.picks[place]),
            )
        )
    return found


def _wrong_scores(show: _Show, expectation: Expectation, answers: Sequence[Answered]) -> list[str]:
    """Answers whose scores are not those of the version that they name."""
    by_version: dict[str, list[Answered]] = {}
    for answer in answers:
        if answer.version in show.models:
            by_version.setdefault(answer.version, []).append(answer)
    problems = []
    for version, found in by_version.items():
        scores = show.scores(expectation, version)
        problems += [
            f"{answer.tenant}: scores that version {version} does not give"
            for answer in found
            if not agrees(answer.macros, scores[answer.pick % len(scores)])
        ]
    return problems
