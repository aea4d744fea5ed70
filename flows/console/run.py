"""The process of `macrofleet console`: what its settings name, put together, and served until SIGTERM."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from flows.console.acceptance import FeedbackReports
from flows.console.app import create_app
from flows.console.cookies import Cookies
from flows.console.fleet_index import FleetIndex
from flows.console.prefect_rest import PrefectRest
from flows.console.rendering import Pages
from flows.console.servers import Servers
from flows.console.sessions import Sessions
from flows.console.settings import ConsoleSettings
from flows.console.tracked_view import MlflowSource
from flows.console.world import World
from flows.settings import FlowSettings
from registry.database import Database, DatabaseSettings, opened_database
from registry.errors import InvalidInput
from registry.keys.book import KeyBook
from registry.settings import CopyStoreSettings, StoreSettings, read_settings
from registry.store import open_store
from registry.tracking.models import Tracking


def run_console(settings: ConsoleSettings, *, ready_file: Path | None, say: Callable[[str], None]) -> None:
    """Serve the console.

    Args:
        ready_file: takes its address once it listens.
        say: told where it listens.

    Raises:
        InvalidInput: a setting is wrong, or the address cannot be listened on.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines name what was asked for
    listener = _listen(settings.console_host, settings.console_port)
    with listener, opened_database(read_settings(DatabaseSettings)) as database:
        world = make_world(settings, database)
        host = f"[{settings.console_host}]" if ":" in settings.console_host else settings.console_host
        address = f"http://{host}:{listener.getsockname()[1]}"
        server = _Server(
            uvicorn.Config(
                create_app(world),
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=10,
            ),
            started=lambda: _started(address, ready_file, say),
        )
        server.run(sockets=[listener])


def make_world(settings: ConsoleSettings, database: Database) -> World:
    """What the settings and the environment name. Raises InvalidInput."""
    stored = read_settings(StoreSettings)
    flow_settings = read_settings(FlowSettings)
    store = open_store(stored)
    copied = read_settings(CopyStoreSettings).as_store()
    key = settings.operator_key
    return World(
        store=store,
        index=FleetIndex(store),
        servers=Servers(settings.servers, key=None if key is None else key.get_secret_value()),
        sessions=Sessions(KeyBook(database), hours=settings.console_session_hours),
        cookies=Cookies(secure=settings.secure),
        tracked=MlflowSource(Tracking.from_settings(flow_settings, stored)),
        acceptance=FeedbackReports(store),
        prefect=PrefectRest.from_environment(),
        flow_settings=flow_settings,
        pages=Pages(),
        metrics_tenants=settings.metrics_tenants,
        copy=None if copied is None else open_store(copied, patient=False),
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._told()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as problem:
        raise InvalidInput(
            f"the console cannot listen on {host} port {port} ({problem.strerror or problem})",
            remedy="Name another one with --host and --port.",
        ) from None
    return listener


def _started(address: str, ready_file: Path | None, say: Callable[[str], None]) -> None:
    say(f"console on {address}; sign in with an operator's key (macrofleet keys create --scope operator)")
    if ready_file is not None:
        beside = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
        beside.write_text(f"{address}\n")
        beside.replace(ready_file)
