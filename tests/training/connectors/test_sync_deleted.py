"""A synchronisation and a deletion of its tenant: what was deleted does not come back by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import macrofleet
from benchmarks.zendesk_server import EMAIL, TOKEN, Account, ZendeskServer
from registry.deletion.places import forget_own
from registry.deletion.tombstones import bury
from registry.errors import TenantDeleted
from registry.layout import lake_prefix, tenant_prefix
from registry.store.local import LocalStore
from tests.training.connectors.zendesk_world import small_account
from training.connectors.zendesk_run import sync_zendesk
from training.connectors.zendesk_sync import SyncOptions, SyncReport
from training.lake import Lake


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_ZENDESK_TOKEN", TOKEN)
    monkeypatch.setenv("MACROFLEET_ZENDESK_EMAIL", EMAIL)
    return LocalStore(tmp_path / "store")


def deleted(store: LocalStore) -> None:
    bury(store, "acme", token=0)
    forget_own(store, "acme")


def traces(store: LocalStore) -> list[str]:
    return [info.key for prefix in (lake_prefix("acme"), tenant_prefix("acme")) for info in store.list(prefix)]


def run(
    store: LocalStore,
    server: ZendeskServer,
    *,
    restart: bool = False,
    step: Callable[[str, float], None] = lambda _text, _share: None,
) -> SyncReport:
    return sync_zendesk(
        store, "acme", subdomain="shop", options=SyncOptions(since=0, rate=0, threads=1), step=step, export_rate=0,
        restart=restart, base_url=server.url,
    )  # fmt: skip


@pytest.mark.parametrize("place", ["reading macros", "tickets to read", "writing examples"])
def test_a_deletion_meanwhile_leaves_nothing(store: LocalStore, place: str) -> None:
    def step(text: str, _share: float) -> None:
        if place in text:
            deleted(store)

    with ZendeskServer(small_account()) as server, pytest.raises(TenantDeleted):
        run(store, server, step=step)
    assert traces(store) == []


def test_a_deleted_tenant_comes_back_only_by_saying_so(store: LocalStore) -> None:
    with ZendeskServer(small_account()) as server:
        run(store, server)
        deleted(store)
        server.targets.clear()
        with pytest.raises(TenantDeleted, match="--restart"):
            run(store, server)
        assert (traces(store), server.targets) == ([], [])
        assert run(store, server, restart=True).added == 5
    assert Lake(store).has("acme")


def test_macros_alone_bring_nobody_back(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted(store)
    monkeypatch.setenv("MACROFLEET_CHATWOOT_TOKEN", "word")
    with ZendeskServer(Account()) as server:
        said = CliRunner().invoke(
            macrofleet.app,
            ["tickets", "sync", "chatwoot", "--tenant", "acme", "--base-url", server.url, "--account", "7"],
        )
        assert not server.targets
    assert said.exit_code == 1
    assert isinstance(said.exception, SystemExit | TenantDeleted)
    assert traces(store) == []
