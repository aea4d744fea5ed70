"""`macrofleet console`: the command. Nothing but typer is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def console(
    host: Annotated[
        str | None,
        typer.Option(help="Loopback, unless a proxy that does TLS stands before it. [MACROFLEET_CONSOLE_HOST]"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 chooses a free one. [MACROFLEET_CONSOLE_PORT]")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option("--server", metavar="URL", help="Operator address of a server. Repeatable. [MACROFLEET_SERVERS]"),
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Write the address here once it listens.")] = None,
) -> None:
    """Pages for operators in a browser: the fleet, one tenant, a playground, the last runs. Until SIGTERM.

    Sign in with an operator's key: macrofleet keys create --scope operator. It reads the store, the key database
    (MACROFLEET_DATABASE_URL), MLflow (MACROFLEET_TRACKING_URI), Prefect (PREFECT_API_URL) and the servers named; each of the
    last three may be away.

    Example: macrofleet console --server http://127.0.0.1:8001
    """
    from flows.console.run import run_console
    from flows.console.settings import ConsoleSettings
    from registry.settings import read_settings

    given: dict[str, Any] = {"console_host": host, "console_port": port, "servers": ",".join(server or ()) or None}
    settings = read_settings(ConsoleSettings, **{name: value for name, value in given.items() if value is not None})
    run_console(settings, ready_file=ready_file, say=lambda text: typer.echo(text, err=True))
