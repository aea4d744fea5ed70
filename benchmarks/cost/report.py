"""`macrofleet cost`: the ways to serve a fleet beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cost.measured import Measured
from benchmarks.cost.model import Demand, Offer, assumptions, dedicated, multi_model, ours
from benchmarks.cost.prices import Prices


def compare(demand: Demand, measured: Measured, prices: Prices, *, core_rps: float | None = None) -> dict[str, Any]:
    """All offers, what ours saves against each, and AWS's own claim beside what its endpoints save here.

    Args:
        core_rps: requests a second of a core of a multi-model endpoint; None takes ours, which is in its favour.
    """
    our = ours(demand, measured, prices)
    alone = dedicated(demand, measured, prices)
    shared = [
        multi_model(demand, measured, prices, container, core_rps=core_rps)
        for container in prices.multi_model.containers
    ]
    best = min(shared, key=lambda offer: offer.an_hour)
    offers = [_described(offer, demand, prices) for offer in (our, *shared, alone)]
    return {
        "bench": "cost",
        "saved_against_multi_model": round(our.saving_against(best), 4),
        "saved_against_dedicated": round(our.saving_against(alone), 4),
        "multi_model_saves_against_dedicated": round(best.saving_against(alone), 4),
        "multi_model_claims_against_dedicated": prices.multi_model.claimed_saving,
        "saved_against_each": {offer.name: round(our.saving_against(offer), 4) for offer in (*shared, alone)},
        "offers": offers,
        "currency": prices.currency,
        "prices_as_of": prices.as_of,
        "settings": {
            "tenants": demand.tenants,
            "rate": demand.rate,
            "peak": demand.peak,
            "resident": demand.resident,
            "copies": demand.copies,
            "spare": demand.spare,
            "utilisation": demand.utilisation,
            "core_rps": measured.rps,
            "multi_model_core_rps": measured.rps if core_rps is None else core_rps,
        },
        "assumptions": [
            *assumptions(demand, measured, prices),
            f"A core of a multi-model endpoint answers {core_rps:,.0f} requests a second."
            if core_rps is not None
            else "A core of a multi-model endpoint answers as many requests as ours, which is in its favour.",
        ],
        "measured": list(measured.sources),
    }


def _described(offer: Offer, demand: Demand, prices: Prices) -> dict[str, Any]:
    month = offer.an_hour * prices.hours_a_month
    return {
        "name": offer.name,
        "machine": offer.machine.name,
        "count": offer.count,
        "limited_by": offer.limited_by,
        "models_a_machine": offer.models,
        "machines_an_hour": round(offer.machines_an_hour, 4),
        "other_an_hour": round(offer.other_an_hour, 4),
        "an_hour": round(offer.an_hour, 4),
        "a_month": round(month, 2),
        "a_tenant_and_month": round(month / demand.tenants, 4),
    }


def lines(report: dict[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Columns and rows for people."""
    columns = ["", "machines", "limited by", f"{report['currency']} an hour", "a month", "a tenant and month"]
    rows = [
        [
            offer["name"],
            f"{offer['count']:,} {offer['machine']}",
            offer["limited_by"],
            f"{offer['an_hour']:,.2f}",
            f"{offer['a_month']:,.0f}",
            f"{offer['a_tenant_and_month']:,.3f}",
        ]
        for offer in report["offers"]
    ]
    return columns, rows


def sentences(report: dict[str, Any]) -> Sequence[str]:
    """The comparisons, for people."""
    return (
        f"against multi-model endpoints: {report['saved_against_multi_model']:.1%} saved (the cheapest container)",
        f"against an endpoint a tenant: {report['saved_against_dedicated']:.1%} saved",
        (
            f"multi-model endpoints against an endpoint a tenant: {report['multi_model_saves_against_dedicated']:.1%} saved "
            f"here; AWS says {report['multi_model_claims_against_dedicated']:.0%}"
        ),
    )
