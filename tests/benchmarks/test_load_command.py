"""`macrofleet bench load` as it is typed, against a server that answers as its path says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.trace import read_trace
from macrofleet import app
from tests.scripted_server import Scripted, scripted

TRACE = "rate=50,seconds=0.3,tenants=3,seed=5"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, type[Scripted]]]:
    with scripted() as found:
        yield found


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["bench", "load", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_trace_is_saved_and_replayed(server: tuple[str, type[Scripted]], tmp_path: Path) -> None:
    url, seen = server
    names, bodies, saved = tmp_path / "names", tmp_path / "bodies", tmp_path / "trace.csv"
    names.write_text("200\n429\nproblem\n", encoding="utf-8")
    bodies.write_text('{"a": 1}\n\n{"b": 2}\n', encoding="utf-8")
    given = [url, "--path", "/{tenant}", "--bodies", str(bodies), "--json"]
    first = json.loads(run(*given, "--trace", TRACE, "--tenants", str(names), "--save", str(saved)))
    assert first["requests"] == len(read_trace(saved).at) > 3
    assert {refusal["reason"] for refusal in first["refusals"]} >= {"overloaded"}
    assert set(seen.seen) <= {b'{"a": 1}', b'{"b": 2}'}
    again = json.loads(run(*given, "--trace", str(saved)))
    assert again["trace"]["sha256"] == first["trace"]["sha256"]
    assert again["statuses"] == first["statuses"]
    assert "load_average_before" in again


def test_check_decides_the_exit_code(server: tuple[str, type[Scripted]], tmp_path: Path) -> None:
    url, _ = server
    names = tmp_path / "names"
    names.write_text("200\n429\n200\n", encoding="utf-8")
    given = [url, "--path", "/{tenant}", "--trace", TRACE, "--tenants", str(names), "--check"]
    run(*given, code=1)
    assert '"passed": {"failed": true, "p99_ms": true}' in run(
        *given[:-1], "--most-failed", "1000", "--most-p99-ms", "60000", "--json"
    )


def test_keys_reach_requests_and_nothing_that_is_printed(
    server: tuple[str, type[Scripted]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = server
    keys = tmp_path / "keys.json"
    keys.write_text('{"tenant-00000": "key-of-one"}', encoding="utf-8")
    monkeypatch.setenv("MACROFLEET_BENCH_KEY", "key-of-all")
    seen.heads.clear()
    printed = run(url, "--path", "/200?{tenant}", "--trace", TRACE, "--keys", str(keys), "--json")
    sent = b"".join(seen.heads)
    assert b"Authorization: Bearer key-of-one\r\n" in sent
    assert b"Authorization: Bearer key-of-all\r\n" in sent
    assert "key-of" not in printed


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--keys", "no-file"], "no JSON object of API keys"),
        (["--bodies", "no-file"], "cannot be read"),
        (["--header", "nothing"], "no NAME: VALUE"),
        (["--header", "X: a\r\nInjected: b"], "no NAME: VALUE"),
        (["--trace", "rate=0"], "rate in the trace"),
    ],
)
def test_what_cannot_be_used_is_told(given: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["bench", "load", "http://127.0.0.1:1", *given])
    assert result.exit_code == 1
    assert told in str(result.exception)
