"""A Prefect server of one's own on this machine, with its scheduler: for `macrofleet flows serve`, and for tests.

Prefect's own embedded server ("ephemeral") runs no scheduler and no triggers, so this starts `prefect server start`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from registry.errors import NotReady
from registry.leash import leash

HOST = "127.0.0.1"
_READY_SECONDS = 300.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
# Loopback, and nobody's page: what it shows is in the API, and in the store.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
}


class PrefectServer:
    """`prefect server start` on loopback; entering the context waits until it answers.

    Args:
        log: what it writes is appended here.
        port: 0 chooses a free one.
        ui: serve Prefect's pages, too.
        environment: settings on top of this process's environment; `PREFECT_HOME` says where its database lies.

    Attributes:
        api_url: for `PREFECT_API_URL`.
    """

    def __init__(
        self, log: Path, *, port: int = 0, ui: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        self._port = port or _free_port()
        self._log = log
        self._ui = ui
        self._environment = {**_QUIET, **os.environ, **(environment or {})}
        # It would have the server ask another one.
        self._environment.pop("PREFECT_API_URL", None)
        self._process: subprocess.Popen[bytes] | None = None
        self.api_url = f"http://{HOST}:{self._port}/api"

    def __enter__(self) -> Self:
        """Start it and wait.

        Raises:
            NotReady: the port is taken, or it does not come up in five minutes; names its log.
        """
        if not _is_free(self._port):
            raise NotReady(
                f"port {self._port} is taken",
                remedy=f"Is it a Prefect server? Set PREFECT_API_URL={self.api_url} to use it; or choose another --port.",
            )
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash(), *command, "--ui" if self._ui else "--no-ui"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is this process's to handle; it stops the server by itself
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it: ask, and after twenty seconds insist. Stopping twice does nothing."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.api_url}/health", timeout=5):  # noqa: S310  # ours, on loopback
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(_POLL_SECONDS)
        raise NotReady("Prefect's server did not come up", remedy=f"Its log is {self._log}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
