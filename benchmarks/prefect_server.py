"""A Prefect server of one's own on loopback, over SQLite in a folder."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from registry.errors import NotReady

_READY_SECONDS = 180.0
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def local_prefect(folder: Path) -> Iterator[dict[str, str]]:
    """Yields the environment that points a process at the server, which ends with the context.

    Args:
        folder: takes its database and its log.

    Raises:
        NotReady: it does not come up; names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    environment = {
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_ready(process, port, log)
        yield environment
    finally:
        # With the server that it started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/api/health")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(_POLL_SECONDS)
    raise NotReady("the Prefect server did not become ready", remedy=f"Its log is {log}.")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
