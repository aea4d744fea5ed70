from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import tenant_commands
from flows.settings import FlowSettings
from flows.standing import Standing, standings
from registry.errors import InvalidInput, TenantNotFound
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import tenant_settings_key
from registry.store import ObjectStore
from registry.store.local import LocalStore
from registry.suggestion_rules import SuggestionRules, read_rules
from registry.tenant_settings import TenantSettings, edit_tenant_settings, read_tenant_settings
from training.examples import Example
from training.lake import Lake

RUNNER = CliRunner()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """acme is eligible, tiny is not, gone serves without tickets; named by the environment."""
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    for name in ("MONTHS", "PRECISION", "PROGRAM", "LEAST_TICKETS"):
        monkeypatch.delenv(f"MACROFLEET_{name}", raising=False)
    made = LocalStore(tmp_path / "store")
    for tenant, count in (("acme", 120), ("tiny", 62)):
        Lake(made).merge(tenant, [Example(ticket_id=str(n), body="", macro_id="abcd"[n % 4]) for n in range(count)])
    serving = FleetEntry(version="a" * 16, manifest="a" * 64)
    update_fleet(made, {"acme": lambda _: serving, "gone": lambda _: serving})
    return made


def run(*arguments: str, code: int = 0) -> str:
    """What a command prints on standard output."""
    result = RUNNER.invoke(tenant_commands.tenants, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def run_json(*arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


@pytest.mark.parametrize("command", ["list", "settings", "set"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    assert f"Example: macrofleet tenants {command}" in run(command, "--help")


def test_the_commands_import_nothing_but_typer() -> None:
    heavy = ["pydantic", "rich.table", "boto3", "numpy", "polars", "prefect", "mlflow", "tensorflow", "flows.settings"]
    script = f"import sys, flows.tenant_commands; print([name for name in {heavy!r} if name in sys.modules])"
    root = Path(tenant_commands.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_the_list_says_who_is_eligible_and_who_is_not_and_why(store: ObjectStore) -> None:
    lines = run("list").splitlines()
    assert lines[0].split() == ["tenant", "eligible", "tickets", "macros", "serves", "reason"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["acme", "yes", "120", "4", "a" * 16],
        ["gone", "no", "0", "0", "a" * 16],
        ["tiny", "no", "62", "4", "-"],
    ]
    assert lines[3].endswith("62 tickets with a shared macro in the last 9 months, 100 are needed")
    edit_tenant_settings(store, ["tiny"], {"least_tickets": 50})
    rows = {row["tenant"]: row for row in run_json("list")["tenants"]}
    assert rows["tiny"] == {
        "tenant": "tiny",
        "eligible": True,
        "tickets": 62,
        "macros": 4,
        "version": None,
        "reason": "",
    }
    assert (rows["gone"]["eligible"], rows["gone"]["reason"]) == (False, "no tickets")


def test_who_cannot_be_judged_is_named_and_hides_nobody_else(store: ObjectStore) -> None:
    store.put(tenant_settings_key("acme"), b"{")
    rows = {row["tenant"]: row for row in run_json("list", code=1)["tenants"]}
    assert rows["acme"]["eligible"] is None
    assert "acme/settings.json is not valid" in rows["acme"]["reason"]
    assert rows["tiny"]["tickets"] == 62
    assert run("list", code=1).splitlines()[1].split()[:4] == ["acme", "?", "-", "-"]


def test_the_environment_decides_for_those_without_settings_of_their_own(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACROFLEET_LEAST_TICKETS", "50")
    edit_tenant_settings(store, ["acme"], {"least_tickets": 1000})
    assert {row["tenant"]: row["eligible"] for row in run_json("list")["tenants"]} == {
        "acme": False,
        "gone": False,
        "tiny": True,
    }


def test_time_passes(store: ObjectStore) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    rows = [
        Example(ticket_id=f"t{n}", body="", macro_id="abc"[n % 3], applied_at=now - timedelta(days=1))
        for n in range(100)
    ]
    Lake(store).merge("timed", rows)

    def timed(when: datetime) -> Standing:
        (found,) = (one for one in standings(store, FlowSettings(), now=when) if one.tenant == "timed")
        return found

    assert timed(now).eligible
    later = timed(now + timedelta(days=300))
    assert (later.eligible, later.tickets) == (False, 0)
    assert "(100 more are older)" in later.reason


def test_settings_say_where_each_comes_from(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_MONTHS", "12")
    monkeypatch.setenv("MACROFLEET_PRECISION", "0.7")
    run("set", "acme", "--precision", "0.9", "--promotion", "manual")
    shown = run_json("settings", "acme")
    assert shown["tenant"] == "acme"
    assert shown["settings"] == {
        "program": {"value": "bag", "from": "default"},
        "precision": {"value": 0.9, "from": "tenant"},
        "weights": {"value": "float32", "from": "default"},
        "least_tickets": {"value": 100, "from": "default"},
        "least_macros": {"value": 3, "from": "default"},
        "months": {"value": 12, "from": "environment"},
        "keep_months": {"value": 24, "from": "default"},
        "retrain_after_days": {"value": 30, "from": "default"},
        "least_acceptance": {"value": 0.2, "from": "default"},
        "promotion": {"value": "manual", "from": "tenant"},
        "exclude_macros": {"value": [], "from": "default"},
        "off_groups": {"value": [], "from": "default"},
    }
    lines = {line.split()[0]: line.split()[1:] for line in run("settings", "acme").splitlines()}
    assert lines["setting"] == ["value", "from"]
    assert lines["months"] == ["12", "MACROFLEET_MONTHS"]
    assert lines["precision"] == ["0.9", "tenant"]
    with pytest.raises(TenantNotFound):
        run("settings", "nobody")


def test_settings_are_set_and_unset(store: ObjectStore) -> None:
    assert run("set", "acme", "--least-tickets", "50", "--weights", "int8").splitlines() == [
        "acme: weights unset -> int8, least_tickets unset -> 50"
    ]
    said = run("set", "acme", "tiny", "--months", "12", "--unset", "least-tickets", "--unset", "weights").splitlines()
    assert said == [
        "acme: weights int8 -> unset, least_tickets 50 -> unset, months unset -> 12",
        "tiny: months unset -> 12",
    ]
    assert run("set", "tiny", "--months", "12").splitlines() == ["tiny: as before"]
    assert read_tenant_settings(store, "acme") == TenantSettings(months=12)
    assert run_json("set", "acme", "--unset", "months", "--program", "auto")["tenants"] == [
        {"tenant": "acme", "before": {"months": 12}, "after": {"program": "auto"}}
    ]


def test_what_is_never_suggested_is_set_and_unset(store: ObjectStore) -> None:
    said = run("set", "acme", "--exclude-macros", "m2", "--exclude-macros", "m1", "--off-groups", "7")
    assert said.splitlines() == ["acme: exclude_macros unset -> m1 m2, off_groups unset -> 7"]
    assert read_rules(store, "acme") == SuggestionRules(exclude_macros=("m1", "m2"), off_groups=("7",))
    assert run_json("settings", "acme")["settings"]["exclude_macros"] == {"value": ["m1", "m2"], "from": "tenant"}
    assert run("set", "acme", "--exclude-macros", "m3", "--unset", "off-groups").splitlines() == [
        "acme: exclude_macros m1 m2 -> m3, off_groups 7 -> unset"
    ]
    assert read_rules(store, "acme") == SuggestionRules(exclude_macros=("m3",))
    assert read_rules(store, "tiny") == SuggestionRules()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to set"),
        (["--exclude-macros", ""], "the setting exclude_macros cannot be used"),
        (["--months", "0"], "the setting months cannot be used"),
        (["--precision", "1.5"], "the setting precision cannot be used"),
        (["--unset", "month"], "the setting month cannot be used"),
        (["--months", "3", "--unset", "months"], "months is both set and unset"),
    ],
)
def test_what_cannot_be_set_is_said(store: ObjectStore, arguments: list[str], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        run("set", "acme", *arguments)
    assert read_tenant_settings(store, "acme") == TenantSettings()


def test_an_unknown_tenant_has_no_settings(store: ObjectStore) -> None:
    with pytest.raises(TenantNotFound, match="tenant acmee has no tickets"):
        run("set", "acmee", "--months", "3")
