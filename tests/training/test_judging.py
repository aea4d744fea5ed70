from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from registry.model.runtime import Program
from training import judging
from training.examples import Example
from training.fitting import FitSettings
from training.importers import Imported
from training.judging import Wish, evaluate_tenants

WORDS = {"ship": ["parcel", "courier", "tracking"], "refund": ["money", "charge"], "login": ["password", "locked"]}


def tenant(seed: int, rows: int) -> Imported:
    """Tickets of three macros, every fourth for the test, and a few test rows that nothing fits."""
    rng = np.random.default_rng(seed)
    examples = []
    for number in range(rows):
        macro = list(WORDS)[number % 3]
        body = " ".join([*rng.choice(WORDS[macro], 1), *rng.choice(["please", "hello", "my", "the", "is", "not"], 4)])
        split = "test" if number % 4 == 3 else "train"
        examples.append(Example(ticket_id=str(number), body=body, macro_id=macro, split=split))
    outside = [
        replace(row, ticket_id=f"x{n}", body=f"zebra {n}", macro_id=None) for n, row in enumerate(examples[3::20])
    ]
    return Imported(examples=[*examples, *outside])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "FitSettings", lambda seed: FitSettings(seed=seed, least_steps=40))


@pytest.mark.usefixtures("quick")
def test_a_report_has_all_figures_of_tenants_together_and_apart(bag: Program) -> None:
    tenants = {"acme": tenant(1, 120), "globex": tenant(2, 60)}
    told: list[float] = []
    wish = Wish(seeds=(0, 1), baselines=True, per_macro=True)
    report = evaluate_tenants(tenants, bag, wish=wish, step=lambda _text, share: told.append(share))
    figures = {"top1", "top3", "mrr", "ece", "coverage", "precision_at_threshold", "oos_recall", "in_scope_accuracy"}
    one, other = report["tenants"]["acme"], report["tenants"]["globex"]
    for found in (report, one, other):
        assert figures <= found.keys()
        assert found["interval"].keys() == figures
        assert all(0 <= found[name] <= 1 for name in figures)
        assert found["baselines"].keys() == {"tfidf", "most_frequent"}
        assert found["baselines"]["tfidf"]["top1"] > found["baselines"]["most_frequent"]["top1"]
        assert found["top1"] > 0.6
    assert (one["test_rows"], other["test_rows"], report["test_rows"]) == (30, 15, 45)
    assert (one["oos_rows"], report["oos_rows"]) == (6, 9)
    for name in ("top1", "top3", "mrr", "coverage", "in_scope_accuracy"):
        assert report[name] == pytest.approx((2 * one[name] + other[name]) / 3, abs=1e-4), "every row counts the same"
    assert report["oos_recall"] == pytest.approx((2 * one["oos_recall"] + other["oos_recall"]) / 3, abs=1e-4)
    assert report["top1"] == pytest.approx(np.mean([seed["top1"] for seed in report["seeds"]]), abs=1e-5)
    assert report["model_bytes"] == one["model_bytes"] + other["model_bytes"]
    assert report["fit_seconds"] == pytest.approx(one["fit_seconds"] + other["fit_seconds"], abs=0.01)
    assert [row["support"] for row in report["per_macro"]["acme"]] == [10, 10, 10]
    assert sum(bin_["rows"] for bin_ in report["reliability"]) == 2 * 45
    assert told == sorted(told)


@pytest.mark.usefixtures("quick")
def test_what_is_not_asked_for_is_not_there(bag: Program) -> None:
    tenants = {"acme": tenant(1, 60)}
    report: dict[str, Any] = evaluate_tenants(tenants, bag, wish=Wish(), step=lambda _text, _share: None)
    assert report.keys() & {"baselines", "seeds", "per_macro", "tenants"} == set()
    inside = Imported(examples=[row for row in tenants["acme"].examples if row.macro_id is not None])
    report = evaluate_tenants({"acme": inside}, bag, wish=Wish(), step=lambda _text, _share: None)
    assert report.keys() & {"oos_recall", "in_scope_accuracy", "oos_rows"} == set()
