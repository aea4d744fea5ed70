"""Commands as manifests name them, parsed by the programs themselves: nothing of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import typer

import macrofleet
from registry.tracking.artifact import without_warnings


def parse(command: Sequence[str]) -> None:
    """Have the program that a command names take its arguments. Raises where it does not.

    Knows macrofleet (typer), prefect (cyclopts) and mlflow (click); python -m mlflow.server.auth, which opens a database when
    it is imported, is looked up in its source.
    """
    program, *arguments = command
    if program == "macrofleet":
        _parse_click(typer.main.get_command(macrofleet.app), arguments)
    elif program == "prefect":
        _parse_prefect(arguments)
    elif program == "mlflow":
        with without_warnings():
            from mlflow.cli import cli
        _parse_click(cli, arguments)
    elif command[:3] == ["python", "-m", "mlflow.server.auth"]:
        _look_up_users_command(command[3:])
    else:
        raise AssertionError(f"no program that is known: {program}")


def _parse_click(command: Any, arguments: Sequence[str]) -> None:
    """As click does before it calls a command, without calling one; groups in groups, too. Typer has its own click."""
    context = command.make_context(command.name, list(arguments))
    if not hasattr(command, "commands"):
        return
    rest = [*context._protected_args, *context.args]
    name, inner, rest = command.resolve_command(context, rest)
    assert inner is not None, name
    _parse_click(inner, rest)


def _look_up_users_command(arguments: Sequence[str]) -> None:
    assert list(arguments[:2]) == ["db", "upgrade"], arguments
    source = Path(str(distribution("mlflow").locate_file("mlflow/server/auth/db/cli.py"))).read_text()
    upgrade = source[: source.index("def upgrade(")].rpartition("@commands.command()")[2]
    for option in arguments[2::2]:
        assert f'"{option}"' in upgrade, option


def _parse_prefect(arguments: Sequence[str]) -> None:
    from prefect.cli._app import _app

    _app.parse_args(list(arguments), exit_on_error=False, print_error=False)
