"""Starting the server process."""

from __future__ import annotations

import logging
import os
import signal
import socket
from pathlib import Path
from types import FrameType

import uvicorn

from registry.errors import InvalidInput
from registry.runtime import limit_threads
from registry.settings import StoreSettings
from registry.store import open_store
from serving.app import create_app
from serving.logs import configure_logs
from serving.settings import ServingSettings

_LOG = logging.getLogger(__name__)
_DRAIN_SECONDS = 10


def run(settings: ServingSettings, store_settings: StoreSettings, *, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT, and return; requests under way are finished first, unless SIGINT comes twice.

    Args:
        settings: what to serve how, and where to listen.
        store_settings: where the fleet is.
        ready_file: written with the server's URL once it accepts connections, and removed at the end. Being ready for
            traffic is another matter, which `/readyz` tells.

    Raises:
        InvalidInput: the store's settings name no store, the address cannot be listened on, or the ready file cannot be
            written where it shall be.
        KeyboardInterrupt: SIGINT came twice.
    """
    if ready_file is not None:
        _check_ready_file(ready_file)
    configure_logs()
    limit_threads()
    app = create_app(settings, open_store(store_settings))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    with _listen(settings.host, settings.port, backlog=config.backlog) as listener:
        _Server(config, ready_file).run(sockets=[listener])


def _check_ready_file(path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        problem = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} cannot be written to"
    elif path.is_dir():
        problem = "it is a folder"
    else:
        return
    raise InvalidInput(
        f"the ready file {path} cannot be written: {problem}",
        remedy="Name a file in a folder that exists and can be written to.",
    )


def _listen(host: str, port: int, *, backlog: int) -> socket.socket:
    """A socket that listens on one address: names are looked up as IPv4."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Apart from binding, which would hide why a name cannot be looked up. An empty host is every address.
        found = socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4], family=family, backlog=backlog)
    except UnicodeError:
        reason = "it cannot be the name of a host"
    except socket.gaierror as problem:
        reason = problem.strerror or str(problem)
    except OSError as problem:
        # Its own text repeats the address.
        reason = os.strerror(problem.errno) if problem.errno else str(problem)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise InvalidInput(
        f"cannot listen on {place} ({reason})",
        remedy="Choose another --host or --port (0 takes a free port), or stop what listens there.",
    )


class _Server(uvicorn.Server):
    """uvicorn, which says where it listens once it does, and for which being told to stop is no failure."""

    def __init__(self, config: uvicorn.Config, ready_file: Path | None) -> None:
        super().__init__(config)
        self._ready_file = ready_file

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain and return. uvicorn would raise the signal again at the end, and the process would die of it."""
        if self.should_exit and sig == signal.SIGINT:
            super().handle_exit(sig, frame)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if self._ready_file is not None:
            beside = self._ready_file.with_name(f".{self._ready_file.name}.{os.getpid()}")
            beside.write_text(url)
            beside.replace(self._ready_file)
        _LOG.info("serving", extra={"url": url})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        await super().shutdown(sockets)
