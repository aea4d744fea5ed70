"""Answers that are known as soon as a request's head is read, written without the application.

A tenant over its limits is refused thousands of times a second, and what its refusals cost is taken from the others. On
the way through ASGI a refusal cost 0.35 of an answer: a task, a turn of the event loop, two writes, every header looked
at. uvicorn has no place for an answer of a protocol's own, so this one takes the step in which a request becomes a task.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from starlette.types import Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from serving.faces.heads import BoundedHeads

Headers = list[tuple[bytes, bytes]]
# In a scope: the connection ends with the answer, and what of the request arrives after it meets a reset.
ENDS = "macrofleet.ends"


class EarlyApplication(Protocol):
    """An ASGI application that may know an answer before the body is there."""

    def early_answer(self, scope: Scope) -> tuple[int, Headers, bytes] | None:
        """Status, headers (content-length among them) and body; None has the request go the usual way, with this scope."""
        ...


class EarlyProtocol(BoundedHeads):
    """uvicorn's, for an application that is an `EarlyApplication`. What is left of the body is read and dropped.

    A connection on which nothing is asked and nothing arrives ends after the time for idle ones. uvicorn ends those alone
    whose last bytes were a whole request, and keeps one that fell silent within a head, or within a body that was
    dropped, for ever.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._end_where_idle()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete):
            self._end_where_idle()

    def _end_where_idle(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        defaults = self.server_state.default_headers
        # A connection that shall end, and one whose caller does not read, are uvicorn's to handle.
        ends = not cycle.keep_alive or any(name == b"connection" for name, _ in defaults)
        if ends:
            cast(Scope, cycle.scope)[ENDS] = True
        usual = ends or self.flow.write_paused
        answer = None if usual else cast(EarlyApplication, app).early_answer(cast(Scope, cycle.scope))
        if answer is None:
            super()._start_asgi_task(cycle, app)
            return
        status, headers, body = answer
        # Whoever waits to be told to go on may send the body or not: what came next could be taken for it.
        waits = cycle.waiting_for_100_continue
        if waits:
            headers = [*headers, (b"connection", b"close")]
        cycle.on_response = _nothing  # a cycle of references: only the collector would take this protocol away
        _write(cycle, status, headers, body)
        if waits:
            self.transport.close()
        if self.pipeline:
            # This was called by the end of the answer before: hundreds that wait in a row would exceed the stack.
            self.loop.call_soon(self.on_response_complete)
        else:
            self.on_response_complete()


def send_at_once(send: Send, status: int, headers: Headers, body: bytes) -> bool:
    """Send a whole answer in one piece, where `send` is uvicorn's own: in two messages it takes four times as long.

    Args:
        headers: sound, content-length among them; nothing looks at them again.

    Returns:
        Whether it is sent. Otherwise (another layer's `send`, a connection that ends, a caller who does not read or is gone)
        nothing was, and the two messages do what is right.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.response_started or cycle.disconnected:
        return False
    ends = not cycle.keep_alive or any(name == b"connection" for name, _ in cycle.default_headers)
    if ends or cycle.flow.write_paused or cycle.waiting_for_100_continue:
        return False
    _write(cycle, status, headers, body)
    cycle.message_event.set()
    cycle.on_response()
    return True


def _write(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
    head = b"".join([b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)])
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))


def _nothing() -> None:
    pass
