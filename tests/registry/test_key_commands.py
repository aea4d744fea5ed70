from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry.errors import InvalidInput, KeyNotFound, MacrofleetError, PublishConflict
from registry.keys.commands import keys
from registry.keys.published import MAX_BYTES, key_digest, parse_keys
from registry.layout import ACCESS_KEYS
from registry.replicas import Refreshed
from registry.store import ObjectStore
from registry.store.local import LocalStore

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Named by the environment, as the database is."""
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_DATABASE_URL", f"sqlite:///{tmp_path / 'macrofleet.db'}")
    monkeypatch.delenv("MACROFLEET_OPERATOR_KEY", raising=False)
    return LocalStore(tmp_path / "store")


def run(*arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    result = RUNNER.invoke(keys, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def text(*arguments: str) -> tuple[str, str]:
    result = RUNNER.invoke(keys, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def problem(kind: type[MacrofleetError], *arguments: str) -> str:
    result = RUNNER.invoke(keys, [*arguments])
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def published(store: ObjectStore) -> dict[str, str]:
    """Digest by prefix."""
    document = parse_keys(store.get(ACCESS_KEYS, max_bytes=MAX_BYTES).data, where="the store")
    return {key.prefix: key.digest for key in document.keys}


def test_a_key_is_printed_once_and_alone(store: ObjectStore) -> None:
    out, err = text("create", "--tenant", "acme", "--expires", "90d", "--note", "desk")
    key = out.strip()
    prefix = key.split("_")[1]
    assert out == f"{key}\n"
    assert key.split("_")[2] not in err
    assert prefix in err
    assert published(store) == {prefix: key_digest(key.encode())}
    listed, _ = text("list", "--all")
    assert prefix in listed
    assert key.split("_")[2] not in listed
    (row,) = run("list")["keys"]
    assert (row["prefix"], row["tenant"], row["scopes"], row["note"]) == (
        prefix,
        "acme",
        ["suggest", "feedback"],
        "desk",
    )
    assert row["expires_at"] > row["created_at"]


def test_many_keys_may_be_published_at_once(store: ObjectStore) -> None:
    made = [run("create", "--tenant", tenant, "--no-publish") for tenant in ("acme", "beta")]
    assert [one["published"] for one in made] == [False, False]
    out, err = text("create", "--tenant", "gamma", "--no-publish")
    assert out.startswith("mf_")
    assert "no server knows it yet: macrofleet keys publish" in err
    assert list(store.list()) == []
    text("publish")
    assert len(published(store)) == 3


def test_without_a_tenant_it_is_an_operators(store: ObjectStore) -> None:
    made = run("create")
    assert (made["tenant"], made["scopes"], made["published"], made["generation"]) == (None, ["operator"], True, 1)


def test_rotating_and_revoking(store: ObjectStore) -> None:
    old = run("create", "--tenant", "acme", "--scope", "suggest", "--scope", "tenant-admin")
    new = run("rotate", old["prefix"], "--overlap", "12h")
    assert new["scopes"] == ["suggest", "tenant-admin"]
    assert set(published(store)) == {old["prefix"], new["prefix"]}
    revoked = run("revoke", old["prefix"])
    assert [row["state"] for row in revoked["revoked"]] == ["revoked"]
    assert set(published(store)) == {new["prefix"]}
    assert [row["prefix"] for row in run("list", "--tenant", "acme")["keys"]] == [new["prefix"]]
    assert len(run("list", "--all")["keys"]) == 2
    assert run("revoke", "--tenant", "acme")["published"]
    assert published(store) == {}
    assert text("revoke", "--tenant", "nobody")[0] == "there was no key to revoke\n"


def test_a_key_that_could_not_be_published_is_told_all_the_same(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setenv("MACROFLEET_STORE_URL", "gopher://x")
        result = RUNNER.invoke(keys, ["create", "--tenant", "acme"])
        assert isinstance(result.exception, InvalidInput)
        key = result.stdout.strip()
        assert "no server knows it yet: macrofleet keys publish" in result.stderr
        failed = RUNNER.invoke(keys, ["create", "--tenant", "acme", "--json"])
        assert isinstance(failed.exception, InvalidInput)
        assert json.loads(failed.stdout)["published"] is False
    assert "macrofleet keys publish" in text("list")[1]
    assert not run("list")["published"]
    assert text("publish")[0] == "generation 2, 2 keys: written\n"
    assert published(store)[key.split("_")[1]] == key_digest(key.encode())
    assert text("publish")[0] == "generation 2, 2 keys: there already\n"
    assert run("list")["published"]


def test_another_database_has_to_be_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("create")
    monkeypatch.setenv("MACROFLEET_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    assert "--force" in problem(PublishConflict, "publish")
    assert run("publish", "--force")["published"]


def test_servers_are_asked_to_read_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refresh(urls: Any, **more: Any) -> list[Refreshed]:
        asked.append((urls, more))
        return [Refreshed(url="http://a", generation=1), Refreshed(url="http://b", problem="no answer")]

    monkeypatch.setattr("registry.replicas.refresh_replicas", refresh)
    key = run("create")["key"]
    monkeypatch.setenv("MACROFLEET_OPERATOR_KEY", key)
    answers = run("publish", "http://a", "http://b", code=1)["replicas"]
    assert asked == [(["http://a", "http://b"], {"what": "access", "key": key})]
    assert [answer["problem"] for answer in answers] == [None, "no answer"]


@pytest.mark.parametrize("key", ["a b", "a\r\nX: y", "ä"])
def test_an_operator_key_that_fits_no_header_is_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_OPERATOR_KEY", key)
    told = problem(InvalidInput, "publish", "http://127.0.0.1:1")
    assert "MACROFLEET_OPERATOR_KEY" in told
    assert key not in told


def test_what_cannot_be_done() -> None:
    assert "is no scope" in problem(InvalidInput, "create", "--tenant", "acme", "--scope", "all")
    assert "is no time" in problem(InvalidInput, "create", "--tenant", "acme", "--expires", "soon")
    assert "is no time" in problem(InvalidInput, "rotate", "0" * 10, "--overlap", "1w")
    assert "no key was named" in problem(InvalidInput, "revoke")
    assert "keys list" in problem(KeyNotFound, "revoke", "0" * 10)
    assert run("list")["keys"] == []


@pytest.mark.parametrize("command", ["create", "list", "rotate", "revoke", "publish"])
def test_help_has_an_example(command: str) -> None:
    assert f"macrofleet keys {command}" in RUNNER.invoke(keys, [command, "--help"]).output


def test_the_commands_import_no_sql() -> None:
    script = "import sys, registry.keys.commands; print([n for n in ('sqlalchemy', 'alembic', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
