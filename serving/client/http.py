"""How a client of the product API uses httpx, whether it waits or awaits."""

from __future__ import annotations

import os
import random
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from registry.errors import InvalidInput
from registry.names import check_tenant
from serving.client.address import check_base_url, check_key
from serving.client.core import Attempt, Exchange, NoReply, Request, check_seconds

_KEY_VARIABLE = "MACROFLEET_API_KEY"
_CONNECTIONS = 32
Result = TypeVar("Result")


class HttpSettings:
    """What both clients are made with; `Client` says what the arguments are."""

    def __init__(
        self,
        base_url: str,
        *,
        tenant: str,
        api_key: str | None,
        timeout_seconds: float,
        connect_seconds: float,
        attempts: int,
        insecure: bool,
        clock: Callable[[], float],
    ) -> None:
        self.base_url = check_base_url(base_url, insecure=insecure)
        self.tenant = check_tenant(tenant)
        if attempts < 1:
            raise InvalidInput("a request is sent once at least", remedy="Give attempts=1 or more.")
        self.timeout_seconds = check_seconds(timeout_seconds)
        self._connect_seconds = check_seconds(connect_seconds)
        self._attempts = attempts
        self.clock = clock
        key = check_key(os.environ.get(_KEY_VARIABLE) if api_key is None else api_key)
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "macrofleet-client",
        }

    def of_http(self) -> dict[str, Any]:
        """Arguments of httpx's clients."""
        return {
            "headers": self._headers,
            # The key goes to this address alone.
            "follow_redirects": False,
            # A proxy that the environment names is for https, which goes through it unread.
            "trust_env": self.base_url.startswith("https:"),
            "limits": httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        }

    def exchange(self, request: Request[Result], timeout_seconds: float | None) -> Exchange[Result]:
        return Exchange(
            request,
            timeout_seconds=self.timeout_seconds if timeout_seconds is None else timeout_seconds,
            attempts=self._attempts,
            now=self.clock(),
            chance=random.random,
        )

    def sending(self, request: Request[Any], attempt: Attempt) -> dict[str, Any]:
        """Arguments of httpx's `stream`."""
        timeout = httpx.Timeout(attempt.seconds, connect=min(self._connect_seconds, attempt.seconds))
        return {
            "method": "POST",
            "url": self.base_url + request.path,
            "content": request.body,
            "headers": attempt.headers,
            "timeout": timeout,
        }


def no_reply(error: httpx.RequestError) -> NoReply:
    """By its kind alone: what it says and holds may quote headers and body."""
    kind = type(error).__name__
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return NoReply("the server's certificate is not to be trusted", may_pass=False)
            cause = cause.__cause__ or cause.__context__
        return NoReply(f"the server cannot be reached ({kind})")
    if isinstance(error, httpx.TimeoutException):
        return NoReply(f"the server did not answer in time ({kind})", timed_out=True)
    may_pass = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
    return NoReply(f"the connection failed before there was a whole answer ({kind})", may_pass=may_pass)
