"""Settings of the console, from the environment (`MACROFLEET_…`), read once where its process is composed."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from registry.errors import InvalidInput
from registry.replicas import operator_addresses
from registry.settings import WatchedNames


class ConsoleSettings(BaseSettings):
    """Where the console listens and whom it asks.

    Attributes:
        console_host, console_port: where it listens. It speaks HTTP: another address than loopback belongs behind a proxy
            that does TLS.
        console_secure: whether its cookies go over HTTPS only; None: on every address but loopback.
        console_session_hours: how long somebody stays signed in.
        servers: operator addresses of the servers, comma-separated; the same that a roll-out is watched on.
        metrics_tenants: whom metrics tell of by name; comma-separated in the environment.
        operator_key: what servers are asked with; None asks with the key of who is signed in.

    Raises:
        InvalidInput: an address of a server that is none.
    """

    model_config = SettingsConfigDict(
        env_prefix="MACROFLEET_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    console_host: str = "127.0.0.1"
    console_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    console_secure: bool | None = None
    console_session_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 12.0
    servers: Annotated[tuple[str, ...], NoDecode] = ()
    metrics_tenants: WatchedNames = ()
    operator_key: SecretStr | None = None

    @field_validator("servers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _usable(self) -> Self:
        operator_addresses(self.servers)
        if self.console_secure is False and not is_loopback(self.console_host):
            raise InvalidInput(
                "MACROFLEET_CONSOLE_SECURE is false, and the console can be reached from other machines",
                remedy="Leave it out: a session must not go over a network in the clear.",
            )
        return self

    @property
    def secure(self) -> bool:
        """Whether cookies go over HTTPS only."""
        return not is_loopback(self.console_host) if self.console_secure is None else self.console_secure


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
