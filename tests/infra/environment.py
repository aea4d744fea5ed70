"""The environment variables that the code reads, so that what infra/ sets can be held to them."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import typer
from pydantic_settings import BaseSettings

import macrofleet
import registry
from registry.tracking.artifact import without_warnings

_ROOMS = ("registry", "training.connectors", "serving", "flows", "flows.console")
_VARIABLE = re.compile(r"MACROFLEET_[A-Z_]*[A-Z]")


def named_variables(text: str) -> set[str]:
    """Every `MACROFLEET_…` in a text."""
    return set(_VARIABLE.findall(text))


@functools.cache
def known_variables() -> frozenset[str]:
    """Every `MACROFLEET_…` that is a field of some settings or an option of the command line."""
    fields = {
        f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        for kind in _settings()
        for field in kind.model_fields
    }
    options = {
        option.envvar
        for command in _commands(typer.main.get_command(macrofleet.app))
        for option in command.params
        if isinstance(option.envvar, str)
    }
    return frozenset(fields | options)


@functools.cache
def prefects_variables() -> frozenset[str]:
    """Every `PREFECT_…` that is a setting of Prefect's."""
    from prefect.settings import get_current_settings
    from prefect.settings.base import PrefectBaseSettings

    def names(settings: PrefectBaseSettings) -> Iterator[str]:
        prefix = str(settings.model_config.get("env_prefix", "PREFECT_"))
        for field in type(settings).model_fields:
            inner = getattr(settings, field)
            if isinstance(inner, PrefectBaseSettings):
                yield from names(inner)
            else:
                yield f"{prefix}{field}".upper()

    return frozenset(names(get_current_settings()))


@functools.cache
def mlflows_variables() -> frozenset[str]:
    """Every `MLFLOW_…` that MLflow has in its list of them, or as an option of its commands."""
    with without_warnings():
        import mlflow.environment_variables as known
        from mlflow.cli import cli
    options = {option.envvar for command in cli.commands.values() for option in command.params}
    return frozenset({name for name in dir(known) if name.startswith("MLFLOW_")} | options)


def _settings() -> Iterator[type[BaseSettings]]:
    """Every kind of settings of the rooms, wherever it is: modules named settings, and those that define their own."""
    for room in _ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("settings") or module.name in {"database", "webhook"}:
                importlib.import_module(f"{room}.{module.name}")
    assert registry
    waiting = list(BaseSettings.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.partition(".")[0] in {"registry", "training", "serving", "flows"}:
            yield kind


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from _commands(inner)
