"""Rules and dashboards: promtool takes them, every metric they name is there, every alert is tested and has a runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser
from ruamel.yaml import YAML

from benchmarks.console_fleet import console_names, fill_store
from registry.regions.marks import CopyMark, write_mark
from registry.store.failover import FailoverStore
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.settings import ServingSettings
from tests.flows.console_world import asking, make_console

PARSE: Any = parser.text_string_to_metric_families
ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "infra" / "prometheus"
DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs" / "runbooks"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
# Prometheus' own, and what it gives every target.
THEIRS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
TARGET = {"job", "instance"}
# Their values are not all there before something happened.
OPEN_VALUES = {"status", "instance", "job", "tenant", "flow", "le", "alertname", "alertstate"}
WATCHED = "hazel-books"


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def promtool(*arguments: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


RULES = [
    rule
    for path in sorted((PROMETHEUS / "rules").glob("*.yml"))
    for group in load(path)["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
TESTS = {test["name"]: test for path in sorted((PROMETHEUS / "tests").glob("*.yml")) for test in load(path)["tests"]}


def panel_expressions(board: dict[str, Any]) -> list[str]:
    """Of panels and annotations, with Grafana's variables filled in."""
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [one["expr"] for one in board["annotations"]["list"]]
    named = [variable["name"] for variable in board["templating"]["list"]]
    for name in named:
        found = [re.sub(rf"\${name}\b", ".*", expression) for expression in found]
    return [expression.replace("$__rate_interval", "5m") for expression in found]


# What an expression names


class Named(dict[str, dict[str, set[str]]]):
    """Metrics that an expression selects: their labels, with the values that are asked for."""


def named_by(expression: str) -> Named:
    """Metrics and their matchers; labels of `by` and `on` count for every metric of the expression."""
    found = Named()
    bare = re.sub(r'"[^"]*"', '""', expression)
    for match in re.finditer(r"\b(macrofleet[a-z_:0-9]*|process_[a-z_]+|up|ALERTS)\b(?:\{([^}]*)\})?", expression):
        labels = found.setdefault(match[1], {})
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', match[2] or ""):
            exact = {value} if "~" not in operator else set(value.split("|"))
            labels.setdefault(label, set()).update(one for one in exact if re.fullmatch(r"\w+", one))
    for grouped in re.findall(r"\bby\s*\(([^)]*)\)", bare):
        for label in filter(None, (part.strip() for part in grouped.split(","))):
            for labels in found.values():
                labels.setdefault(label, set())
    return found


@pytest.fixture(scope="module")
async def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a real server and a real console tell Prometheus."""
    folder = tmp_path_factory.mktemp("observed")
    store = LocalStore(folder / "store")
    fill_store(store, 12)
    told = ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset(),
            "preload": "none",
            "metrics_tenants": WATCHED,
        }
    )
    apps = create_apps(told, FailoverStore(store, store, near="home"))
    async with apps.public.router.lifespan_context(apps.public):
        return apps.data_plane.metrics.exposition(OPENMETRICS)[0].decode()


@pytest.fixture(scope="module")
def console_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("console")
    store = LocalStore(folder / "store")
    fill_store(store, 12)
    copy = LocalStore(folder / "copy")
    write_mark(copy, CopyMark(source=store.url, generation=1, finished_at=1.0))
    console = make_console(folder, store, watched=(WATCHED,), copy=copy)
    with asking(console) as client:
        client.get("/healthz")  # answered once it has begun, and read the fleet
        console.world.index.refresh_records()
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {console.operator}", "Accept": OPENMETRICS})
    assert answer.status_code == 200
    return answer.text


@pytest.fixture(scope="module")
def known(pages: str, console_page: str) -> dict[str, dict[str, set[str]]]:
    """Every sample's name, with its labels and their values."""
    found: dict[str, dict[str, set[str]]] = {
        name: {label: set() for label in labels} for name, labels in THEIRS.items()
    }
    for page in (pages, console_page):
        for family in PARSE(page):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {label: set() for label in TARGET})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
            if family.type == "gauge":  # one without a figure now
                found.setdefault(family.name, {label: set() for label in TARGET})
    return found


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


