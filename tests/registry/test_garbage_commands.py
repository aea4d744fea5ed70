from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry.garbage import commands as garbage_commands
from registry.garbage.collecting import announced
from registry.store import ObjectStore
from registry.store.local import LocalStore
from tests.registry.garbage_world import TENANT, publish, serve, version, versions

RUNNER = CliRunner()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Three versions, all of them old; the last one serves. The environment names the store."""
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    made = LocalStore(tmp_path / "store")
    for number in range(3):
        publish(made, number)
        for path in tmp_path.glob(f"store/tenants/{TENANT}/models/{version(number)}/*"):
            os.utime(path, (1e9 + number, 1e9 + number))
    serve(made, 2)
    return made


def run(*arguments: str) -> str:
    result = RUNNER.invoke(garbage_commands.garbage, ["collect", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_would_go_is_printed_and_stays(store: ObjectStore) -> None:
    said = run("--keep", "1", "--dry-run")
    assert version(0) in said
    assert version(1) in said
    assert "would delete 2 versions, 0 past states of the fleet and 0 unfinished writes: 6 objects" in said
    assert "kept 1 versions (1 one of the last 1, 1 serves)" in said
    assert versions(store) == {version(number) for number in range(3)}


def test_what_goes_is_printed(store: ObjectStore) -> None:
    said = run("--keep", "2")
    assert f"{TENANT}    {version(0)}  3" in said
    assert "no fleet names it" in said
    assert "deleted 1 versions" in said
    assert versions(store) == {version(1), version(2)}
    assert "deleted 0 versions" in run("--keep", "2")


def test_five_versions_stay_by_default(store: ObjectStore) -> None:
    assert "deleted 0 versions" in run()
    assert versions(store) == {version(number) for number in range(3)}


def test_the_report_as_json(store: ObjectStore) -> None:
    report: dict[str, Any] = json.loads(run("--keep", "1", "--json"))
    assert [row["version"] for row in report["deleted"]] == sorted([version(0), version(1)])
    assert report["kept"] == [{"tenant": TENANT, "version": version(2), "why": ["serves", "one of the last 1"]}]
    assert report["kept_for"] == {"serves": 1, "one of the last 1": 1}
    assert (report["dry_run"], report["busy"], report["spared"]) == (False, [], [])
    assert report["bytes"] == sum(row["bytes"] for row in report["deleted"]) > 0


def test_a_tenant_that_is_left_alone_is_named(store: ObjectStore) -> None:
    with announced(store, TENANT, [version(0)], now=lambda: 2e9):
        result = RUNNER.invoke(garbage_commands.garbage, ["collect", "--keep", "1"])
    assert f"left alone: {TENANT}" in result.stderr
    assert "deleted 0 versions" in result.stdout


@pytest.mark.parametrize("keep", ["0", "-1", "many"])
def test_a_number_that_keeps_nothing_is_refused(store: ObjectStore, keep: str) -> None:
    assert RUNNER.invoke(garbage_commands.garbage, ["collect", "--keep", keep]).exit_code == 2
    assert len(versions(store)) == 3
