"""The outermost layer of a request: its id, the bound on its body, and the answer when nobody expected the failure."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.errors import MacrofleetError
from serving.access import AUTHORIZATION, Doorkeeper, Grant
from serving.errors import INTERNAL, TOO_LARGE, Problem, domain_problem, inference_error, problem_response
from serving.faces.early import ENDS, Headers, send_at_once
from serving.logs import REQUEST_ID
from serving.metrics import Metrics

MAX_BODY_BYTES = 64 * 1024
MAX_BATCH_BYTES = 256 * 1024
_BATCH = ("/v1/tenants/", "/suggestions/batch")
REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOG = logging.getLogger(__name__)
_HUNG_UP = 499
_WATCHED_AFTER_SECONDS = 0.02
_DRAWN_AT_ONCE = 256
# Nobody on the way keeps an answer: it is to a POST and about one ticket, and the server itself remembers it.
_OF_SUCCESS = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
# In a scope: tenant, grant, headers and id of a request whose face has been asked, and let it in.
_LET_IN = "macrofleet.let_in"
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


class Face(Protocol):
    """A route that is answered here, without the application's layers.

    Attributes:
        path: its template, which a trace names it by.
    """

    @property
    def path(self) -> str: ...

    def tenant_of(self, path: str) -> str | None:
        """The tenant that a path of the route names; None for another path."""
        ...

    def refusal(self, tenant: str, path: str, grant: Grant, length: str) -> Response | None:
        """The answer to a request that is refused before anything is read of it; None lets it in.

        Args:
            length: the header Content-Length, whatever it says; empty without one.
        """
        ...

    async def respond(self, tenant: str, path: str, timeout: str | None, body: bytes, grant: Grant) -> Response | bytes:
        """The body of a success (JSON), or another answer. After `refusal`."""
        ...


class Edge:
    """ASGI middleware. The body is read whole before the application sees the request, so a chunked one is bounded too.

    Every request is counted, by face and status; one whose caller hung up counts as 499.

    A caller's X-Request-Id is kept when it is 1 to 128 of `A-Z a-z 0-9 . _ -`, and made otherwise; every answer has it.

    Args:
        app: answers.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._ids = _random_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, request_id = self._read_head(scope)
        sender = _Sender(send, request_id)
        began = time.monotonic()
        path = scope["path"]
        token = REQUEST_ID.set(request_id)
        try:
            await self._answer(scope, receive, sender, headers)
        except _Gone:
            return
        except Exception:  # noqa: BLE001  # the last resort: the process and its other requests go on
            _LOG.exception("request failed")
            if not sender.status:
                await sender.respond(_failure(INTERNAL, path))
        finally:
            REQUEST_ID.reset(token)
            self._metrics.requests(face_of(path), sender.status or _HUNG_UP, time.monotonic() - began)

    def _read_head(self, scope: Scope) -> tuple[_Headers, str]:
        """The headers of a request, and its id."""
        headers = _Headers(scope)
        given = headers.request_id
        return headers, given if given and _REQUEST_ID.fullmatch(given) else next(self._ids)

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender, headers: _Headers) -> None:
        body = await self._whole_body(scope, receive, sender, headers.length)
        if body is not None:
            await self._app(scope, _replay(body, receive), sender)

    async def _whole_body(self, scope: Scope, receive: Receive, sender: _Sender, length: str) -> bytes | None:
        """The body, or None where it is too long, which has been answered."""
        bound = MAX_BATCH_BYTES if is_batch(scope["path"]) else MAX_BODY_BYTES
        body = None if _is_too_much(length, bound) else await _read_body(receive, bound)
        if body is None:
            self._metrics.refused("too_large")
            detail = f"A request's body may have {bound} bytes."
            await sender.respond(_failure(TOO_LARGE, scope["path"], detail=detail))
        return body


