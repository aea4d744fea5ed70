"""A supervisor of replicas in a process of its own, and replicas of a few lines that keep a record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

import registry
from tests.serving.helpers import eventually

PROJECT = Path(registry.__file__).parent.parent

# A process that behaves as a server does towards its supervisor, and keeps a record. What it does wrong, `FAULT` says.
FAKE = """
import json, os, signal, socket, sys, time
folder, number, fault = os.environ["FOLDER"], os.environ["MACROFLEET_REPLICA"], os.environ.get("FAULT", "")

def note(what):
    with open(folder + "/record", "a") as record:
        record.write(f"{what} {number} {os.getpid()}\\n")

def stop(*_):
    note("stopped")
    if fault != "does not end":
        listener.setblocking(False)  # who has come before is answered, as a server does it

while os.path.exists(folder + "/away-" + number):
    time.sleep(0.01)
note("started")
if fault == "refuses" and number == "1":
    sys.exit(1)
if fault == "watches":
    from serving.replicas.process import end_with_supervisor
    end_with_supervisor()
listener = socket.create_server(("127.0.0.1", int(os.environ["MACROFLEET_PORT"])))
signal.signal(signal.SIGTERM, stop)
path = sys.argv[sys.argv.index("--ready-file") + 1]
with open(path + "~", "w") as file:
    file.write(f"http://127.0.0.1:{listener.getsockname()[1]}\\n" * 2)
os.rename(path + "~", path)

def preloaded():
    # For how many on the ring it has its share: for whoever is there, at once.
    try:
        members = open(folder + "/envoy/ring").read().split()
    except FileNotFoundError:
        return None
    note(f"prepared-for-{len(members)}")
    return len(members)

while True:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        os._exit(0)
    with connection:
        request = connection.recv(1000)
        unready = os.path.exists(folder + "/unready")
        if unready:
            note("asked")
        status, body = b"503 x" if unready else b"200 OK", number.encode()
        if b"/readyz" in request:
            body = json.dumps({"share_of": preloaded()}).encode()
        head = b"HTTP/1.1 %b\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status, len(body))
        connection.sendall(head + body)
"""

SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from serving.replicas import states as replica_states, group as replicas
from serving.logs import configure_logs
configure_logs()
replica_states.STOP_SECONDS = float(sys.argv[4])
asyncio.run(replicas.supervise(json.loads(sys.argv[1]), json.loads(sys.argv[2]), ready_file=Path(sys.argv[3])))
"""


@dataclass
class Supervised:
    """A supervisor in a process of its own."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def ready_file(self) -> Path:
        return self.folder / "urls"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def record(self) -> list[tuple[str, int, int]]:
        """What the replicas did, in order: what, which, and as which process."""
        path = self.folder / "record"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(what, int(number), int(pid)) for what, number, pid in (line.split() for line in lines)]

    def started(self, number: int) -> list[int]:
        return [pid for what, one, pid in self.record() if (what, one) == ("started", number)]

    async def urls(self) -> list[list[str]]:
        await eventually(lambda: self.ready_file.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        return [line.split() for line in self.ready_file.read_text().splitlines()]

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        await eventually(lambda: self.process.poll() is not None)
        assert self.process.returncode is not None
        return self.process.returncode


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def supervised(folder: Path, command: Sequence[str], environment: dict[str, str]) -> Iterator[Supervised]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stderr=log)
    made = Supervised(process, folder)
    try:
        yield made
    finally:
        process.kill()
        process.wait()
        for _, _, pid in made.record():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def fakes(folder: Path, replicas: int, *, fault: str = "", stop_seconds: float = 20) -> Iterator[Supervised]:
    (folder / "fake.py").write_text(FAKE)
    command = json.dumps([sys.executable, str(folder / "fake.py")])
    own = {"FOLDER": str(folder), "FAULT": fault, "MACROFLEET_PORT": "0", "PYTHONPATH": str(PROJECT)}
    environments = json.dumps([{**own, "MACROFLEET_REPLICA": str(number)} for number in range(replicas)])
    arguments = [command, environments, str(folder / "urls"), str(stop_seconds)]
    with supervised(folder, [sys.executable, "-c", SUPERVISOR, *arguments], dict(os.environ)) as made:
        yield made


async def until_listening(client: httpx.AsyncClient, url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.get(url)
            except httpx.TransportError:
                await asyncio.sleep(0.01)
            else:
                return
