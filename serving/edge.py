"""The outermost layer of a request: its id, the bound on its body, and the answer when nobody expected the failure."""

from __future__ import annotations

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import INTERNAL, TOO_LARGE, problem_response
from serving.logs import REQUEST_ID

MAX_BODY_BYTES = 64 * 1024
REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOG = logging.getLogger(__name__)


class Edge:
    """ASGI middleware. The body is read whole before the application sees the request, so a chunked one is bounded too.

    A caller's X-Request-Id is kept when it is 1 to 128 of `A-Z a-z 0-9 . _ -`, and made otherwise; every answer has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        token = REQUEST_ID.set(request_id)
        try:
            body = None if _declares_too_much(headers) else await _read_body(receive)
            if body is None:
                refusal = problem_response(
                    TOO_LARGE, path=scope["path"], detail=f"A request's body may have {MAX_BODY_BYTES} bytes."
                )
                await refusal(scope, receive, send_with_id)
                return
            await self._app(scope, _replay(body, receive), send_with_id)
        except _Gone:
            return
        except Exception:  # noqa: BLE001  # the last resort: the process and its other requests go on
            _LOG.exception("request failed")
            if not started:
                await problem_response(INTERNAL, path=scope["path"])(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(token)


class _Gone(Exception):  # not an error: the caller hung up
    """The caller went away before its request was whole."""


def _declares_too_much(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    return length.isdecimal() and (len(length) > 12 or int(length) > MAX_BODY_BYTES)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None as soon as there is more than the bound."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body that was read, then whatever comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
