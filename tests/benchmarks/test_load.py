"""The generator's process as the benches start it, against a server that answers as it is told."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.load import Plan, Run, http_request, run_load, running

PATIENCE = 30.0
SLOW_SECONDS = 0.05
# Of a pipe's 64 KiB; the last page may stay part empty.
NEARLY_FULL = 60_000


class Scripted(asyncio.Protocol):
    """A server that answers as the path says: a status, or one of the words below; the body comes back as it was."""

    seen: list[bytes]
    connections: int
    open: int
    most_open: int

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        server = type(self)
        server.connections += 1
        server.open += 1
        server.most_open = max(server.most_open, server.open)
        self.transport = transport
        self.data = b""

    def connection_lost(self, exc: Exception | None) -> None:
        type(self).open -= 1

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        self.data = b""
        path = head.split(b" ")[1].strip(b"/").decode()
        self.seen.append(body)
        self.answer(path, body)

    def answer(self, path: str, body: bytes) -> None:
        later = asyncio.get_running_loop().call_later
        usual = _answer(200, body)
        if path == "never":
            pass
        elif path == "slow":
            later(SLOW_SECONDS, self.transport.write, usual)
        elif path == "pieces":
            for place in range(len(usual)):
                later(place * 1e-4, self.transport.write, usual[place : place + 1])
        elif path == "hangup":
            self.transport.abort()
        elif path == "half":
            self.transport.write(usual[:-1])
            self.transport.close()
        elif path == "bye":
            self.transport.write(usual)
            self.transport.close()
        elif path == "both":
            self.transport.write(usual + usual)
        elif path == "chunked":
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        elif path == "garbage":
            self.transport.write(b"SSH-2.0-OpenSSH\r\nContent-Length: 0\r\n\r\n")
        elif path == "shouted":
            self.transport.write(usual.replace(b"content-length: ", b"CONTENT-LENGTH:"))
        else:
            self.transport.write(_answer(int(path), body))


def _answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@contextmanager
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    """A `Scripted` server in a thread of its own: its URL, and what it saw."""

    class Server(Scripted):
        seen: list[bytes] = []  # noqa: RUF012  # one class a server
        connections = open = most_open = 0

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = runner.run(loop.create_server(Server, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Server
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(PATIENCE)
            server.close()


@pytest.fixture
def server() -> Iterator[tuple[str, type[Scripted]]]:
    with scripted() as found:
        yield found


def plan(url: str, paths: Sequence[str], at: Sequence[float] | None = None, **more: Any) -> Plan:
    """A request for each of the paths, numbered in its body; with `at` an open loop."""
    requests = [http_request(url, f"/{path}", str(number).encode()) for number, path in enumerate(paths)]
    picks = np.arange(len(paths))
    times = None if at is None else np.array(at, np.float64)
    return Plan(url=url, requests=requests, picks=picks, at=times, **{"connections": 1, **more})


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread or process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def waiting_bytes(run: Run) -> int:
    """How much the generator has written that was not read yet."""
    (count,) = struct.unpack("i", fcntl.ioctl(run._output.fileno(), termios.FIONREAD, bytes(4)))
    assert isinstance(count, int)
    return count


def test_nothing_is_lost_when_the_generator_is_stopped_while_it_writes(
    server: tuple[str, type[Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write to a pipe that was interrupted has written a part; PYTHONUNBUFFERED takes away who writes the rest."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    url, _ = server
    large = Plan(
        url=url, requests=[http_request(url, "/200", b"x" * 100_000)], picks=np.zeros(30, np.int64), keep_answers=True
    )
    with running(large) as run:
        until(lambda: waiting_bytes(run) > NEARLY_FULL)
        pid = run._process.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        os.kill(pid, signal.SIGCONT)
        samples = run.result()
    assert [len(answer) for answer in samples.answers] == [100_000] * 30


def test_what_else_the_generator_prints_is_not_taken_for_its_samples(
    server: tuple[str, type[Scripted]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit\nprint('5 at the start', flush=True)\natexit.register(print, '5 at the end')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_load(plan(server[0], ["200"])).status.tolist() == [200]
    assert capfd.readouterr() == ("", "5 at the start\n5 at the end\n")


def test_a_generator_that_ends_before_it_has_read_its_plan_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with 1 before it began"):
        run_load(plan("http://127.0.0.1:1", ["200"] * 10_000))
