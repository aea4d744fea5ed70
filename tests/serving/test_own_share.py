"""A replica's own tenants: who is on the ring, and what comes of it for preloading."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from benchmarks.fleets import publish_tenants, tenant_names
from registry.errors import InvalidInput, NotReady
from registry.store.local import LocalStore
from serving.data_plane import DataPlane
from serving.proxy.own_share import OwnShare
from serving.proxy.ring import replica_ring
from serving.proxy.ring_members import check_ring, ring_members, write_ring
from serving.settings import ServingSettings
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram

TENANTS = tenant_names(60)


def test_who_is_on_the_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ring_members("server-2, server-1,,server-2") == ("server-2", "server-1")
    write_ring(tmp_path / "ring", ["replica-0", "replica-1"])
    assert ring_members(f"file:{tmp_path}/ring") == ("replica-0", "replica-1")

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("serving.local", 8000)
        found = [("10.0.0.2", port), ("10.0.0.1", port), ("10.0.0.2", port), ("fd00::1", port, 0, 0)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert ring_members("dns:serving.local:8000") == ("10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000")


def test_a_ring_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReady):
        ring_members(f"file:{tmp_path}/ring")

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NotReady):
        ring_members("dns:serving.local:8000")


def test_those_who_have_an_address_are_on_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, _: None, **__: object) -> list[str]:
        if host == "pod-1.svc":
            raise socket.gaierror("no such name")
        return [host]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert ring_members("hosts:pod-0=pod-0.svc,pod-1=pod-1.svc,pod-2=pod-2.svc") == ("pod-0", "pod-2")
    assert ring_members("hosts:pod-0.svc") == ("pod-0.svc",)
    assert check_ring("hosts:pod-0=pod-0.svc")


def test_pods_are_counted_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is being replaced has no address for a while, and keeps its tenants; the least number is always there."""
    there: set[str] = set()

    def look_up(host: str, _: None, **__: object) -> list[str]:
        if host not in there:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [host]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    source = check_ring("pods:set.svc:2..6")
    assert ring_members(source) == ("set-0", "set-1")
    there |= {"set-0.svc", "set-3.svc"}
    assert ring_members(source) == ("set-0", "set-1", "set-2", "set-3")
    there.add("set-5.svc")
    assert len(ring_members(source)) == 6


@pytest.mark.parametrize("source", ["hosts:a=a.svc,b=b.svc", "pods:set.svc:1..2"])
def test_a_dns_that_is_away_leaves_the_share_as_it_is(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or every replica would think that it is alone, and fetch the whole fleet."""
    away = False

    def look_up(host: str, _: None, **__: object) -> list[str]:
        if away:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [host]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    share = OwnShare(source, "a" if source.startswith("hosts") else "set-0")
    assert share.refresh()
    before = share.of(TENANTS)
    assert 0 < len(before) < len(TENANTS)
    away = True
    assert not share.refresh()
    assert share.of(TENANTS) == before


@pytest.mark.parametrize(
    "source",
    [
        "pods:",
        "pods:set:1..2",
        "pods:set.svc",
        "pods:set.svc:3",
        "pods:set.svc:0..2",
        "pods:set.svc:3..2",
        "",
        " , ",
        "file:",
        "hosts:",
        "hosts:a=",
        "hosts:=a",
        "dns:",
        "dns:name",
        "dns:name:",
        "dns::1",
        "dns:name:70000",
    ],
)
def test_what_names_no_ring(source: str) -> None:
    with pytest.raises(InvalidInput, match="no members"):
        check_ring(source)


def test_settings_know_the_ring_whole() -> None:
    for given in ({"ring": "a,b"}, {"ring_key": "a"}):
        with pytest.raises(InvalidInput, match="both, or neither"):
            ServingSettings.model_validate(given)
    assert ServingSettings.model_validate({"preload": "share"}).preload.models == "share"


def test_shares_make_up_all_tenants() -> None:
    keys = ["a", "b", "c"]
    shares: list[str] = []
    for key in keys:
        share = OwnShare(",".join(keys), key)
        assert share.refresh()
        assert not share.refresh()
        shares += share.of(TENANTS)
    assert sorted(shares) == TENANTS


def test_a_replica_that_starts_counts_itself(tmp_path: Path) -> None:
    write_ring(tmp_path / "ring", ["b"])
    share = OwnShare(f"file:{tmp_path}/ring", "a")
    share.refresh()
    assert sorted(share.of(TENANTS)) == replica_ring(["a", "b"]).share("a", TENANTS)


def test_whoever_knows_of_no_ring_has_all(tmp_path: Path) -> None:
    alone = OwnShare(None, None)
    assert not alone.refresh()
    assert alone.of(TENANTS) == TENANTS
    unread = OwnShare(f"file:{tmp_path}/ring", "a")
    assert not unread.refresh()
    assert unread.of(TENANTS) == TENANTS
    write_ring(tmp_path / "ring", ["a", "b"])
    assert unread.refresh()
    kept = unread.of(TENANTS)
    (tmp_path / "ring").unlink()
    assert not unread.refresh()
    assert unread.of(TENANTS) == kept


@pytest.mark.anyio
async def test_what_is_preloaded_follows_the_ring(
    tmp_path: Path, store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    tenants = TENANTS[:8]
    publish_tenants(store, tenants, program=bag.digest, spec=bag.spec)
    write_ring(tmp_path / "ring", ["a", "b"])
    settings = make_settings(preload="share", ring=f"file:{tmp_path}/ring", ring_key="a")
    data_plane = DataPlane(settings, store)

    async def until_installed(wanted: list[str], *, share_of: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not data_plane.readiness().ready or data_plane.readiness().share_of != share_of:
                await asyncio.sleep(0.01)
        assert data_plane.readiness().progress.on_disk == len(wanted)
        assert installed(settings.disk_folder) >= set(wanted)

    async with data_plane.running():
        share = replica_ring(["a", "b"]).share("a", tenants)
        assert 0 < len(share) < len(tenants)
        await until_installed(share, share_of=2)
        assert installed(settings.disk_folder) == set(share)
        write_ring(tmp_path / "ring", ["a"])  # b has left: its tenants are a's now
        await until_installed(tenants, share_of=1)


def installed(disk: Path) -> set[str]:
    return {path.relative_to(disk).parts[-3] for path in disk.rglob("manifest.json")}
