"""`macrofleet evaluate`: fit on a file's train rows, score its test rows, store nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput
from registry.runtime import Program
from training.fitting import FitSettings
from training.importers import Imported
from training.trainer import Trained, Trainer


def evaluate_tenants(
    tenants: Mapping[str, Imported],
    program: Program,
    *,
    seed: int,
    step: Callable[[str, float], None],
) -> dict[str, Any]:
    """Judge tenants.

    Args:
        tenants: name to examples, each with a split.
        program: that models are fitted for.
        step: told what is going on and the finished share.

    Returns:
        `top1`, `top3` (fractions of all in-scope test rows), `fit_seconds`, `examples`, `macros`, `model_bytes` (sums);
        `oos_recall` and `coverage` at the threshold; the same by tenant under `tenants` where there are several.

    Raises:
        InvalidInput: no tenant has test rows.
        NotEnoughData: a tenant has too little to train on.
    """
    figures = {}
    trainer = Trainer(program, FitSettings(seed=seed))
    for place, (tenant, found) in enumerate(tenants.items()):

        def progress(share: float, tenant: str = tenant, place: int = place) -> None:
            step(f"fitting {tenant}", (place + share) / len(tenants))

        with tempfile.TemporaryDirectory(prefix="macrofleet-bundle-") as folder:
            figures[tenant] = trainer.train(tenant, found.examples, Path(folder), progress=progress)
    total = _total(list(figures.values()))
    if not total["test_rows"]:
        raise InvalidInput(
            "there are no test rows to score: every row with a known label is marked for training",
            remedy="Mark some with split=test, or leave the column out to have the data cut here.",
        )
    if len(figures) > 1:
        total["tenants"] = {tenant: _total([trained]) for tenant, trained in figures.items()}
    return total


def _total(trained: list[Trained]) -> dict[str, Any]:
    rows = sum(one.evaluation.rows for one in trained)

    def mean(name: str) -> float | None:
        figures = [(getattr(one.evaluation, name), one.evaluation.rows) for one in trained]
        return round(sum(float(value) * count for value, count in figures if count) / rows, 6) if rows else None

    recalls = [one.evaluation.oos_recall for one in trained if one.evaluation.oos_recall is not None]
    return {
        "top1": mean("top1"),
        "top3": mean("top3"),
        "fit_seconds": round(sum(one.fit_seconds for one in trained), 3),
        "examples": sum(one.examples for one in trained),
        "macros": sum(one.macros for one in trained),
        "model_bytes": sum(file.size for one in trained for file in one.manifest.files.values()),
        "test_rows": rows,
        "coverage": mean("coverage"),
        **({"oos_recall": round(sum(recalls) / len(recalls), 6)} if recalls else {}),
    }
