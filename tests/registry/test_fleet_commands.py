from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry.errors import InvalidInput, MacrofleetError, ModelNotFound, TenantNotFound
from registry.files import FileDigest
from registry.fleet import commands as fleet_commands
from registry.fleet.promotion import takes_back, tries, waits
from registry.fleet.state import FleetEntry, PreloadPlan, TenantLimits, read_fleet, update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS, model_key
from registry.model.bundle import Manifest
from registry.replicas import Refreshed, refresh_replicas
from registry.store import ObjectStore
from registry.store.local import LocalStore

RUNNER = CliRunner()
FILE = FileDigest(sha256="0" * 64, size=1)
OLD, NEW, THIRD = (
    Manifest(
        tenant="acme",
        program="0" * 64,
        files={WEIGHTS: FILE, LABELS: FILE},
        data_fingerprint="0" * 64,
        settings={"seed": seed},
        metrics={},
        threshold=0.5,
    )
    for seed in (1, 2, 3)
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """acme with two versions, globex with one, new with none; named by the environment."""
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    made = LocalStore(tmp_path / "store")
    for manifest in (OLD, NEW, THIRD):
        for name, data in {WEIGHTS: b"w", LABELS: b"l", MANIFEST: manifest.to_bytes()}.items():
            made.put(model_key("acme", manifest.version, name), data)
    acme = FleetEntry().with_version(OLD.version, OLD.digest).with_version(NEW.version, NEW.digest)
    globex = FleetEntry(version="a" * 16, manifest="a" * 64)
    new = FleetEntry(reason="too few [examples]\x1b[31m")
    entries = {"acme": acme, "globex": globex, "new": new}
    update_fleet(made, {tenant: (lambda _, entry=entry: entry) for tenant, entry in entries.items()})  # type: ignore[misc]
    return made


def run(*arguments: str, code: int = 0) -> str:
    """What a command prints on standard output."""
    result = RUNNER.invoke(fleet_commands.fleet, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def run_json(*arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


@pytest.mark.parametrize(
    "command",
    ["show", "pin", "unpin", "limit", "preload", "rollback", "promote", "shadow", "refresh"],
)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    assert f"Example: macrofleet fleet {command}" in run(command, "--help")


def test_the_commands_import_nothing_but_typer() -> None:
    heavy = [
        "pydantic",
        "rich.table",
        "boto3",
        "numpy",
        "registry.fleet.state",
        "registry.fleet.control",
        "http.client",
    ]
    script = f"import sys, registry.fleet.commands; print([name for name in {heavy!r} if name in sys.modules])"
    root = Path(fleet_commands.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_show_says_what_there_is(store: ObjectStore) -> None:
    run("pin", "globex")
    run("limit", "globex", "--concurrency", "4", "--requests-per-second", "2.5")
    run("preload", "top", "7")
    run("rollback", "acme")
    lines = run("show").splitlines()
    assert lines[0] == "fleet generation 5; preload: top 7"
    assert lines[1].split() == [
        *("tenant", "version", "previous", "candidate", "shadow", "rollout", "pinned", "limits", "held", "reason"),
    ]
    assert lines[2].split() == ["acme", OLD.version, NEW.version, "yes"]
    assert lines[3].split() == ["globex", "a" * 16, "-", "yes", "4", "at", "once,", "2.5/s"]
    assert lines[4].split() == ["new", "-", "-", "too", "few", "[examples]", "[31m"]
    assert [line.split()[0] for line in run("show", "new", "acme").splitlines()[2:]] == ["new", "acme"]
    shown = run_json("show", "globex")
    assert shown == {
        "generation": 5,
        "preload": {"models": "top", "top": 7},
        "tenants": [
            {
                "tenant": "globex",
                "version": "a" * 16,
                "manifest": "a" * 64,
                "previous": None,
                "previous_manifest": None,
                "candidate": None,
                "candidate_manifest": None,
                "shadow": None,
                "shadow_manifest": None,
                "rollout": None,
                "pinned": True,
                "held": False,
                "limits": {"concurrency": 4, "requests_per_second": 2.5},
                "holdback": None,
                "reason": None,
            }
        ],
    }
    with pytest.raises(TenantNotFound, match="nobody"):
        run("show", "nobody")


def test_show_of_an_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "nothing"))
    assert run("show").splitlines()[0] == "fleet generation 0; preload: unset (each replica's settings)"
    assert run_json("show") == {"generation": 0, "preload": None, "tenants": []}


def test_pin_and_unpin(store: ObjectStore) -> None:
    report = run_json("pin", "globex", "acme", "--dry-run")
    assert (report["dry_run"], report["generation"], read_fleet(store).generation) == (True, 1, 1)
    report = run_json("pin", "globex", "acme")
    assert report == {
        "generation": 2,
        "dry_run": False,
        "changed": [
            {"tenant": tenant, "before": {"pinned": False}, "after": {"pinned": True}} for tenant in ("acme", "globex")
        ],
        "unchanged": [],
    }
    assert run_json("pin", "acme")["unchanged"] == ["acme"]
    assert run("unpin", "acme", "new").splitlines() == [
        "acme: pinned yes -> no",
        "as before: 1 (new)",
        "fleet generation 3",
    ]
    assert [tenant for tenant, entry in read_fleet(store).entries.items() if entry.keep_loaded] == ["globex"]


def test_a_dry_run_says_that_it_is_one(store: ObjectStore) -> None:
    assert run("pin", "acme", "--dry-run").splitlines()[-1] == "fleet generation 1; nothing was written (--dry-run)"


def test_a_long_list_is_cut(store: ObjectStore) -> None:
    names = [f"t{i:02}" for i in range(25)]
    update_fleet(store, {name: lambda _: FleetEntry() for name in names})
    lines = run("pin", *names).splitlines()
    assert (len(lines), lines[20]) == (22, "and 5 more (--json lists them)")
    assert run("pin", *names).splitlines()[0].endswith("t19, …)")
    assert len(run_json("unpin", *names)["changed"]) == 25


def test_limit(store: ObjectStore) -> None:
    assert run("limit", "acme", "--concurrency", "4").splitlines()[0] == "acme: limits none -> concurrency=4"
    assert run_json("limit", "acme", "--requests-per-second", "0.5")["changed"][0]["after"] == {
        "limits": {"concurrency": 4, "requests_per_second": 0.5}
    }
    assert read_fleet(store).entries["acme"].limits == TenantLimits(concurrency=4, requests_per_second=0.5)
    assert run("limit", "acme", "--none").splitlines()[0] == (
        "acme: limits concurrency=4 requests_per_second=0.5 -> none"
    )
    with pytest.raises(InvalidInput, match="no limit is given"):
        run("limit", "acme")
    with pytest.raises(InvalidInput, match="excludes"):
        run("limit", "acme", "--none", "--concurrency", "4")
    run("limit", "acme", "--concurrency", "0", code=2)


def test_holdback(store: ObjectStore) -> None:
    assert run("holdback", "acme", "--share", "0.05").splitlines()[0] == "acme: holdback none -> 0.05"
    assert read_fleet(store).entries["acme"].holdback == 0.05
    assert run_json("holdback", "acme", "--share", "0")["changed"][0]["after"] == {"holdback": 0.0}
    assert run("holdback", "acme", "--none").splitlines()[0] == "acme: holdback 0.0 -> none"
    for share in ("0.6", "-0.1", "nan"):
        with pytest.raises(InvalidInput, match="not a share"):
            run("holdback", "acme", "--share", share)
    for arguments in ((), ("--none", "--share", "0.1")):
        with pytest.raises(InvalidInput, match="a share or --none"):
            run("holdback", "acme", *arguments)


def test_preload(store: ObjectStore) -> None:
    assert run("preload", "bytes", "1.5GiB", "--dry-run").splitlines() == [
        "preload: unset (each replica's settings) -> bytes 1610612736",
        "fleet generation 1; nothing was written (--dry-run)",
    ]
    assert read_fleet(store).preload is None
    assert run_json("preload", "bytes", "1.5GiB") == {
        "generation": 2,
        "dry_run": False,
        "before": None,
        "after": {"models": "bytes", "bytes": 1610612736},
    }
    assert read_fleet(store).preload == PreloadPlan(models="bytes", bytes=1610612736)
    assert run("preload", "bytes", "1610612736").splitlines() == [
        "preload: bytes 1610612736, as before",
        "fleet generation 2",
    ]
    assert run_json("preload", "unset")["after"] is None
    assert read_fleet(store).preload is None
    for wrong in (["unset", "5"], ["some"], ["top"], ["all", "1"]):
        with pytest.raises(InvalidInput):
            run("preload", *wrong)


def test_rollback_and_release(store: ObjectStore) -> None:
    expected = f"acme: version {NEW.version} -> {OLD.version}, previous {OLD.version} -> {NEW.version}, held no -> yes"
    assert run("rollback", "acme", "--dry-run").splitlines()[0] == expected
    assert read_fleet(store).generation == 1
    assert run("rollback", "acme").splitlines() == [expected, "fleet generation 2"]
    assert run_json("rollback", "acme")["unchanged"] == ["acme"], "twice is once"
    assert run_json("rollback", "acme", "--to", NEW.version)["changed"][0]["after"] == {
        "version": NEW.version,
        "previous": OLD.version,
    }
    assert run("rollback", "acme", "--release").splitlines()[0] == "acme: held yes -> no"
    with pytest.raises(InvalidInput, match="exclude each other"):
        run("rollback", "acme", "--release", "--to", NEW.version)
    with pytest.raises(ModelNotFound, match="globex has no previous version"):
        run("rollback", "globex")


def test_names_that_look_like_options_are_refused_before_anything_is_written(store: ObjectStore) -> None:
    with pytest.raises(MacrofleetError, match="is not a tenant name"):
        run("pin", "--", "acme", "--json")
    assert read_fleet(store).generation == 1


@contextmanager
def replica(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that gives one answer to everything; its address, and what it was asked."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.headers.get("Content-Length")))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_replicas_are_refreshed_and_those_that_fail_are_named() -> None:
    problem = json.dumps({"title": "Unavailable", "detail": "the store failed", "status": 503}).encode()
    with replica(200, b'{"generation": 7}') as (good, asked), replica(503, problem) as (bad, _):
        answers = run_json("refresh", good, f"{bad}/behind/", good, code=1)["replicas"]
        assert answers == [
            {"url": good, "generation": 7, "problem": None},
            {"url": f"{bad}/behind/", "generation": None, "problem": "503 the store failed"},
        ]
        assert asked == [("/admin/fleet/refresh", "0")]
        assert run("refresh", good) == f"{good}: generation 7\n"
        result = RUNNER.invoke(fleet_commands.fleet, ["refresh", good, bad])
        assert (result.exit_code, result.stdout) == (1, f"{good}: generation 7\n")
        assert result.stderr == f"{bad}: 503 the store failed\n"


def test_a_replica_behind_a_path_is_asked_below_it() -> None:
    with replica(200, b'{"generation": 1}') as (url, asked):
        assert refresh_replicas([f"{url}/one/"]) == [Refreshed(url=f"{url}/one/", generation=1)]
        assert asked[0][0] == "/one/admin/fleet/refresh"


@pytest.mark.parametrize(
    ("status", "body", "headers", "problem"),
    [
        (200, b"<html>", {}, "200 no generation in the answer"),
        (200, b'{"generation": "7"}', {}, "200 no generation in the answer"),
        (200, b"[]", {}, "200 no generation in the answer"),
        (404, b"", {}, "404 Not Found"),
        (307, b"", {"Location": "http://127.0.0.1:1/"}, "307 Temporary Redirect"),
        (500, json.dumps({"detail": "x" * 5000}).encode(), {}, f"500 {'x' * 296}"),
    ],
)
def test_an_answer_that_is_none_is_a_problem(status: int, body: bytes, headers: dict[str, str], problem: str) -> None:
    with replica(status, body, **headers) as (url, _):
        assert refresh_replicas([url]) == [Refreshed(url=url, problem=problem)]


def test_a_replica_that_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with replica(200, b'{"generation": 7}') as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        (answer,) = refresh_replicas(["http://127.0.0.1:1"])
    assert (answer.generation, answer.problem) == (None, "no answer: [Errno 111] Connection refused")
    assert asked == [], "an operator address is not asked through a proxy"


@pytest.mark.parametrize("url", ["http://a..b:1", "http://127.0.0.1:1/a b"])
def test_an_address_that_cannot_be_asked_is_a_problem(url: str) -> None:
    (answer,) = refresh_replicas([url])
    assert (answer.problem or "").startswith("no answer: ")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8001",
        "ftp://x",
        "http://",
        "http://u:secret@x:1",
        "http://x:99999",
        "http://x?a=1",
        "http://[::1",
        "http://x/ü",
        "",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput, match="operator address 2 cannot be used") as caught:
        refresh_replicas(["http://127.0.0.1:1", url])
    assert "secret" not in str(caught.value)


def test_what_waits_is_promoted(store: ObjectStore) -> None:
    update_fleet(store, {"acme": lambda entry: waits(entry, THIRD.version, THIRD.digest)})
    assert run("show", "acme").splitlines()[2].split()[3:] == [THIRD.version]
    expected = f"acme: version {NEW.version} -> {THIRD.version}, previous {OLD.version} -> {NEW.version}"
    expected += f", candidate {THIRD.version} -> none"
    assert run("promote", "acme", "--dry-run").splitlines()[0] == expected
    assert run("promote", "acme").splitlines()[0] == expected
    with pytest.raises(ModelNotFound, match="no version of tenant acme waits"):
        run("promote", "acme")
    assert run_json("promote", "acme", "--version", THIRD.version)["changed"] == []


def test_a_shadow_is_set_and_stopped(store: ObjectStore) -> None:
    for wrong in ([], ["--stop", "--version", THIRD.version]):
        with pytest.raises(InvalidInput, match="either --version or --stop"):
            run("shadow", "acme", *wrong)
    with pytest.raises(InvalidInput, match="one tenant"):
        run("shadow", "acme", "globex", "--version", THIRD.version)
    assert run("shadow", "acme", "--version", THIRD.version).splitlines()[0] == f"acme: shadow none -> {THIRD.version}"
    assert run_json("show", "acme")["tenants"][0]["shadow_manifest"] == THIRD.digest
    assert run("shadow", "acme", "globex", "--stop").splitlines()[:2] == [
        f"acme: shadow {THIRD.version} -> none",
        "as before: 1 (globex)",
    ]


def test_show_says_where_a_roll_out_is(store: ObjectStore) -> None:
    update_fleet(store, {"acme": lambda entry: tries(entry or FleetEntry(), THIRD.version, THIRD.digest)})
    assert run_json("show", "acme")["tenants"][0]["rollout"] == "canary"
    update_fleet(store, {"acme": lambda entry: takes_back(entry or FleetEntry())})
    assert run_json("show", "acme")["tenants"][0]["rollout"] == f"halted {THIRD.version}"
