"""`macrofleet evaluate`: fit on a file's train rows, score its test rows, store nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput
from registry.model.runtime import Program
from training.baselines import BASELINES
from training.calibration import DEFAULT_PRECISION
from training.choosing import make_trainer
from training.evaluation import SHOWN, Judged, evaluate, intervals, macro_table, reliability
from training.fitting import FitSettings
from training.importers import Imported
from training.trainer import Trained

Step = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a report is to hold.

    Attributes:
        seeds: of the fits, one after the other; figures are means over them.
        precision: that thresholds are chosen for.
        baselines: judge those, too.
        per_macro: with a table of each tenant's macros, of the first seed.
    """

    seeds: tuple[int, ...] = (0,)
    precision: float = DEFAULT_PRECISION
    baselines: bool = False
    per_macro: bool = False


def evaluate_tenants(
    tenants: Mapping[str, Imported], program: Program | Sequence[Program], *, wish: Wish, step: Step
) -> dict[str, Any]:
    """Judge tenants.

    Args:
        tenants: name to examples, each with a split.
        program: that models are fitted for; of several, each tenant gets the one that does best on its validation rows.
        step: told what is going on and the finished share.

    Returns:
        Figures over all test rows of all tenants, means over seeds: those of `Evaluation`; `interval` (95 %) by their
        names; `threshold` and `temperature` (means); `reliability`; `fit_seconds`, `examples`, `macros`, `model_bytes`
        (sums over tenants); `baselines` by name; `seeds`, each with its top-1 and top-3; under `tenants` the same of each
        where there are several, under `per_macro` a table by tenant.

    Raises:
        InvalidInput: no tenant has test rows.
        NotEnoughData: a tenant has too little to train on.
    """
    runs = []
    for turn, seed in enumerate(wish.seeds):
        trainer = make_trainer(program, FitSettings(seed=seed))
        trained: dict[str, Trained] = {}
        for place, (tenant, found) in enumerate(tenants.items()):

            def progress(share: float, tenant: str = tenant, done: int = turn * len(tenants) + place) -> None:
                step(f"fitting {tenant}", (done + share) / (len(tenants) * len(wish.seeds)))

            with tempfile.TemporaryDirectory(prefix="macrofleet-bundle-") as folder:
                trained[tenant] = trainer.train(
                    tenant, found.examples, Path(folder), precision=wish.precision, progress=progress
                )
        runs.append(trained)
    first = runs[0]
    if not any(one.evaluation.rows for one in first.values()):
        raise InvalidInput(
            "there are no test rows to score: every row with a known label is marked for training",
            remedy="Mark some with split=test, or leave the column out to have the data cut here.",
        )
    total = _figures([list(trained.values()) for trained in runs])
    baselines: dict[str, dict[str, Judged]] = {tenant: {} for tenant in tenants}
    if wish.baselines:
        total["baselines"] = {}
        for name, judged_by in BASELINES.items():
            step(f"fitting the baseline {name}", 1.0)
            began = time.perf_counter()
            for tenant, one in first.items():
                baselines[tenant][name] = judged_by(one.fitted, one.test)
            seconds = time.perf_counter() - began
            total["baselines"][name] = _baseline([found[name] for found in baselines.values()]) | {
                "fit_seconds": round(seconds, 3)
            }
    if len(wish.seeds) > 1:
        total["seeds"] = [
            {"seed": seed, "top1": figures["top1"], "top3": figures["top3"]}
            for seed, trained in zip(wish.seeds, runs, strict=True)
            if (figures := evaluate(Judged.together([one.judged for one in trained.values()])).figures())
        ]
    if len(tenants) > 1:
        total["tenants"] = {}
        for tenant in tenants:
            total["tenants"][tenant] = _figures([[trained[tenant]] for trained in runs])
            if wish.baselines:
                total["tenants"][tenant]["baselines"] = {
                    name: _baseline([judged]) for name, judged in baselines[tenant].items()
                }
    if wish.per_macro:
        total["per_macro"] = {tenant: macro_table(one.judged) for tenant, one in first.items()}
    return total


def _figures(runs: Sequence[Sequence[Trained]]) -> dict[str, Any]:
    """The figures of some tenants together: for each seed what was trained, one a tenant."""
    together = [Judged.together([one.judged for one in run]) for run in runs]
    found = _means([evaluate(judged).figures() for judged in together])
    bounds = [intervals(judged) for judged in together]
    inside = [judged.of(judged.in_scope) for judged in together]
    everything = Judged.together(inside)
    first = runs[0]
    return {
        # Not judged is not bad: these stand there in any case.
        **dict.fromkeys(("top1", "top3", "mrr", "ece", "coverage")),
        **found,
        "interval": {
            name: [round(sum(bound[name][end] for bound in bounds) / len(bounds), 6) for end in (0, 1)]
            for name in bounds[0]
            if name in found and all(name in bound for bound in bounds)
        },
        "threshold": _mean([one.manifest.threshold for run in runs for one in run]),
        "temperature": _mean([one.manifest.metrics["temperature"] for run in runs for one in run]),
        "fit_seconds": round(sum(one.fit_seconds for run in runs for one in run) / len(runs), 3),
        "examples": sum(one.examples for one in first),
        "macros": sum(one.macros for one in first),
        "model_bytes": sum(file.size for one in first for file in one.manifest.files.values()),
        "program": " and ".join(sorted({one.program for one in first})),
        **({"program_reason": first[0].program_reason} if len(first) == 1 and first[0].program_reason else {}),
        "reliability": reliability(everything.confidence, everything.rank == 0),
    }


def _baseline(several: Sequence[Judged]) -> dict[str, float]:
    judged = Judged.together(several)
    inside = judged.of(judged.in_scope)
    return {
        "top1": round(float(inside.within(1).mean()), 6) if len(inside.rank) else 0.0,
        "top3": round(float(inside.within(SHOWN).mean()), 6) if len(inside.rank) else 0.0,
    }


def _means(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's mean; counts of rows, which are the same in all, stay whole."""
    return {
        name: several[0][name] if name.endswith("_rows") else _mean([one[name] for one in several if name in one])
        for name in several[0]
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
