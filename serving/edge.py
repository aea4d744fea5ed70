"""The outermost layer of a request: its id, the bound on its body, and the answer when nobody expected the failure."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import INTERNAL, TOO_LARGE, problem_response
from serving.logs import REQUEST_ID
from serving.metrics import Metrics

MAX_BODY_BYTES = 64 * 1024
REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOG = logging.getLogger(__name__)
_HUNG_UP = 499
_FACES = {
    "v1": "api",
    "v2": "v2",
    "admin": "admin",
    "metrics": "metrics",
    "healthz": "health",
    "readyz": "health",
    "ping": "health",
    "models": "sagemaker",
    "invocations": "sagemaker",
}


class Edge:
    """ASGI middleware. The body is read whole before the application sees the request, so a chunked one is bounded too.

    Every request is counted, by face and status; one whose caller hung up counts as 499.

    A caller's X-Request-Id is kept when it is 1 to 128 of `A-Z a-z 0-9 . _ -`, and made otherwise; every answer has it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        status = 0
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
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
            if not status:
                await problem_response(INTERNAL, path=scope["path"])(scope, receive, send_with_id)
        finally:
            REQUEST_ID.reset(token)
            if self._metrics is not None:
                self._metrics.requests(face_of(scope["path"]), status or _HUNG_UP, time.monotonic() - began)


def face_of(path: str) -> str:
    """Which face a path belongs to, by its first part."""
    return _FACES.get(path[1:].partition("/")[0], "other")


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
