"""The cost model: arithmetic by hand, invariants, and files that are not what they must be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.cost.measured import Measured, read_measured
from benchmarks.cost.model import Demand, dedicated, multi_model, ours
from benchmarks.cost.prices import DEFAULT, Container, Machine, MultiModel, Other, Prices, read_prices
from benchmarks.cost.report import compare, measured_containers
from benchmarks.peers.results import Cell, PeerRun
from macrofleet import app
from registry.errors import InvalidInput

MEASURED = Measured(
    model_bytes=10e6,
    tenant_bytes=0.0,
    process_bytes=500e6,
    rps=1000.0,
    warm_seconds=0.001,
    disk_seconds=0.003,
    store_seconds=0.04,
    disk_p99_seconds=0.006,
    store_p99_seconds=0.08,
    sources=(),
)
FREE = Other(load_balancer_an_hour=0, load_balancer_a_gb=0, endpoint_a_gb=0, store_a_gb_month=0, disk_a_gb_month=0)
CONTAINER = Container(name="one process", model_mb=50, process_mb=1000)
GIB = 1024**3


def machine(name: str, cores: int, gib: float, an_hour: float) -> Machine:
    return Machine(name=name, cores=cores, memory_gib=gib, an_hour=an_hour)


PRICES = Prices(
    as_of="a day",
    currency="USD",
    hours_a_month=730,
    machines=(machine("small", 2, 16, 1.0), machine("large", 8, 16, 3.0)),
    endpoint_instances=(machine("ml.small", 2, 8, 1.0), machine("ml.large", 4, 64, 2.0)),
    other=FREE,
    multi_model=MultiModel(models_an_instance=500, claimed_saving=0.9, containers=(CONTAINER,)),
)
DEMAND = Demand(tenants=5000, rate=2.0)
DEMANDS = st.builds(
    Demand,
    tenants=st.integers(1, 200_000),
    rate=st.floats(0, 10),
    peak=st.floats(1, 5),
    resident=st.floats(0.01, 1),
    copies=st.integers(1, 3),
    spare=st.integers(0, 3),
    utilisation=st.floats(0.1, 1),
)


def test_machines_are_as_many_as_memory_or_requests_need_and_one() -> None:
    offer = ours(DEMAND, MEASURED, PRICES)
    # 16 GiB - 1 GB - two processes hold 1,517 models of 10 MB: 7 for 10,000.
    # Two cores answer 1,080 requests a second: 10 for 10,000.
    assert (offer.machine.name, offer.count, offer.limited_by) == ("small", 11, "requests")
    assert offer.models == math.floor((16 * GIB - 2e9) / 10e6)
    assert offer.an_hour == 11.0
    quiet = ours(replace(DEMAND, rate=0.1), MEASURED, PRICES)
    assert (quiet.count, quiet.limited_by) == (8, "memory")
    few = ours(Demand(tenants=3, rate=0.1), MEASURED, PRICES)
    assert (few.count, few.limited_by) == (3, "availability")


def test_a_multi_model_endpoint_is_bound_by_its_limit_or_its_memory() -> None:
    offer = multi_model(DEMAND, MEASURED, PRICES, CONTAINER)
    assert (offer.machine.name, offer.count, offer.limited_by, offer.models) == (
        "ml.large",
        21,
        "models an instance",
        500,
    )
    large = multi_model(DEMAND, MEASURED, PRICES, replaced(CONTAINER, model_mb=300))
    assert (large.limited_by, large.models) == ("memory", math.floor((64 * GIB - 2e9) / 300e6))
    slow = multi_model(DEMAND, MEASURED, PRICES, replaced(CONTAINER, core_rps=50.0))
    assert (slow.count, slow.limited_by) == (math.ceil(10_000 / (2 * 50 * 0.6)) + 1, "requests")


def replaced(container: Container, **values: float) -> Container:
    return container.model_copy(update=values)


def test_an_endpoint_a_tenant_has_its_copies_and_grows_with_its_requests() -> None:
    assert (dedicated(DEMAND, MEASURED, PRICES).count, dedicated(DEMAND, MEASURED, PRICES).an_hour) == (
        10_000,
        10_000.0,
    )
    busy = dedicated(Demand(tenants=2, rate=3000.0), MEASURED, PRICES)
    assert busy.machine.name in ("ml.small", "ml.large")
    assert busy.an_hour == 2 * math.ceil(3000 / (2 * 1000 * 0.6)) * 1.0


def test_the_report_has_both_comparisons_and_the_claim() -> None:
    report = compare(DEMAND, MEASURED, PRICES)
    assert report["saved_against_multi_model"] == round(1 - 11 / 42, 4)
    assert report["saved_against_dedicated"] == round(1 - 11 / 10_000, 4)
    assert report["multi_model_saves_against_dedicated"] == round(1 - 42 / 10_000, 4)
    assert report["multi_model_claims_against_dedicated"] == 0.9


@given(DEMANDS)
def test_what_is_rented_carries_the_demand_even_when_one_fails(demand: Demand) -> None:
    offer = ours(demand, MEASURED, PRICES)
    left = offer.count - demand.spare
    cores = left * offer.machine.cores * 0.9
    assert cores * MEASURED.rps * demand.utilisation >= demand.rps * (1 - 1e-9)
    assert left * offer.models >= demand.models * (1 - 1e-9)
    assert offer.count >= 2
    assert left >= demand.copies or offer.count == 2


@given(DEMANDS, st.floats(1, 3))
def test_more_demand_never_costs_less(demand: Demand, factor: float) -> None:
    more = replace(demand, tenants=math.ceil(demand.tenants * factor), rate=demand.rate * factor)
    for offered in (ours, dedicated):
        assert offered(more, MEASURED, PRICES).an_hour >= offered(demand, MEASURED, PRICES).an_hour
    shared = [multi_model(each, MEASURED, PRICES, CONTAINER).an_hour for each in (demand, more)]
    assert shared[1] >= shared[0]


def test_what_comes_on_top_is_counted() -> None:
    prices = PRICES.model_copy(
        update={"other": FREE.model_copy(update={"endpoint_a_gb": 0.1, "store_a_gb_month": 7.3})}
    )
    gigabytes = 5000 * 2 * 1500 * 3600 / 1e9
    for offer in (multi_model(DEMAND, MEASURED, prices, CONTAINER), dedicated(DEMAND, MEASURED, prices)):
        assert offer.other_an_hour == pytest.approx(0.1 * gigabytes + 7.3 * 50 / 730)
    assert ours(DEMAND, MEASURED, prices).other_an_hour == pytest.approx(7.3 * 50 / 730)


def test_what_was_measured_of_other_servers_takes_the_place_of_what_is_assumed() -> None:
    cells = (
        Cell(peer="mms", step="memory", tenants=20, figures={"more": 18, "resident_bytes_per_tenant": 250_000_000}),
        Cell(peer="mms", step="warm", tenants=20, clients=1, text="short", figures={"rps": 500.0}),
        Cell(peer="mms", step="warm", tenants=20, clients=8, text="short", figures={"rps": 900.0}),
        Cell(peer="fastapi", step="memory", tenants=20, outcome="failed", error="no room"),
    )
    run = PeerRun(date="", command="", machine={}, settings={}, cells=cells)
    ours_, one, many = measured_containers(read_prices(), run).multi_model.containers
    assert (many.model_mb, many.core_rps) == (250.0, 900.0)
    assert [ours_, one] == list(read_prices().multi_model.containers[:2])
    report = compare(DEMAND, MEASURED, measured_containers(read_prices(), run))
    assert any(
        "250 MB a model" in sentence and "900 requests a second" in sentence for sentence in report["assumptions"]
    )


def test_a_model_that_fits_nowhere_is_told() -> None:
    with pytest.raises(InvalidInput, match="holds a single model"):
        ours(DEMAND, replace(MEASURED, model_bytes=1e12), PRICES)


@pytest.mark.parametrize("wrong", [{"tenants": 0}, {"rate": -1.0}, {"utilisation": 0.0}, {"peak": 0.5}])
def test_a_demand_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        replace(DEMAND, **wrong)


def test_the_default_prices_are_whole_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    prices = read_prices()
    assert prices.multi_model.models_an_instance == 500
    text = DEFAULT.read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    for wrong, told in (
        (text.replace("an_hour = 0.085", "an_hour = -1", 1), "machines.0.an_hour"),
        (text + "\n[more]\n", "more in"),
        ("x = ", "is no TOML"),
    ):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(InvalidInput, match=told):
            read_prices(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_prices(tmp_path / "none.toml")


REPORTS: dict[str, dict[str, Any]] = {
    "warm": {"bench": "warm", "rps": 700.0, "command": "macrofleet bench warm --json", "began": "2026-11-28T10:00:00Z"},
    "cold": {
        "bench": "cold",
        "disk_warm": {"p50_ms": 1.0},
        "disk": {"p50_ms": 2.5, "p99_ms": 6.0},
        "s3": {"p50_ms": 40.0, "p99_ms": 80.0},
    },
    "scale": {
        "bench": "scale",
        "models": 1010,
        "settings": {"model_bytes": 10_400_000},
        "with_10_models": {"rss_anon_mb": 400.0},
        "with_all_models": {"rss_anon_mb": 410.0},
    },
}


def stored(folder: Path, **changed: Any) -> Path:
    for name, report in {**REPORTS, **changed}.items():
        if report is not None:
            (folder / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def test_what_is_measured_comes_from_reports_of_benches(tmp_path: Path) -> None:
    found = read_measured(stored(tmp_path))
    assert (found.rps, found.model_bytes, found.process_bytes) == (700.0, 10_400_000, 400e6)
    assert found.tenant_bytes == pytest.approx(10_000)
    assert (found.warm_seconds, found.disk_seconds, found.store_seconds) == (0.001, 0.0025, 0.04)
    assert found.sources[0]["command"] == "macrofleet bench warm --json"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"cold": None}, r"no report .*cold\.json"),
        ({"cold": {"bench": "warm"}}, "no report of `macrofleet bench cold`"),
        ({"scale": {"bench": "scale"}}, "lacks 'with_10_models'"),
    ],
)
def test_a_report_that_is_missing_is_named_with_its_command(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read_measured(stored(tmp_path, **changed))


def test_the_command_prints_assumptions_and_json(tmp_path: Path) -> None:
    given = ["cost", "--measured", str(stored(tmp_path))]
    text = CliRunner().invoke(app, given).stdout
    assert "check yours" in text
    assert "AWS says 90%" in text
    assert "macrofleet bench warm --json (2026-11-28T10:00:00Z)" in text
    found = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)
    assert found["offers"][0]["name"] == "macrofleet"
    assert len(found["offers"]) == 5
    assert CliRunner().invoke(app, ["cost", "--show-prices"]).stdout == DEFAULT.read_text(encoding="utf-8")
