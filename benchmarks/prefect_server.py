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
_ATTEMPTS = 3
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
    log = folder / "server.log"
    with contextlib.ExitStack() as stack:
        for attempt in range(_ATTEMPTS):  # somebody else may take the port between the choice and the start
            port = _free_port()
            environment = {
                "DO_NOT_TRACK": "1",
                "PREFECT_HOME": str(folder),
                "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_UI_ENABLED": "false",
            }
            process = stack.enter_context(_started(port, environment, log))
            if _is_ready(process, port):
                break
            if process.poll() is None or attempt == _ATTEMPTS - 1:
                raise NotReady("the Prefect server did not become ready", remedy=f"Its log is {log}.")
        yield environment


@contextlib.contextmanager
def _started(port: int, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # With the server that it started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it answers: True; False when it ended or the time is up."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/api/health")
            if connection.getresponse().status == http.client.OK and process.poll() is None:
                return True
        time.sleep(_POLL_SECONDS)
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
