"""The server beside a run: what it is asked, and what comes of that."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

from benchmarks.simulation import probe
from benchmarks.simulation.probe import Probe


class FakeClient:
    """Answers in a millisecond what it knows, in ten what it does not."""

    known: ClassVar[set[str]] = set()
    asked: ClassVar[list[str]] = []
    all_asked = threading.Event()

    def __init__(self, url: str) -> None:
        if url == "broken":
            raise ConnectionRefusedError(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        pass

    def suggest(self, tenant: str, body: bytes) -> float:
        self.asked.append(tenant)
        if len(self.asked) == 12:
            self.all_asked.set()
        warm = tenant in self.known
        self.known.add(tenant)
        return 0.001 if warm else 0.010


class FakeServer:
    operator_url = ""
    pid = os.getpid()

    def __init__(self, url: str = "") -> None:
        self.url = url


def test_it_asks_for_each_tenant_first_later_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeClient.known, FakeClient.asked, FakeClient.all_asked = set(), [], threading.Event()
    monkeypatch.setattr(probe, "Client", FakeClient)
    monkeypatch.setattr(probe, "unload", lambda server, tenant: FakeClient.known.discard(tenant))
    monkeypatch.setattr(probe, "processor_seconds", lambda pid: float(len(FakeClient.asked)))
    server: Any = FakeServer()
    made = Probe(server, ["a", "b", "c"], [b""], seconds=0.01)
    with made.running():
        assert FakeClient.all_asked.wait(10)
    found = made.measured(model_bytes=1, rps=100.0)
    assert (found.store_seconds, found.warm_seconds, found.disk_seconds) == (0.010, 0.001, 0.010)
    # A second of the processor a request, the later ones' included: nothing is left that the first ones take beyond.
    assert (found.store_core_seconds, found.disk_core_seconds) == (0.0, 0.0)
    assert [*"aaaabbbbcccc"] == FakeClient.asked


def test_what_goes_wrong_is_raised_where_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Client", FakeClient)
    server: Any = FakeServer("broken")
    with pytest.raises(ConnectionRefusedError), Probe(server, ["a"], [b""], seconds=0.01).running():
        pass
