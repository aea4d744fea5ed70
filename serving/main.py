"""Starting the server process."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import uvicorn

from registry.runtime import limit_threads
from registry.settings import StoreSettings
from registry.store import open_store
from serving.app import create_app
from serving.logs import configure_logs
from serving.settings import ServingSettings

_LOG = logging.getLogger(__name__)
_DRAIN_SECONDS = 10


def run(settings: ServingSettings, store_settings: StoreSettings, *, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are finished first.

    Args:
        settings: what to serve how, and where to listen.
        store_settings: where the fleet is.
        ready_file: written with the server's URL once it accepts connections, and removed at the end. Being ready for
            traffic is another matter, which `/readyz` tells.

    Raises:
        InvalidInput: the store's settings name no store.
        OSError: the address cannot be listened on.
    """
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
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family, backlog=config.backlog) as listener:
        _Server(config, ready_file).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, which says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, ready_file: Path | None) -> None:
        super().__init__(config)
        self._ready_file = ready_file

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
