"""What every server of the comparison can be asked, and how its processes are started and ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers.cgroup import MemoryGroup
from benchmarks.peers.environments import ENVIRONMENTS
from benchmarks.peers.results import PeerInfo
from benchmarks.peers.tree import ProcessTree
from benchmarks.peers.world import World

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.05
_PORTS = range(20_000, 30_000)
_CALL_SECONDS = 120.0
_APPS = Path(__file__).with_name("apps")
#: One thread for TensorFlow, as in our server: requests run beside each other, not inside each other.
TENSORFLOW = {"TF_NUM_INTEROP_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
#: For servers that unload models. glibc would raise the size from which it maps memory once a large block was freed, take the
#: next tensors from its heap, and keep what unloaded models leave between small objects (mallopt(3)).
UNLOADING = {**TENSORFLOW, "MALLOC_MMAP_THRESHOLD_": "1048576"}


class PeerFailed(Exception):
    """A server could not do what it was told; carries its own words."""


class PeerCannot(Exception):
    """A server has no way of doing it; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is started.

    Attributes:
        folder: of its own, empty; takes its log and whatever it writes.
        group: bounds its memory.
        world: what it serves.
        most: how many models it may keep loaded.
    """

    folder: Path
    group: MemoryGroup
    world: World
    most: int


class Peer(ABC):
    """A server over the tenants of a world.

    Attributes:
        name: in results.
        environment: in `benchmarks.peers.environments`; None is this project's own.
        explicit: whether models must be loaded before they can be asked, by `load`.
        evicts: whether it serves more tenants than it keeps loaded.
        load_threads: models that are loaded at once.
        tenants_at_url: how many of the tenants are asked at `url`, which load is sent to; None for all.
        most_tenants: what it is tried with at most; more would say nothing new.
        also_with: another number of tenants that it is measured with: about what it can hold below the memory bound.
        variant: whether it is another one over other files, of which neither `swap` nor `zipf` are taken.
    """

    name: str
    environment: str | None
    explicit = False
    evicts = True
    load_threads = 1
    tenants_at_url: int | None = None
    most_tenants = 2000
    also_with: int | None = None
    variant = False

    def __init__(self, place: Place) -> None:
        self.place = place
        self.url = ""
        self.tree = ProcessTree(place.group)
        self._cores: set[int] | None = None
        self.log = place.folder / "server.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    @abstractmethod
    def info(cls) -> PeerInfo:
        """What it is, and what is set."""

    @abstractmethod
    def start(self, tenants: Sequence[str]) -> None:
        """Start it, and wait until it takes requests. Raises PeerFailed."""

    @abstractmethod
    def request(self, tenant: str, body: bytes, text: str) -> bytes:
        """A whole HTTP request.

        Args:
            body: as our server is asked.
            text: what a model is to read of that.
        """

    @abstractmethod
    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """The suggestions in an answer: label and probability, best first."""

    def url_of(self, tenant: str) -> str:  # noqa: ARG002  # one address for all, mostly
        """Where a tenant is asked."""
        return self.url

    def load(self, tenant: str) -> None:  # noqa: B027  # most load when they are asked
        """Have a tenant's model loaded, where that is not what a request does. Raises PeerFailed."""

    @abstractmethod
    def replace(self, tenant: str) -> None:
        """Have the next version of a tenant's model served in place of what is. Raises PeerFailed, PeerCannot."""

    def stop(self) -> None:
        """End it, whatever state it is in."""
        self.tree.kill()
        self.place.group.kill()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def keep_to(self, cores: set[int]) -> None:
        """Have it run on these cores only, with what it starts later."""
        self._cores = cores
        self.tree.keep_to(cores)

    def has_ended(self) -> bool:
        """Whether a process that was started is gone."""
        return any(process.poll() is not None for process in self._processes)

    def last_words(self) -> str:
        """The end of its log, without what TensorFlow says of the machine, and how it ended."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        codes = [process.returncode for process in self._processes if process.poll() is not None]
        ended = f" (it ended with {', '.join(map(str, codes))})" if codes else ""
        killed = self.place.group.killed()
        bound = f" (at its memory bound the kernel ended {killed} of its processes)" if killed else ""
        return f"{last_lines(text)}{ended}{bound}".strip()

    def launch(self, command: Sequence[str], environment: Mapping[str, str], *, log: Path | None = None) -> None:
        """Start a process; what it prints goes to the log."""
        own = os.sched_getaffinity(0)
        with (log or self.log).open("ab") as output, _on(self._cores or own):
            process = subprocess.Popen(
                [*self.place.group.enter(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.place.folder,
                env={**clean_environment(os.environ), **TENSORFLOW, **environment},
                start_new_session=True,  # Ctrl-C is this process's to handle
            )
        self._processes.append(process)
        self.tree.add(process.pid)

    def wait_for_url(self, log: Path | None = None) -> str:
        """The URL that a process prints to its log when it is ready. Raises PeerFailed."""

        def read() -> str | None:
            lines = (log or self.log).read_text(errors="replace").split("\n")[:-1]
            return next((line for line in lines if line.startswith("http://")), None)

        return self._wait(read)

    def wait_until_answering(self, url: str, path: str) -> None:
        """Wait for a 200. Raises PeerFailed."""

        def ask() -> str | None:
            with contextlib.suppress(PeerFailed):
                return "ready" if call(url, "GET", path, seconds=2.0)[0] == http.client.OK else None
            return None

        self._wait(ask)

    def _wait(self, found: Callable[[], str | None]) -> str:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and not self.has_ended():
            value = found()
            if value is not None:
                return value
            time.sleep(_POLL_SECONDS)
        raise PeerFailed(f"it did not become ready: {self.last_words()}")


def python_of(environment: str) -> str:
    """An environment's interpreter."""
    return str(ENVIRONMENTS[environment].python)


