"""A server process of one's own on this machine, as `macrofleet serve` starts it: for the demo and the benchmarks."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from registry.errors import NotReady
from registry.settings import StoreSettings

_READY_SECONDS = 180.0
_STOP_SECONDS = 20.0


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
    """`macrofleet serve` on a free port; entering the context waits until it is ready for traffic.

    Args:
        folder: takes its log (`server.log`) and, while it runs, its address (`server.url`).
        environment: settings on top of this process's environment.
        detach: leave it running at the end of the context; `pid` says whom to stop.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, detach: bool = False) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._detach = detach
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

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
        command = [sys.executable, "-m", "macrofleet", "serve", "--port", "0", "--ready-file", str(self._address)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                # Ctrl-C is this process's to handle; it stops the server by itself.
                start_new_session=True,
            )
        try:
            self.url = self._wait_ready(self._process)
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

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    @property
    def _address(self) -> Path:
        return self._folder / "server.url"

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            url = self._address.read_text().strip() if self._address.exists() else ""
            if url and _is_ready(url):
                return url
            time.sleep(0.05)
        raise NotReady("the server did not become ready", remedy=f"Its log is {self._log}.")


def _is_ready(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    return False