EXPRESSIONS = [
    *((rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES),
    *((path.stem, expression) for path in DASHBOARDS for expression in panel_expressions(json.loads(path.read_text()))),
]


@pytest.mark.anyio
async def test_every_metric_that_is_named_is_there_with_its_labels(known: dict[str, dict[str, set[str]]]) -> None:
    wrong = []
    for where, expression in EXPRESSIONS:
        for metric, labels in named_by(expression).items():
            if metric in RECORDED:
                continue
            if metric not in known:
                wrong.append(f"{where}: there is no {metric}")
                continue
            for label, values in labels.items():
                if label not in known[metric]:
                    wrong.append(f"{where}: {metric} has no label {label}")
                elif label not in OPEN_VALUES and not values <= known[metric][label]:
                    wrong.append(f"{where}: {metric} is never {label}={values - known[metric][label]}")
    assert not wrong, "\n".join(wrong)
    assert len(EXPRESSIONS) > 100


@pytest.mark.anyio
async def test_a_metric_that_is_not_there_would_be_found(known: dict[str, dict[str, set[str]]]) -> None:
    named = named_by('sum by (colour) (rate(macrofleet_requests_total{face=~"api|gopher"}[5m])) > macrofleet_nonsense')
    assert named == {
        "macrofleet_requests_total": {"face": {"api", "gopher"}, "colour": set()},
        "macrofleet_nonsense": {"colour": set()},
    }
    assert "macrofleet_nonsense" not in known
    assert "gopher" not in known["macrofleet_requests_total"]["face"]


@needs_promtool
def test_promtool_takes_configuration_and_rules() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))


@needs_promtool
def test_every_expression_of_a_dashboard_parses(tmp_path: Path) -> None:
    rules = [{"record": f"a{n}", "expr": expression} for n, (_, expression) in enumerate(EXPRESSIONS)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


@needs_promtool
@pytest.mark.parametrize("path", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent_as_they_should(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways(alert: str) -> None:
    fires, silent = TESTS[f"{alert} fires"], TESTS[f"{alert} stays silent"]
    assert f'alertname="{alert}"' in json.dumps(fires["promql_expr_test"]).replace('\\"', '"')
    assert f'alertname="{alert}"' not in json.dumps(silent["promql_expr_test"]).replace('\\"', '"')
    # Silence says something only where what the alert is about is there.
    asked = set(named_by(ALERTS[alert]["expr"]))
    for name in asked & RECORDED.keys():
        asked |= set(named_by(RECORDED[name]["expr"]))
    given = {re.match(r"[a-z_]+", series["series"])[0] for series in silent["input_series"]}  # type: ignore[index]
    assert asked & given


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_runbook(alert: str) -> None:
    runbook = ROOT / ALERTS[alert]["annotations"]["runbook"]
    assert f"`{alert}`" in runbook.read_text()
    assert ALERTS[alert]["labels"]["severity"] in {"page", "ticket"}
    assert ALERTS[alert]["annotations"]["summary"]


def test_every_runbook_is_an_alerts() -> None:
    used = {ROOT / rule["annotations"]["runbook"] for rule in ALERTS.values()}
    assert used == set(RUNBOOKS.glob("*.md"))


def test_panels_that_runbooks_name_are_there() -> None:
    titles = {panel["title"] for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]}
    named = {name for path in RUNBOOKS.glob("*.md") for name in re.findall(r'"([A-Z][^":]+)"', path.read_text())}
    assert len(named & titles) > 5
    assert named - titles == {"Needs a look"}  # the console's


def test_dashboards_are_whole() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert {board["uid"] for board in boards} == {f"macrofleet-{path.stem}" for path in DASHBOARDS}
    assert len({board["title"] for board in boards}) == len(boards) == 3
    for board in boards:
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        variables = {variable["name"] for variable in board["templating"]["list"]}
        places = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert (x, y) not in places, f"{panel['title']} lies on another panel"
                    places.add((x, y))
            if panel["type"] != "row":
                assert panel["targets"], panel["title"]
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval"}
        assert used <= variables


@pytest.mark.anyio
async def test_no_tenant_is_named_that_nobody_asked_for(console_page: str, pages: str) -> None:
    names = set(console_names(12)) - {WATCHED}
    assert not [name for name in names if name in console_page or name in pages]
    assert WATCHED in console_page
    assert WATCHED in pages
