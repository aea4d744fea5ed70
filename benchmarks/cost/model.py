"""Machines and money for a fleet and its traffic. Pure arithmetic; every assumption is a field or a sentence.

The same rules hold for all sides: a model is in memory `copies` times, processors are used to `utilisation` at the peak,
one machine more than that needs is there for the one that fails, and never fewer than two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.cost.measured import Measured
from benchmarks.cost.prices import Container, Machine, Prices
from registry.errors import InvalidInput

_LEAST = 2
_MB, _GB = 1e6, 1e9
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is to be served.

    Attributes:
        tenants: each with a model.
        rate: requests a second of a tenant, in the mean.
        peak: the highest rate of all together, as a multiple of the mean.
        resident: share of the tenants whose models shall be in memory; the others load on demand.
        copies: machines that have a model in memory.
        spare: machines beyond what the peak needs.
        utilisation: of the processors at the peak.
        reserved_bytes: of a machine's memory, for the system, the proxy and what is copied.
        proxy_share: of our machines' processors, for Envoy.
        request_bytes: a request with its answer, on the wire.
    """

    tenants: int
    rate: float
    peak: float = 1.0
    resident: float = 1.0
    copies: int = 2
    spare: int = 1
    utilisation: float = 0.6
    reserved_bytes: float = 1.0 * _GB
    proxy_share: float = 0.1
    request_bytes: float = 1500.0

    def __post_init__(self) -> None:
        shares = (self.resident, self.utilisation)
        if self.tenants < 1 or self.rate < 0 or self.peak < 1 or self.copies < 1 or self.spare < 0:
            raise InvalidInput("a fleet has tenants, copies, a rate, and a peak that is no lower than the mean")
        if not all(0 < share <= 1 for share in shares) or not 0 <= self.proxy_share < 1:
            raise InvalidInput("shares are between 0 and 1")

    @property
    def rps(self) -> float:
        """Requests a second at the peak."""
        return self.tenants * self.rate * self.peak

    @property
    def models(self) -> float:
        """Models in memory, copies counted."""
        return self.tenants * self.resident * self.copies

    @property
    def gb_an_hour(self) -> float:
        """What goes over the wire, in the mean."""
        return self.tenants * self.rate * self.request_bytes * _SECONDS_AN_HOUR / _GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to serve it.

    Attributes:
        name: of the way.
        machine: which machine, and how many.
        limited_by: what there would have to be less of for fewer machines: "memory", "requests", "models an instance",
            "tenants" or "availability".
        models: that one machine holds at most.
        machines_an_hour, other_an_hour: money.
    """

    name: str
    machine: Machine
    count: int
    limited_by: str
    models: int
    machines_an_hour: float
    other_an_hour: float

    @property
    def an_hour(self) -> float:
        """Money, all of it."""
        return self.machines_an_hour + self.other_an_hour

    def saving_against(self, other: Offer) -> float:
        """The share of the other's cost that this one saves; negative where it costs more."""
        return 1 - self.an_hour / other.an_hour


def ours(demand: Demand, measured: Measured, prices: Prices) -> Offer:
    """macrofleet on machines of one's own, a server process a core behind Envoy; the cheapest kind of machine.

    Raises:
        InvalidInput: no machine of the price list holds a model.
    """
    tenant_bytes = measured.model_bytes + measured.tenant_bytes
    disk_gb = demand.tenants * demand.copies * measured.model_bytes / _GB
    store_gb = demand.tenants * measured.model_bytes / _GB
    other = (
        prices.other.load_balancer_an_hour
        + prices.other.load_balancer_a_gb * demand.gb_an_hour
        + (prices.other.disk_a_gb_month * disk_gb + prices.other.store_a_gb_month * store_gb) / prices.hours_a_month
    )
    offers = []
    for machine in prices.machines:
        # Weights are in memory once a machine, whatever the number of its processes: they map the same files.
        room = machine.memory_bytes - demand.reserved_bytes - machine.cores * measured.process_bytes
        offers.append(
            _offer(
                "macrofleet",
                demand,
                machine,
                models=math.floor(room / tenant_bytes),
                rps=machine.cores * (1 - demand.proxy_share) * measured.rps,
                other_an_hour=other,
            )
        )
    return _cheapest(offers, "macrofleet")


