"""A stand-in for Zendesk's API: an account in memory over real HTTP, with the failures that the real one may have.

Its shapes are those of docs/connectors.md. Tests start it in a thread; `macrofleet bench import` in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

EMAIL, TOKEN = "admin@shop.example", "stand-in-token-0123456789"
AUTHORIZATION = f"Basic {b64encode(f'{EMAIL}/token:{TOKEN}'.encode()).decode()}"
_AUDITS = re.compile(r"/api/v2/tickets/(\d+)/audits\.json")
_NOW = 1_800_000_000
_WORDS = (
    "hello my parcel has not arrived yet and the tracking page still says that it left the warehouse last week so "
    "please tell me where it is or send me a new one because I need it for a birthday on saturday thank you"
)


@dataclass(slots=True)
class Account:
    """What the stand-in knows.

    Attributes:
        macros: as `/api/v2/macros.json` has them.
        tickets: as the export has them, in its order; one may stand there more than once.
        audits: by ticket number.
        events: as `/api/v2/incremental/ticket_events.json` has them, in order of `timestamp`.
        users: sideloaded.
        page: how many macros and audits a page has; the exports have `export_page`.
        generation: cursors of an export that were given under another one are not known any more.
    """

    macros: list[dict[str, Any]] = field(default_factory=list)
    tickets: list[dict[str, Any]] = field(default_factory=list)
    audits: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    users: list[dict[str, Any]] = field(default_factory=list)
    page: int = 100
    export_page: int = 1000
    rate_limit: int = 700
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is answered instead.

    Attributes:
        cut: of the right answer's body only so many bytes come, and then the connection ends.
        body: instead of the right one.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    body: bytes | None = None


class ZendeskServer:
    """The account over HTTP on loopback, in a thread of its own.

    Attributes:
        asked: how often each path was asked for.
        targets: every path with its query, in order.
        transports: the connections that are open.
    """

    def __init__(self, account: Account, *, port: int = 0) -> None:
        self.account = account
        self.asked: Counter[str] = Counter()
        self.targets: list[str] = []
        self.url = ""
        self.on_request: Callable[[str], None] = lambda _: None
        self._port = port
        self._faults: dict[str, deque[Fault | None]] = {}
        self.transports: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def fail(self, path: str, faults: Iterable[Fault | None]) -> None:
        """Answer the next requests for a path so; None is a right answer."""
        self._faults.setdefault(path, deque()).extend(faults)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        async def start() -> asyncio.Server:
            return await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)

        server = self._loop.run_until_complete(start())
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _hang_up(self) -> None:
        await asyncio.sleep(0)  # what was accepted becomes a connection first
        while self.transports:
            for transport in self.transports:
                transport.abort()
            await asyncio.sleep(0)

    def answer(self, target: str, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        """The whole response to a request, and whether the connection ends with it."""
        parts = urlsplit(target)
        self.asked[parts.path] += 1
        self.targets.append(target)
        self.on_request(target)
        waiting = self._faults.get(parts.path)
        fault = waiting.popleft() if waiting else None
        if headers.get("authorization") != AUTHORIZATION:
            return _response(401, {"error": "Couldn't authenticate you"}), False
        if fault is not None and fault.status != 200:
            return _response(fault.status, fault.body or b"{}", fault.headers), False
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        status, body = self._body(parts.path, query)
        whole = _response(status, body, {"X-Rate-Limit": str(self.account.rate_limit)})
        if fault is not None and fault.body is not None:
            return _response(200, fault.body), False
        if fault is not None and fault.cut is not None:
            return whole[: whole.index(b"\r\n\r\n") + 4 + fault.cut], True
        return whole, False

    def _body(self, path: str, query: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        account = self.account
        if path == "/api/v2/macros.json":
            return 200, _cursor_page("macros", account.macros, query, account.page)
        if path == "/api/v2/incremental/tickets/cursor.json":
            return self._export(query)
        if path == "/api/v2/incremental/ticket_events.json":
            return self._events(query)
        found = _AUDITS.fullmatch(path)
        if found and int(found[1]) in account.audits:
            return 200, _cursor_page("audits", account.audits[int(found[1])], query, account.page)
        return 404, {"error": "RecordNotFound", "description": "Not found"}

    def _export(self, query: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        tickets = self.account.tickets
        if "cursor" in query:
            generation, _, said = query["cursor"].partition("-")
            place = int(said)
            if generation != str(self.account.generation):
                return 400, {"error": "InvalidPaginationParameter"}
        else:
            since = int(query["start_time"])
            place = next((n for n, one in enumerate(tickets) if one["generated_timestamp"] >= since), len(tickets))
        size = min(int(query.get("per_page", 1000)), self.account.export_page)
        page = tickets[place : place + size]
        after = f"{self.account.generation}-{place + len(page)}"
        return 200, {
            "tickets": page,
            "users": self.account.users,
            "after_cursor": after,
            "after_url": f"{self.url}/api/v2/incremental/tickets/cursor.json?cursor={after}",
            "end_of_stream": place + len(page) >= len(tickets),
        }

    def _events(self, query: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        events = [one for one in self.account.events if one["timestamp"] >= int(query["start_time"])]
        page = events[: self.account.export_page]
        more = len(events) > len(page)
        end = page[-1]["timestamp"] + 1 if page else _NOW
        return 200, {"ticket_events": page, "end_time": end, "end_of_stream": not more, "count": len(page)}


class _Connection(asyncio.Protocol):
    def __init__(self, server: ZendeskServer) -> None:
        self._server = server
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        self._server.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            whole, ends = self._server.answer(first.split(" ")[1], headers)
            self._transport.write(whole)
            if ends:
                self._transport.close()


def _response(status: int, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(data)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def _cursor_page(name: str, rows: list[dict[str, Any]], query: Mapping[str, str], page: int) -> dict[str, Any]:
    size = min(int(query.get("page[size]", page)), page)
    place = int(query.get("page[after]", "0"))
    more = place + size < len(rows)
    meta = {"has_more": more, "after_cursor": str(place + size) if more else None, "before_cursor": None}
    return {name: rows[place : place + size], "meta": meta, "links": {"next": None, "prev": None}}


def many_tickets(count: int, *, macros: int = 40) -> Account:
    """An account of so many tickets, each with four updates and, for most of them, a macro."""
    account = Account(macros=[macro(number) for number in range(1, macros + 1)])
    words = _WORDS.split()
    for number in range(1, count + 1):
        start = _NOW - 20_000_000 + 600 * number
        body = " ".join(words[(number * k) % len(words)] for k in range(1, 60)) + f" order {number:08d}"
        body += f" mail jane{number}@customer.example" * (number % 3 == 0) + " call +49 170 1234567" * (number % 7 == 0)
        requester, agent = 1_000_000 + number, 500 + number % 20
        events: list[list[dict[str, Any]]] = [
            [
                {"type": "Create", "field_name": "subject", "value": f"Parcel {number}"},
                {
                    "type": "Comment",
                    "author_id": requester,
                    "public": True,
                    "body": body,
                    "html_body": f"<p>{body}</p>",
                },
                {"type": "Notification", "subject": "received", "body": "We have received your request."},
            ],
            [{"type": "Change", "field_name": "status", "value": "open", "previous_value": "new"}],
            [{"type": "Comment", "author_id": agent, "public": True, "body": "Dear customer, it is on its way. " * 6}],
            [{"type": "Comment", "author_id": requester, "public": True, "body": "Thank you very much"}],
        ]
        if number % 10:
            chosen = account.macros[number % macros]
            events[2].insert(
                0, {"type": "AgentMacroReference", "macro_id": str(chosen["id"]), "macro_title": chosen["title"]}
            )
        add_ticket(
            account, number, start, requester, [(agent if k in {1, 2} else requester, e) for k, e in enumerate(events)]
        )
    return account


def macro(number: int, **fields: Any) -> dict[str, Any]:
    """A macro as the API has it."""
    return {
        "id": 360_000_000 + number,
        "title": f"Shipping::Answer {number}",
        "active": True,
        "restriction": None,
        "actions": [{"field": "comment_value", "value": f"Dear customer, this is answer {number}."}],
        "description": None,
        "updated_at": "2026-05-01T00:00:00Z",
        "url": f"https://shop.zendesk.com/api/v2/macros/{number}.json",
    } | fields


def add_ticket(
    account: Account,
    number: int,
    start: int,
    requester: int,
    updates: Iterable[tuple[int, list[dict[str, Any]]]],
    **fields: Any,
) -> None:
    """Give an account a ticket with its audits: a list of events for each update, and who made it."""
    audits = [
        {
            "id": number * 1000 + place,
            "ticket_id": number,
            "created_at": _iso(start + 60 * place),
            "author_id": author,
            "via": {"channel": "email"},
            "events": [{"id": (number * 1000 + place) * 100 + n, **event} for n, event in enumerate(events)],
        }
        for place, (author, events) in enumerate(updates)
    ]
    updated = start + 60 * len(audits)
    ticket = {
        "id": number,
        "subject": f"Parcel {number}",
        "requester_id": requester,
        "status": "solved",
        "via": {"channel": "email"},
        "created_at": _iso(start),
        "updated_at": _iso(updated),
        "generated_timestamp": updated,
    }
    account.tickets.append(ticket | fields)
    account.audits[number] = audits


def _iso(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def main() -> None:
    """`python -m benchmarks.zendesk_server TICKETS`: say the address on standard output, and serve until standard input ends."""
    with ZendeskServer(many_tickets(int(sys.argv[1]))) as server, suppress(KeyboardInterrupt):
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