class QuickEdge(Edge):
    """The same around one route that needs no application; it belongs outside of the application and its `Edge`.

    A request of the route ends when its caller hangs up, so that nothing further is done for it; the application's routes
    use `CallerWatch` themselves.

    Args:
        app: takes everything that is not the face's.
        metrics: counts the face's requests.
        face: the busiest route.
        doorkeeper: knows its callers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, face: Face, doorkeeper: Doorkeeper) -> None:
        super().__init__(app, metrics)
        self._face = face
        self._doorkeeper = doorkeeper

    def early_answer(self, scope: Scope) -> tuple[int, Headers, bytes] | None:
        """The answer to a request that the face refuses, for `serving.faces.early`; None lets it in: call this with its scope."""
        tenant = self._tenant_of(scope)
        if tenant is None:
            return None
        began = time.monotonic()
        path = scope["path"]
        headers, request_id = super()._read_head(scope)
        token = REQUEST_ID.set(request_id)
        try:
            answer = self._admit(tenant, path, headers)
        except Exception:  # noqa: BLE001  # nothing is answered by it here; on its usual way the request fails as others do
            return None
        finally:
            REQUEST_ID.reset(token)
        if isinstance(answer, Grant):
            scope[_LET_IN] = tenant, answer, headers, request_id
            return None
        self._metrics.requests(face_of(path), answer.status_code, time.monotonic() - began)
        return answer.status_code, _with_id(answer.raw_headers, request_id), bytes(answer.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        tenant = scope[_LET_IN][0] if _LET_IN in scope else self._tenant_of(scope)
        if tenant is None:
            await self._app(scope, receive, send)
            return
        scope["tenant"] = tenant
        scope["route"] = self._face
        await super().__call__(scope, receive, send)

    def _read_head(self, scope: Scope) -> tuple[_Headers, str]:
        return scope[_LET_IN][2:] if _LET_IN in scope else super()._read_head(scope)

    def _tenant_of(self, scope: Scope) -> str | None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        return self._face.tenant_of(scope["path"])

    def _admit(self, tenant: str, path: str, headers: _Headers) -> Response | Grant:
        """What the caller may do, or the answer where that is nothing here."""
        try:
            grant = self._doorkeeper.grant(headers.authorization)
        except MacrofleetError as error:
            self._metrics.refused("unauthenticated")
            return domain_problem(error, path=path, tenant=None)
        return self._face.refusal(tenant, path, grant, headers.length) or grant

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender, headers: _Headers) -> None:
        tenant, path = scope["tenant"], scope["path"]
        admitted = scope[_LET_IN][1] if _LET_IN in scope else self._admit(tenant, path, headers)
        if isinstance(admitted, Grant):
            body = await self._whole_body(scope, receive, sender, headers.length)
            if body is None:
                return
            with CallerWatch(receive):
                answer = await self._face.respond(tenant, path, headers.timeout, body, admitted)
        else:
            answer = admitted
            if ENDS in scope:
                await _read_body(
                    receive, MAX_BODY_BYTES
                )  # or the caller, who still sends it, may see a reset instead of the answer
        await sender.respond(answer)


class _Sender:
    """Sends an answer with the request's id, and knows its status; a `Send` for an application.

    Attributes:
        status: of the answer; 0 before there is one.
    """

    __slots__ = ("_request_id", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self._request_id
        await self._send(message)

    async def respond(self, answer: Response | bytes) -> None:
        """Send a whole answer; bytes are the JSON of a success."""
        if isinstance(answer, bytes):
            self.status, body = 200, answer
            headers = _with_id([*_OF_SUCCESS, (b"content-length", b"%d" % len(answer))], self._request_id)
            if send_at_once(self._send, 200, headers, body):
                return
        else:
            self.status, body = answer.status_code, bytes(answer.body)
            headers = _with_id(answer.raw_headers, self._request_id)
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class CallerWatch:
    """Ends the work of its block when the caller hangs up; `Edge` then ends the request without an answer.

    What is done within moments is not watched.

    Args:
        receive: of the request; its body was read.
    """

    __slots__ = ("_gone", "_receive", "_start", "_task", "_watching")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._start = asyncio.get_running_loop().call_later(_WATCHED_AFTER_SECONDS, self._begin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._start.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._gone and self._task.uncancel() == 0 and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise _Gone from None

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()


def _random_ids() -> Iterator[str]:
    """Requests' ids, 32 hex digits each: many of one call to the system, which costs as much as drawing them."""
    while True:
        drawn = os.urandom(16 * _DRAWN_AT_ONCE).hex()
        yield from (drawn[start : start + 32] for start in range(0, len(drawn), 32))


def _with_id(headers: Headers, request_id: str) -> Headers:
    return [*headers, (b"x-request-id", request_id.encode("ascii"))]


class _Headers:
    """The headers that are looked at here; the first of each, but for a second Authorization, which makes both none."""

    __slots__ = ("authorization", "length", "request_id", "timeout")

    def __init__(self, scope: Scope) -> None:
        self.request_id = self.length = ""
        self.timeout: str | None = None
        self.authorization: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                self.request_id = self.request_id or value.decode("latin-1")
            elif name == b"content-length":
                self.length = self.length or value.decode("latin-1")
            elif name == b"x-request-timeout-ms" and self.timeout is None:
                self.timeout = value.decode("latin-1")
            elif name == AUTHORIZATION:
                self.authorization = value if self.authorization is None else b""


def face_of(path: str) -> str:
    """Which face a path belongs to, by its first part."""
    return _FACES.get(path[1:].partition("/")[0], "other")


class _Gone(Exception):  # not an error: the caller hung up
    """The caller went away before its request was whole, or before it was answered."""


def _failure(problem: Problem, path: str, detail: str = "") -> Response:
    """An answer of the edge's own, in the form of the face that the path belongs to."""
    if face_of(path) == "v2":
        return inference_error(problem.status, problem.detail or detail)
    return problem_response(problem, path=path, detail=detail)


def is_batch(path: str) -> bool:
    """Whether a path is that of batches, which may be longer."""
    return path.endswith(_BATCH[1]) and path.startswith(_BATCH[0])


def _is_too_much(length: str, bound: int) -> bool:
    return length.isdecimal() and (len(length) > 12 or int(length) > bound)


async def _read_body(receive: Receive, bound: int) -> bytes | None:
    """The whole body, or None as soon as there is more than the bound."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bound:
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
