"""`macrofleet cost`: the ways to serve a fleet beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.cost.measured import Measured
from benchmarks.cost.model import Demand, Offer, assumptions, dedicated, multi_model, ours
from benchmarks.cost.prices import Container, Prices
from benchmarks.peers.marks import least_bytes_per_tenant
from benchmarks.peers.results import PeerRun


def compare(demand: Demand, measured: Measured, prices: Prices) -> dict[str, Any]:
    """All offers, what ours saves against each, and AWS's own claim beside what its endpoints save here."""
    our = ours(demand, measured, prices)
    alone = dedicated(demand, measured, prices)
    containers = prices.multi_model.containers
    shared = [multi_model(demand, measured, prices, container) for container in containers]
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
        },
        "containers": [container.model_dump() for container in containers],
        "assumptions": [*assumptions(demand, measured, prices), *map(_assumed, containers)],
        "measured": list(measured.sources),
    }


def _assumed(container: Container) -> str:
    answers = (
        "as many requests as ours" if container.core_rps is None else f"{container.core_rps:,.0f} requests a second"
    )
    return (
        f"Multi-model endpoint, {container.name}: {container.model_mb:g} MB a model, {container.process_mb:g} MB beside them; a "
        f"core answers {answers}."
    )


def measured_containers(prices: Prices, run: PeerRun) -> Prices:
    """Prices with what a run of the comparison measured in the place of what containers say of themselves.

    Of a server that was measured: the memory of a tenant (resident), and the most requests a second that its core answered.
    """
    found = []
    for container in prices.multi_model.containers:
        peer = container.peer or ""
        memory = least_bytes_per_tenant(run, peer, "resident")
        rates = [float(cell.figures["rps"]) for cell in run.select(peer=peer, step="warm", outcome="measured")]
        update = {} if memory is None or memory <= 0 else {"model_mb": round(memory / 1e6, 2)}
        found.append(container.model_copy(update={**update, **({"core_rps": max(rates)} if rates else {})}))
    return prices.model_copy(update={"multi_model": prices.multi_model.model_copy(update={"containers": tuple(found)})})


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
