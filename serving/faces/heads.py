"""Bounded heads: uvicorn and its parser keep what has arrived of a request's head, however much that is."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
_TOO_LONG = b"A request's head may have %d bytes." % MAX_HEAD_BYTES
_ANSWER = (
    STATUS_LINE[431]
    + b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(_TOO_LONG)
    + _TOO_LONG
)


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's, but that a connection ends on which a head is too long, or what comes behind a chunk of a body.

    Counted is what was read since a read in which the parser came to the end of something, so that nothing is added to what
    each request takes: behind a chunk it may be a read more (256 KiB). A head that one read brings whole is measured.
    """

    _unended = 0

    def data_received(self, data: bytes) -> None:
        self._unended += len(data)
        super().data_received(data)
        if self._unended > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._end()

    def on_headers_complete(self) -> None:
        if self._unended > MAX_HEAD_BYTES:
            if self._head_bytes() > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._end()
            if self.transport.is_closing():
                return
        self._unended = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unended = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unended = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _end(self) -> None:
        """Close; an answer that is under way is cut, for nothing can come between its parts."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_ANSWER)
        self.transport.close()