def multi_model(demand: Demand, measured: Measured, prices: Prices, container: Container) -> Offer:
    """A SageMaker multi-model endpoint with this container; the cheapest kind of instance.

    Raises:
        InvalidInput: no instance of the price list holds a model.
    """
    limit = prices.multi_model.models_an_instance
    offers = []
    for machine in prices.endpoint_instances:
        if machine.multi_model:
            room = machine.memory_bytes - demand.reserved_bytes - container.process_mb * _MB
            by_memory = math.floor(room / (container.model_mb * _MB))
            offers.append(
                _offer(
                    f"multi-model endpoint: {container.name}",
                    demand,
                    machine,
                    models=min(limit, by_memory),
                    rps=machine.cores * (container.core_rps or measured.rps),
                    other_an_hour=_endpoint_other(demand, measured, prices),
                    at_limit="models an instance" if by_memory >= limit else "memory",
                )
            )
    return _cheapest(offers, container.name)


def dedicated(demand: Demand, measured: Measured, prices: Prices) -> Offer:
    """An endpoint a tenant, of `copies` instances each (two or more are what AWS asks for), the cheapest kind."""
    an_instance = [
        (demand.rate * demand.peak / (machine.cores * measured.rps * demand.utilisation), machine)
        for machine in prices.endpoint_instances
    ]
    offers = []
    for share, machine in an_instance:
        count = demand.tenants * max(demand.copies, math.ceil(share))
        offers.append(
            Offer(
                name="an endpoint a tenant",
                machine=machine,
                count=count,
                limited_by="tenants",
                models=1,
                machines_an_hour=count * machine.an_hour,
                other_an_hour=_endpoint_other(demand, measured, prices),
            )
        )
    return min(offers, key=lambda offer: offer.an_hour)


def _endpoint_other(demand: Demand, measured: Measured, prices: Prices) -> float:
    store_gb = demand.tenants * measured.model_bytes / _GB
    return (
        prices.other.endpoint_a_gb * demand.gb_an_hour + prices.other.store_a_gb_month * store_gb / prices.hours_a_month
    )


def _offer(
    name: str,
    demand: Demand,
    machine: Machine,
    *,
    models: int,
    rps: float,
    other_an_hour: float,
    at_limit: str = "memory",
) -> Offer | None:
    if models < 1:
        return None
    by_models = math.ceil(demand.models / models)
    by_requests = math.ceil(demand.rps / (rps * demand.utilisation))
    needed = max(by_models, by_requests, demand.copies)
    count = max(needed + demand.spare, _LEAST)
    if count > needed + demand.spare or needed > max(by_models, by_requests):
        limited_by = "availability"
    else:
        limited_by = at_limit if by_models >= by_requests else "requests"
    return Offer(
        name=name,
        machine=machine,
        count=count,
        limited_by=limited_by,
        models=models,
        machines_an_hour=count * machine.an_hour,
        other_an_hour=other_an_hour,
    )


def _cheapest(offers: Iterable[Offer | None], what: str) -> Offer:
    found = [offer for offer in offers if offer is not None]
    if not found:
        raise InvalidInput(
            f"no machine of the price list holds a single model of {what}", remedy="Add a larger one to the list."
        )
    return min(found, key=lambda offer: (offer.an_hour, offer.count))


def assumptions(demand: Demand, measured: Measured, prices: Prices) -> Sequence[str]:
    """Every assumption, as sentences."""
    tenant_mb = (measured.model_bytes + measured.tenant_bytes) / _MB
    return (
        f"{demand.tenants:,} tenants at {demand.rate:g} requests a second each in the mean, {demand.rps:,.0f} at the peak.",
        f"{demand.resident:.0%} of the models are in memory, on {demand.copies} machines each; on every side.",
        (
            f"Processors are used to {demand.utilisation:.0%} at the peak; {demand.spare} machine more than that is there "
            "for one that fails; on the sides that share machines."
        ),
        (
            f"Ours, measured on one core: {measured.rps:,.0f} requests a second, {tenant_mb:.1f} MB a tenant (all of its weights "
            f"in the page cache), {measured.process_bytes / _MB:.0f} MB a process. A core of the price list is taken to be as "
            f"quick as that one. {demand.proxy_share:.0%} of our processors are Envoy's."
        ),
        (
            f"Not in memory, a first answer takes {1000 * measured.disk_seconds:.1f} ms from local disk and "
            f"{1000 * measured.store_seconds:.0f} ms from a store on loopback; a real one is farther away."
        ),
        (
            f"Multi-model endpoints have at most {prices.multi_model.models_an_instance} models an instance, and no more than "
            "fit into memory."
        ),
        (
            f"{demand.reserved_bytes / _GB:g} GB of every machine are the system's. {demand.request_bytes:g} bytes are a request "
            "and its answer on the wire."
        ),
        (
            "Not counted: people's time, building and running Envoy and Kubernetes (ours), logs and metrics, traffic between "
            "zones, training. No discounts on any side."
        ),
        f"List prices as of {prices.as_of}, check yours.",
    )
