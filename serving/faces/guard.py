"""What stands before every route: who asks, and whether the route is open to them.

Nothing is open by default. A caller is known before the application sees its request, but for health; and a route that does
not say whom it is for (`needs`) is an operator's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import MacrofleetError
from registry.keys.published import Scope as AccessScope
from serving.access import Doorkeeper, Grant, authorization_of
from serving.errors import domain_answer
from serving.metrics import Metrics

# Anybody may ask for these: they say of this process whether it lives and takes requests, and name nobody.
HEALTH: Final = frozenset({"/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"})
# In a scope: the caller's grant.
GRANT: Final = "macrofleet.grant"
_NEEDS: Final = "__macrofleet_needs__"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def needs(scope: AccessScope) -> Callable[[Endpoint], Endpoint]:
    """Say whom a route is for: callers with this scope, for the tenant that its path names as `tenant`.

    A route whose path names none asks the caller's `grant_of` what it may show.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _NEEDS, scope)
        return endpoint

    return mark


def needed_by(endpoint: Callable[..., Any]) -> AccessScope:
    """The scope that an endpoint needs."""
    scope: AccessScope = getattr(endpoint, _NEEDS, "operator")
    return scope


def grant_of(request: Request) -> Grant:
    """What the caller of a request may do, in a route that is not health's."""
    grant = request.scope[GRANT]
    assert isinstance(grant, Grant)
    return grant


def grant_if_any(request: Request) -> Grant | None:
    """The same in a route of health, where a caller without a key has none."""
    grant = request.scope.get(GRANT)
    return grant if isinstance(grant, Grant) else None


class GuardedRoute(APIRoute):
    """A route that is open to whom it says, before anything else of the request is looked at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        scope, is_open = needed_by(self.endpoint), self.path_format in HEALTH

        async def guarded(request: Request) -> Response:
            if not is_open:
                # The very string that the route goes by, not one read from the path once more.
                grant_of(request).check(scope, request.path_params.get("tenant"))
            return await handle(request)

        return guarded


class Authentication:
    """ASGI middleware inside of `serving.faces.edge`: a request goes on with its caller's grant, or is refused here.

    Args:
        app: answers, with the grant in its scope.
        doorkeeper: knows callers.
        metrics: counts who is refused.
    """

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper, metrics: Metrics) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        try:
            scope[GRANT] = self._doorkeeper.grant(authorization_of(scope["headers"]))
        except MacrofleetError as error:
            if path not in HEALTH:
                self._metrics.refused("unauthenticated")
                await domain_answer(error, path=path)(scope, receive, send)
                return
        await self._app(scope, receive, send)
