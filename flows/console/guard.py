"""What stands before every page: nothing is open but signing in and the files that its page needs.

A request that would change something carries a token of its session in its form, and comes from the console's own pages by
what its browser says. The guard reads the form, so that no page can forget to ask.
"""

from __future__ import annotations

import hmac
import logging
import traceback
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.console.cookies import CSRF, Cookies
from flows.console.sessions import Session, Sessions
from registry.errors import MacrofleetError

SIGN_IN: Final = "/sign-in"
OPEN: Final = frozenset({SIGN_IN, "/healthz"})
# Asked by a scraper, which has an operator's key and no session.
METRICS: Final = "/metrics"
_STATIC: Final = "/static/"
_SESSION, _FORM = "macrofleet.session", "macrofleet.form"
_MOST_BYTES = 128 * 1024
_SAFE = frozenset({"GET", "HEAD"})
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_LOG = logging.getLogger(__name__)


class Refuse(Protocol):
    """Answers with a page that says what is wrong."""

    def __call__(self, request: Request, error: MacrofleetError | None, status: int, title: str) -> Response:
        """The page."""
        ...


def session_of(request: Request) -> Session:
    """Who is signed in, in a page that is not open."""
    session = request.scope[_SESSION]
    assert isinstance(session, Session)
    return session


def session_if_any(request: Request) -> Session | None:
    """The same in any page."""
    found = request.scope.get(_SESSION)
    return found if isinstance(found, Session) else None


def form_of(request: Request) -> Mapping[str, str]:
    """What a form sent; of a field that was sent twice, the last."""
    form: Mapping[str, str] = request.scope[_FORM]
    return form


def csrf_of(request: Request) -> str:
    """What a form in this answer has to send back."""
    return str(request.scope.get(CSRF, ""))


class Guard:
    """ASGI middleware: headers, session, token, and a line in the log that has nothing of the request but its path.

    Args:
        app: the pages.
        refuse: makes the page of a refusal.
    """

    def __init__(self, app: ASGIApp, *, sessions: Sessions, cookies: Cookies, refuse: Refuse) -> None:
        self._app = app
        self._sessions = sessions
        self._cookies = cookies
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        static = scope["path"].startswith(_STATIC)
        status = 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Cache-Control"] = (
                    "public, max-age=31536000, immutable" if static and status == 200 else "no-store"
                )
            await send(message)

        try:
            admit = self._admit_scraper if scope["path"] == METRICS else self._admit
            answer = None if static else await admit(request)
            if answer is None:
                await self._app(scope, receive, guarded)
            else:
                await answer(scope, receive, guarded)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  # its text, which may quote a ticket, goes into no log: nobody else may catch it
            where = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("a page failed: %s\n%s", type(error).__name__, where)
            if not status:
                await self._refuse(request, None, 500, "This page is broken")(scope, receive, guarded)
        finally:
            if not static and scope["path"] != METRICS and not scope["path"].endswith(".json"):
                session = session_if_any(request)
                who = session.prefix if session else "-"
                _LOG.info("%s %s %s %d", who, scope["method"], quote(scope["path"]), status)

    async def _admit(self, request: Request) -> Response | None:
        """The answer to a request that goes no further."""
        is_open = request.url.path in OPEN
        try:
            token = self._cookies.session_token(request)
            session = await run_in_threadpool(self._sessions.find, token) if token else None
        except MacrofleetError as error:
            return None if is_open else self._refuse(request, error, 503, "Nobody can be signed in now")
        request.scope[_SESSION] = session
        request.scope[CSRF] = session.csrf if session else self._cookies.form_token(request)
        if session is None and not is_open:
            if request.url.path.endswith(".json"):
                return JSONResponse({"error": "signed out"}, status_code=401)
            if request.headers.get("X-Part") == "1":
                return Response("Signed out: load the page again.", status_code=401, media_type="text/plain")
            there = request.url.path if request.method in _SAFE else "/"
            return RedirectResponse(f"{SIGN_IN}?next={quote(there)}", status_code=303)
        if request.method in _SAFE:
            return None
        return await self._check_form(request)

    async def _admit_scraper(self, request: Request) -> Response | None:
        """Prometheus: an operator's key in each request, and nothing but reading."""
        if request.method not in _SAFE:
            return Response(status_code=405, headers={"Allow": ", ".join(sorted(_SAFE))})
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        try:
            known = scheme.lower() == "bearer" and await run_in_threadpool(self._sessions.is_operator, key.strip())
        except MacrofleetError:
            return Response("keys cannot be looked at now\n", status_code=503, media_type="text/plain")
        if known:
            return None
        return Response("an operator's key is needed\n", 401, {"WWW-Authenticate": "Bearer"}, "text/plain")

    async def _check_form(self, request: Request) -> Response | None:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return self._refuse(request, None, 413, "That is too much text")
        try:
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict")
        except ValueError:
            return self._refuse(request, None, 400, "That was no form")
        form = dict(pairs)
        expected = csrf_of(request)
        # Browsers say where a request comes from; one that does not say is judged by the token alone.
        elsewhere = request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}
        given = form.pop("csrf", "")
        if elsewhere or not expected or not hmac.compare_digest(given.encode(), expected.encode()):
            return self._refuse(request, None, 403, "This form is too old, or not from here")
        request.scope[_FORM] = form
        return None
