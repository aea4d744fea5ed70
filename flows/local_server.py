"""A server process of one's own on this machine, as `macrofleet serve` starts it: for the demo and the benchmarks."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from registry.errors import NotReady
from registry.leash import leash
from registry.settings import StoreSettings

_READY_SECONDS = 180.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02


def store_environment(store: StoreSettings) -> dict[str, str]:
    """The variables that point a process at a store; what is not set is empty, which counts as unset."""
    return {
        "MACROFLEET_STORE_URL": store.url,
        "MACROFLEET_STORE_ENDPOINT_URL": store.endpoint_url or "",
        "MACROFLEET_STORE_REGION": store.region or "",
        "MACROFLEET_STORE_ACCESS_KEY": store.access_key or "",
        "MACROFLEET_STORE_SECRET_KEY": store.secret_key.get_secret_value() if store.secret_key else "",
    }


class LocalServer:
    """`macrofleet serve` on free ports; entering the context waits until it is ready for traffic.

    Args:
        folder: takes its log (`server.log`) and, while it runs, its addresses (`server.url`).
        environment: settings on top of this process's environment.
        detach: leave it running at the end of the context; `pid` says whom to stop.
        arguments: more of the command line; with `--replicas`, the addresses are the proxy's.
        cores: the processor's cores that it may use; None leaves that to the kernel.
        code: the folder of the code that it runs; None is that of the installed package, or of the working folder.
        ready_seconds: how long it may take.
        module: what is started, with the command line of `macrofleet`.

    Attributes:
        url: where tickets are sent to.
        operator_url: where `/admin` and `/metrics` are.
        log: what it writes.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        detach: bool = False,
        arguments: Sequence[str] = (),
        cores: Collection[int] | None = None,
        code: Path | None = None,
        ready_seconds: float = _READY_SECONDS,
        module: str = "macrofleet",
    ) -> None:
        self.url = self.operator_url = ""
        self.log = folder / "server.log"
        self._address = folder / "server.url"
        self._environment = {**os.environ, "MACROFLEET_OPERATOR_PORT": "0", **environment}
        self._detach = detach
        self._arguments = list(arguments)
        self._cores = cores
        self._code = code
        self._ready_seconds = ready_seconds
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """Public and operator's address of each process, as it wrote them."""
        lines = (line.split() for line in self._address.read_text().splitlines())
        return [(parts[0], parts[1]) for parts in lines if len(parts) == 2]

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        """Start it and wait.

        Raises:
            NotReady: it ended or did not become ready in time; names its log.
        """
        self._address.unlink(missing_ok=True)  # of a server before this one that was killed
        command = [sys.executable, "-m", self._module, "serve", "--port", "0", "--ready-file", str(self._address)]
        command += self._arguments
        if not self._detach:
            # Whoever is told to end while it is being started has no process yet to stop.
            command = [*leash(), *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._code,
                # Ctrl-C is this process's to handle; it stops the server by itself.
                start_new_session=True,
            )
        try:
            if self._cores is not None:
                # Before it has threads, which keep what the first one had.
                os.sched_setaffinity(self._process.pid, self._cores)
            self.url, self.operator_url = self._wait_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None or not self._detach:
            self.stop()

    def stop(self) -> None:
        """End it: ask, and after twenty seconds insist."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> tuple[str, str]:
        deadline = time.monotonic() + self._ready_seconds
        while time.monotonic() < deadline and process.poll() is None:
            addresses = self._address.read_text().split() if self._address.exists() else []
            if addresses and _is_ready(addresses[0]):
                return addresses[0], addresses[1] if len(addresses) > 1 else ""
            time.sleep(_POLL_SECONDS)
        raise NotReady("the server did not become ready", remedy=f"Its log is {self.log}.")


def _is_ready(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    return False
