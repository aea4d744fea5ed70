"""The S3 adapter where the way to the server is bad, and where the server is gone for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import stamina

from registry.errors import PreconditionFailed, StoreUnavailable
from registry.files import put_immutable
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from tests.tcp_proxy import TcpProxy

DATA = bytes(range(251)) * 20_000  # 5 MB


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ours and boto3's retries come at once."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with TcpProxy() as made:
        yield made


@pytest.fixture
def store(proxy: TcpProxy, s3_settings: StoreSettings) -> ObjectStore:
    proxy.port = port_of(s3_settings)
    return open_store(s3_settings.model_copy(update={"endpoint_url": proxy.url}))


def port_of(settings: StoreSettings) -> int:
    port = urlsplit(settings.endpoint_url or "").port
    assert port
    return port


def reads(proxy: TcpProxy) -> int:
    return sum(line.startswith("GET") for line in proxy.requests)


def begin(proxy: TcpProxy, *cuts: int) -> None:
    """End the connection in use; the next ones are cut after so many bytes."""
    proxy.drop()
    proxy.requests.clear()
    proxy.cut_after = list(cuts)


def test_an_object_that_breaks_off_is_read_again(store: ObjectStore, proxy: TcpProxy) -> None:
    etag = store.put("a", DATA)
    begin(proxy, 100_000, 3_000_000)
    found = store.get("a")
    assert (found.data, found.etag, reads(proxy)) == (DATA, etag, 3)


def test_a_stream_goes_on_where_it_broke_off(store: ObjectStore, proxy: TcpProxy) -> None:
    store.put("a", DATA)
    begin(proxy, 1_000_000, 2_000_000, 1_500_000)
    passed: list[int] = []
    with store.open("a") as stream:
        while chunk := stream.read(100_000):
            passed.append(len(chunk))
            assert chunk == DATA[sum(passed[:-1]) : sum(passed)]
    assert (sum(passed), reads(proxy)) == (len(DATA), 4)


def test_a_stream_never_goes_on_in_another_object(store: ObjectStore, proxy: TcpProxy) -> None:
    store.put("a", DATA)
    begin(proxy, 1_000_000)
    with store.open("a") as stream:
        assert stream.read(500_000) == DATA[:500_000]
        store.put("a", bytes(len(DATA)))
        with pytest.raises(PreconditionFailed):
            stream.read()


@pytest.mark.parametrize("how", ["get", "open"])
def test_what_keeps_breaking_off_is_given_up(store: ObjectStore, proxy: TcpProxy, how: str) -> None:
    store.put("a", DATA)
    begin(proxy, *[1_000] * 2, *[0] * 20)

    def read() -> bytes:
        if how == "get":
            return store.get("a").data
        with store.open("a") as stream:
            return stream.read()

    with pytest.raises(StoreUnavailable, match="broke a off") as caught:
        read()
    # A stream has come somewhere by the first two, and then tries as often as an object does.
    assert reads(proxy) == {"get": 3, "open": 4}[how], "boto3 does not try again what it has answered"
    assert caught.value.remedy


def test_a_write_whose_answer_was_lost_is_ones_own_success(store: ObjectStore, proxy: TcpProxy) -> None:
    lost: list[bytes] = []

    def first(request: bytes) -> bool:
        if request.startswith(b"PUT") and not lost:
            lost.append(request)
            return True
        return False

    proxy.lose_answer = first
    put_immutable(store, "a", b"once")
    assert lost
    assert store.get("a").data == b"once"


def test_a_server_that_was_gone_is_found_again(tmp_path: Path, proxy: TcpProxy) -> None:
    server = LocalS3(tmp_path / "s3")
    with server:
        proxy.port = port_of(server.settings)
        store = open_store(server.settings.model_copy(update={"endpoint_url": proxy.url}))
        store.put("a", DATA)
        server.stop()
        proxy.drop()
        for call in (lambda: store.get("a"), lambda: store.put("b", b""), lambda: list(store.list())):
            with pytest.raises(StoreUnavailable, match="cannot be used"):
                call()
        server.start()
        proxy.port = port_of(server.settings)
        assert store.get("a").data == DATA
        assert store.put("b", b"1")
