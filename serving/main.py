"""Starting the server process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import uvloop

from registry.errors import InvalidInput
from registry.model.runtime import limit_threads
from registry.settings import CopyStoreSettings, StoreSettings
from registry.store import open_store
from serving.doors import Door, DrainPlan, serve_until
from serving.listening import listen
from serving.logs import configure_logs
from serving.ready_file import check_ready_file, write_ready_file
from serving.replicas.process import end_with_supervisor
from serving.settings import ServingSettings
from serving.tracing import configure_tracing

_LOG = logging.getLogger(__name__)
# How long a thread waits for the interpreter while another one works. Python's 5 ms are as long as several answers.
_SWITCH_SECONDS = 0.0005
_SAGEMAKER_PORT = 8080


def run(
    settings: ServingSettings,
    store_settings: StoreSettings,
    copy_settings: CopyStoreSettings | None = None,
    *,
    ready_file: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and return; requests under way are finished first, unless SIGINT comes twice.

    Args:
        settings: what to serve how, and where to listen.
        store_settings: where the fleet is.
        copy_settings: where a copy of it is, in another region.
        ready_file: written once the server accepts connections, and removed at the end: the public URL on the first
            line, the operator's on the second. Being ready for traffic is another matter, which `/readyz` tells.

    Raises:
        InvalidInput: the store's settings name no store, an address cannot be listened on, or the ready file cannot be
            written where it shall be.
        KeyboardInterrupt: SIGINT came twice.
    """
    end_with_supervisor()
    if ready_file is not None:
        check_ready_file(ready_file)
    configure_logs()
    with ExitStack() as stack:
        public = stack.enter_context(listen(settings.host, settings.port, options=("--host", "--port")))
        operator = stack.enter_context(
            listen(settings.operator_host, settings.operator_port, options=("--operator-host", "--operator-port"))
        )
        limit_threads()
        sys.setswitchinterval(_SWITCH_SECONDS)
        from serving.app import create_apps
        from serving.stores import closing_store, open_serving_store

        tracing = configure_tracing()
        if tracing is not None:
            stack.callback(tracing.close)
        store = open_serving_store(settings, store_settings, copy_settings or CopyStoreSettings())
        apps = create_apps(settings, stack.enter_context(closing_store(store)), tracing)
        doors = [Door(apps.public, public, lifespan=True), Door(apps.operator, operator, lifespan=False)]
        _serve(doors, ready_file, drain=apps.data_plane.drain)


def run_sagemaker(
    settings: ServingSettings, store_settings: StoreSettings, programs_folder: Path, *, ready_file: Path | None = None
) -> None:
    """Serve SageMaker's multi-model container contract, as `run` serves a fleet: no models from a store, and one address.

    It listens on every address of the container, on the port `SAGEMAKER_BIND_TO_PORT` or 8080.

    Args:
        settings: budgets and bounds; its addresses are not looked at.
        store_settings: where the API keys are, if callers are asked for them; nothing else is read from there.
        programs_folder: the programs that the image brings.
        ready_file: as for `run`, with one line.

    Raises:
        InvalidInput: nobody said how callers are let in, the port cannot be listened on, or the ready file cannot be
            written where it shall be.
        KeyboardInterrupt: SIGINT came twice.
    """
    end_with_supervisor()
    if settings.sagemaker_access == "keys" and "url" not in store_settings.model_fields_set:
        raise InvalidInput(
            "SageMaker's contract carries no API keys, and nobody said that callers are let in without",
            remedy="Set MACROFLEET_SAGEMAKER_ACCESS=platform where SageMaker alone reaches the container; "
            "MACROFLEET_STORE_URL where callers shall be asked for keys.",
        )
    if ready_file is not None:
        check_ready_file(ready_file)
    configure_logs()
    with ExitStack() as stack:
        port = _sagemaker_port(os.environ)
        listener = stack.enter_context(listen("0.0.0.0", port, options=("SAGEMAKER_BIND_TO_PORT",)))  # noqa: S104
        limit_threads()
        from serving.access import open_access
        from serving.faces.sagemaker import create_sagemaker_app

        access = None if settings.sagemaker_access == "platform" else open_access(settings, open_store(store_settings))
        tracing = configure_tracing()
        if tracing is not None:
            stack.callback(tracing.close)
        app = create_sagemaker_app(settings, programs_folder=programs_folder, access=access, tracing=tracing)
        # Its platform asks /ping whether to replace the container, not whether to send requests: that stays green.
        _serve([Door(app, listener, lifespan=True)], ready_file, drain=lambda: None)


def _sagemaker_port(environment: Mapping[str, str]) -> int:
    given = environment.get("SAGEMAKER_BIND_TO_PORT") or str(_SAGEMAKER_PORT)
    if not given.isascii() or not given.isdecimal() or int(given) > 65_535:
        raise InvalidInput(
            "SAGEMAKER_BIND_TO_PORT is not a port", remedy="Set it to a number up to 65535, or unset it for 8080."
        )
    return int(given)


def _serve(doors: list[Door], ready_file: Path | None, *, drain: Callable[[], None]) -> None:
    forced = False

    async def serve() -> None:
        nonlocal forced
        stop, force = asyncio.Event(), asyncio.Event()

        def interrupt() -> None:
            (force if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, interrupt)
        urls = [door.url for door in doors]

        def on_open() -> None:
            if ready_file is not None:
                write_ready_file(ready_file, urls)
            _LOG.info("serving", extra=dict(zip(("url", "operator_url"), urls, strict=False)))

        def on_stop() -> None:
            drain()
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)

        await serve_until(stop, doors, force=force, plan=DrainPlan(), on_open=on_open, on_stop=on_stop)
        forced = force.is_set()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    if forced:
        raise KeyboardInterrupt