def saved_models(peer: Peer, tenants: Sequence[str], found: Callable[[str], Path]) -> Path:
    """A folder with `<tenant>/1` for each tenant and the spare ones, which leads to its SavedModel.

    Args:
        found: where a tenant's is.
    """
    root = peer.place.folder / "models"
    for tenant in [*tenants, *peer.place.world.spare]:
        (root / tenant).mkdir(parents=True)
        (root / tenant / "1").symlink_to(found(tenant))
    return root


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def app(name: str) -> str:
    """The path of a file of `apps`."""
    return str(_APPS / name)


def apps_folder() -> str:
    """For `PYTHONPATH`."""
    return str(_APPS)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what would lead another interpreter to this project, or a server to settings of ours."""
    dropped = ("PYTHON", "VIRTUAL_ENV", "MACROFLEET_", "MLSERVER_", "RAY_", "MMS_", "TF_")
    return {name: value for name, value in environment.items() if not name.startswith(dropped)}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, all below 32,768: Multi Model Server takes no others."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found


def http_request(url: str, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request, of JSON, on a connection that is kept."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n{lines}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def call(url: str, method: str, path: str, body: bytes = b"", *, seconds: float = _CALL_SECONDS) -> tuple[int, bytes]:
    """One request and its answer. Raises PeerFailed: there was none."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    with contextlib.closing(connection):
        try:
            # A body that is none must not be said to be JSON: Multi Model Server then reads it and not the query.
            connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as problem:
            raise PeerFailed(f"{method} {path}: {type(problem).__name__}: {problem}") from None


def told(url: str, method: str, path: str, body: bytes = b"") -> bytes:
    """Like `call`, of which anything but 200 is a failure. Raises PeerFailed with the answer's own words."""
    status, answer = call(url, method, path, body)
    if status != http.client.OK:
        raise PeerFailed(call_failed(f"{method} {path}", status, answer))
    return answer


def call_failed(what: str, status: int, answer: bytes) -> str:
    """What came instead of a 200."""
    return f"{what}: {status} {answer.decode(errors='replace').strip()[:300]}"


def text_json(text: str) -> bytes:
    """The body of a request to whoever takes a text."""
    return json.dumps({"text": text}).encode()


def last_lines(text: str, *, most: int = 500) -> str:
    """The end of a log, without TensorFlow's lines on the machine's processor and graphics."""
    noise = ("I0000", "W0000", "E0000", "WARNING: All log messages", "WARNING: sun.reflect", "Warning: MMS is using")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(noise)]
    return "\n".join(lines)[-most:]


def labels_json(answer: bytes) -> list[tuple[str, float]]:
    """The suggestions in `{"labels": […], "scores": […]}`."""
    found = json.loads(answer)
    return list(zip(found["labels"], found["scores"], strict=True))
