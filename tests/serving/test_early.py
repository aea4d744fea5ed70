"""Answers before the application: on the wire, and what `QuickEdge` makes of its face's refusals."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving import doors
from serving.access import Grant, OpenDoor
from serving.doors import Door
from serving.faces.early import EarlyProtocol, Headers, send_at_once
from serving.faces.edge import QuickEdge
from serving.logs import REQUEST_ID
from serving.metrics import Metrics
from tests.serving.helpers import PATIENCE_SECONDS, eventually, spin
from tests.serving.sockets import connect, listener, receive

pytestmark = pytest.mark.anyio
REFUSED = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
USUAL = b"POST /usual HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that servers run in."""
    return "asyncio", {"use_uvloop": True}


class App:
    """Knows the answer to `/refused`, and has a gate before all others."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def early_answer(self, scope: Scope) -> tuple[int, Headers, bytes] | None:
        self.asked.append(scope["path"])
        scope["seen"] = True
        return (
            (429, [(b"content-length", b"2"), (b"retry-after", b"7")], b"no") if scope["path"] == "/refused" else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        await self.gate.wait()
        answer = b"%b %d" % (body, "seen" in scope)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]}
        )
        await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def connected(app: ASGIApp) -> AsyncIterator[tuple[socket.socket, Door]]:
    listening = listener()
    address = listening.getsockname()
    door = Door(app, listening, lifespan=False)
    await door.open()
    await door.on_tick(0)
    try:
        with connect(address) as client:
            yield client, door
    finally:
        door.leave()
        await door.end()


async def test_a_refusal_is_whole_and_keeps_the_connection() -> None:
    app = App()
    async with connected(app) as (client, _):
        client.send(REFUSED)  # its body comes later, and is dropped
        head, _, body = (await receive(client, b"no")).partition(b"\r\n\r\n")
        assert body == b"no"
        status, *headers = head.split(b"\r\n")
        assert status == b"HTTP/1.1 429 Too Many Requests"
        names = sorted(header.partition(b": ")[0] for header in headers)
        assert names == [b"content-length", b"date", b"retry-after"]
        client.send(b"body" + USUAL)
        assert (await receive(client, b"body 1")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert app.asked == ["/refused", "/usual"]


async def test_answers_come_in_the_order_of_the_requests() -> None:
    app = App()
    app.gate.clear()
    async with connected(app) as (client, _):
        client.send(USUAL + REFUSED + b"body" + REFUSED + b"body" + USUAL)
        await asyncio.sleep(0)
        app.gate.set()
        received = await receive(client, b"body 1")
        while received.count(b"body 1") < 2:
            received += await receive(client, b"body 1")
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"429", b"429", b"200"]


async def test_any_number_of_refusals_may_wait_in_a_row() -> None:
    app, refusals = App(), 600
    app.gate.clear()
    async with connected(app) as (client, _):
        client.send(USUAL + REFUSED.replace(b"4", b"0") * refusals + USUAL)
        await asyncio.sleep(0)
        app.gate.set()
        received = await receive(client, b"body 1")
        received += await receive(client, b"body 1")
    assert received.count(b"HTTP/1.1 429 ") == refusals
    assert app.asked == ["/usual", *["/refused"] * refusals, "/usual"]


async def test_a_refusal_of_whoever_waits_before_the_body_ends_the_connection() -> None:
    app = App()
    async with connected(app) as (client, _):
        client.send(REFUSED.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"))
        answer = await receive(client, b"no")
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert answer.count(b"connection: close\r\n") == 1
        assert await receive(client, b"more") == b""


def only(door: Door) -> EarlyProtocol:
    (connection,) = door.server_state.connections
    assert isinstance(connection, EarlyProtocol)
    return connection


@pytest.mark.parametrize("then", [b"body", b"bo", b"body" + USUAL[:10]])
async def test_a_connection_that_falls_silent_after_a_refusal_ends(then: bytes) -> None:
    async with connected(App()) as (client, door):
        client.send(REFUSED)
        await receive(client, b"no")
        only(door).timeout_keep_alive = 0
        client.send(then)
        assert await receive(client, b"more") == b""


async def test_a_connection_that_falls_silent_within_its_first_head_ends() -> None:
    async with connected(App()) as (client, door):
        await eventually(lambda: bool(door.server_state.connections))
        only(door).timeout_keep_alive = 0
        client.send(USUAL[:10])
        assert await receive(client, b"more") == b""


async def test_a_connection_on_which_nothing_ever_comes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_KEEP_ALIVE_SECONDS", 0)
    async with connected(App()) as (client, _):
        assert await receive(client, b"more") == b""


async def test_a_request_under_way_is_not_idle() -> None:
    app = App()
    app.gate.clear()
    async with connected(app) as (client, door):
        await eventually(lambda: bool(door.server_state.connections))
        only(door).timeout_keep_alive = 0
        client.send(USUAL)
        await spin()
        client.send(USUAL)  # behind the other
        await spin()
        app.gate.set()
        received = await receive(client, b"body 1")
        received += await receive(client, b"body 1")
    assert received.count(b"HTTP/1.1 200 OK") == 2


async def test_a_connection_that_was_refused_leaves_nothing_to_the_collector() -> None:
    gc.disable()
    try:
        async with connected(App()) as (client, door):
            client.send(REFUSED + b"body")
            await receive(client, b"no")
            connection = weakref.ref(only(door))
            client.close()
            await eventually(lambda: not door.server_state.connections)
            await spin()
            assert connection() is None
    finally:
        gc.enable()


async def test_a_connection_that_shall_end_goes_the_usual_way() -> None:
    app = App()
    async with connected(app) as (client, door):
        door.announce()
        client.send(REFUSED + b"body")
        answer = await receive(client, b"body 0")
        assert b"connection: close\r\n" in answer
        assert await receive(client, b"more") == b""
    assert app.asked == []
    async with connected(app) as (client, _):
        client.send(REFUSED.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"body")
        assert b"connection: close\r\n" in await receive(client, b"body 0")
    assert app.asked == []


async def test_a_refusal_to_whoever_does_not_read_goes_the_usual_way() -> None:
    app = App()
    async with connected(app) as (client, door):
        await eventually(lambda: bool(door.server_state.connections))
        flow = only(door).flow
        flow.pause_writing()  # as the transport has it where too much is unread
        client.send(REFUSED + b"body")
        await eventually(lambda: bool(door.server_state.tasks))
        flow.resume_writing()
        await receive(client, b"body 0")
    assert app.asked == []


class Face:
    """Refuses tenant `loud`; keeps a record of who was asked for, with the request's id."""

    path = "/t/{tenant}"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def tenant_of(self, path: str) -> str | None:
        return path[3:] if path.startswith("/t/") else None

    def refusal(self, tenant: str, path: str, grant: Grant, length: str) -> Response | None:
        self.asked.append((tenant, REQUEST_ID.get()))
        if tenant == "broken":
            raise ValueError("nobody expected this")
        return Response(path, 429) if tenant == "loud" else None

    async def respond(self, tenant: str, path: str, timeout: str | None, body: bytes, grant: Grant) -> Response | bytes:
        return tenant.encode()


def scope_of(path: str, *, method: str = "POST", request_id: bytes = b"abc") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": [(b"x-request-id", request_id)]}


async def statuses(edge: QuickEdge, scope: Scope) -> list[int]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await edge(scope, receive, send)
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def requests_counted(metrics: Metrics, status: int) -> float:
    text = metrics.exposition("")[0].decode()
    line = f'macrofleet_requests_total{{face="other",status="{status}"}} '
    return sum(float(found.removeprefix(line)) for found in text.splitlines() if found.startswith(line))


async def other(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})


class QuickApp:
    """`QuickEdge` alone, behind a protocol."""

    def __init__(self) -> None:
        self.face = Face()
        self.edge = QuickEdge(other, Metrics(), self.face, OpenDoor())
        self.early_answer = self.edge.early_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.edge(scope, receive, send)


@pytest.mark.parametrize("drains", [True, False])
async def test_on_a_connection_that_ends_a_refusal_comes_after_the_body(drains: bool) -> None:
    head = b"POST /t/loud HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
    if not drains:
        head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with connected(QuickApp()) as (client, door):
        if drains:
            door.announce()
        client.send(head)
        await eventually(lambda: bool(door.server_state.tasks))
        await spin()
        client.send(b"bo")
        await spin()
        client.send(b"dy")  # it fails where the connection has ended
        answer = await receive(client, b"/t/loud")
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert answer.count(b"connection: close\r\n") == 1
        assert await receive(client, b"more") == b""


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of answers goes through uvicorn's own `send`."""
    seen: list[str] = []
    send = RequestResponseCycle.send

    async def seeing(cycle: RequestResponseCycle, message: Any) -> None:
        seen.append(message["type"])
        await send(cycle, message)

    monkeypatch.setattr(RequestResponseCycle, "send", seeing)
    return seen


QUIET = b"POST /t/quiet HTTP/1.1\r\nX-Request-Id: abc\r\nContent-Length: 4\r\n\r\nbody"


async def test_a_success_is_sent_at_once_and_keeps_the_connection(messages: list[str]) -> None:
    async with connected(QuickApp()) as (client, door):
        client.send(QUIET + QUIET.replace(b"quiet", b"calm"))  # in a row
        first, second = (await receive(client, b"calm")).split(b"HTTP/1.1 200 OK\r\n")[1:]
        for answer, body in ((first, b"quiet"), (second, b"calm")):
            head, _, given = answer.partition(b"\r\n\r\n")
            headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n"))
            assert given == body
            assert headers.pop(b"date")
            assert headers == {
                b"content-type": b"application/json",
                b"cache-control": b"no-store",
                b"content-length": b"%d" % len(body),
                b"x-request-id": b"abc",
            }
        client.send(QUIET)
        assert (await receive(client, b"quiet")).endswith(b"quiet")
        assert only(door).timeout_keep_alive_task is not None
    assert messages == []


async def test_a_success_on_a_connection_that_ends_goes_the_usual_way(messages: list[str]) -> None:
    async with connected(QuickApp()) as (client, door):
        door.announce()
        client.send(QUIET)
        assert b"connection: close\r\n" in await receive(client, b"quiet")
        assert await receive(client, b"more") == b""
    assert messages == ["http.response.start", "http.response.body"]


async def test_a_success_to_whoever_does_not_read_goes_the_usual_way(messages: list[str]) -> None:
    async with connected(QuickApp()) as (client, door):
        await eventually(lambda: bool(door.server_state.connections))
        flow = only(door).flow
        flow.pause_writing()
        client.send(QUIET)
        await eventually(lambda: messages == ["http.response.start"])
        flow.resume_writing()
        assert (await receive(client, b"quiet")).endswith(b"quiet")
    assert messages == ["http.response.start", "http.response.body"]


class Once:
    """Answers in one piece where it can, without a look at the body; says how that went."""

    def __init__(self) -> None:
        self.sent: list[bool] = []
        self.heard: list[str] = []
        self.done = asyncio.Event()
        self.before: Callable[[Scope, Receive, Send], Awaitable[object]] | None = None

    def early_answer(self, scope: Scope) -> None:
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listening = None
        if self.before is not None:
            await self.before(scope, receive, send)
        else:
            await receive()
            listening = asyncio.create_task(self._hear(receive))
            await spin()
        headers = [(b"content-length", b"2")]
        self.sent.append(send_at_once(send, 200, headers, b"ok"))
        if not self.sent[-1] and not self.heard:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})
        if listening is not None:
            await listening
        self.done.set()

    async def _hear(self, receive: Receive) -> None:
        self.heard.append((await receive())["type"])


async def test_who_listens_for_the_end_hears_of_an_answer_in_one_piece() -> None:
    app = Once()
    async with connected(app) as (client, _):
        client.send(USUAL)
        await receive(client, b"ok")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await app.done.wait()
    assert (app.sent, app.heard) == ([True], ["http.disconnect"])


async def test_whoever_waits_before_the_body_gets_no_answer_in_one_piece() -> None:
    """The connection could not go on: the body may come or not."""
    app = Once()

    async def before(*_: object) -> None:
        pass

    app.before = before
    async with connected(app) as (client, _):
        client.send(USUAL.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue").removesuffix(b"body"))
        assert (await receive(client, b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert app.sent == [False]


async def test_nothing_is_added_to_an_answer_that_has_begun() -> None:
    app = Once()

    async def before(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"first"})
        app.heard.append("an answer")

    app.before = before
    async with connected(app) as (client, _):
        client.send(USUAL + USUAL)
        received = await receive(client, b"first")
        received += await receive(client, b"first") if received.count(b"first") < 2 else b""
        await eventually(lambda: len(app.sent) == 2)
    assert app.sent == [False, False]
    assert b"ok" not in received


async def test_nothing_is_written_to_whoever_is_gone() -> None:
    app = Once()

    async def before(_: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        app.heard.append(message["type"])

    app.before = before
    async with connected(app) as (client, _):
        client.send(USUAL)
        client.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await app.done.wait()
    assert app.sent == [False]


def test_another_layers_send_is_left_alone() -> None:
    class Layer:
        async def send(self, message: Message) -> None:
            raise AssertionError

    assert not send_at_once(Layer().send, 200, [], b"")


async def test_every_request_has_one_id_of_its_own() -> None:
    """Also where it is asked about before its task begins."""
    app = QuickApp()
    ids, requests = [], 300
    async with connected(app) as (client, _):
        for path in [b"loud", b"quiet"] * (requests // 2):
            client.send(QUIET.replace(b"X-Request-Id: abc\r\n", b"").replace(b"quiet", path))
            head = (await receive(client, path)).partition(b"\r\n\r\n")[0]
            ids += [line[14:].decode() for line in head.split(b"\r\n") if line.startswith(b"x-request-id: ")]
    assert ids == [asked for _, asked in app.face.asked]
    assert len(set(ids)) == requests
    assert {len(one) for one in ids} == {32}


async def test_the_edge_answers_early_for_a_face_that_refuses() -> None:
    face, metrics = Face(), Metrics()
    edge = QuickEdge(other, metrics, face, OpenDoor())
    answer = edge.early_answer(scope_of("/t/loud"))
    assert answer is not None
    status, headers, body = answer
    assert (status, body, dict(headers)[b"x-request-id"]) == (429, b"/t/loud", b"abc")
    assert dict(headers)[b"content-length"] == b"7"
    assert face.asked == [("loud", "abc")]
    assert requests_counted(metrics, 429) == 1


async def test_an_id_that_is_none_is_made_anew() -> None:
    answer = QuickEdge(other, Metrics(), Face(), OpenDoor()).early_answer(scope_of("/t/loud", request_id=b"a b\r\nc"))
    assert answer is not None
    assert len(dict(answer[1])[b"x-request-id"]) == 32


async def test_whoever_was_let_in_is_not_asked_again() -> None:
    face = Face()
    edge = QuickEdge(other, Metrics(), face, OpenDoor())
    scope = scope_of("/t/quiet")
    assert edge.early_answer(scope) is None
    assert await statuses(edge, scope) == [200]
    assert [tenant for tenant, _ in face.asked] == ["quiet"]


async def test_without_an_early_question_the_edge_asks_itself() -> None:
    face = Face()
    edge = QuickEdge(other, Metrics(), face, OpenDoor())
    assert await statuses(edge, scope_of("/t/loud")) == [429]
    assert await statuses(edge, scope_of("/t/quiet")) == [200]
    assert [tenant for tenant, _ in face.asked] == ["loud", "quiet"]


@pytest.mark.parametrize(("path", "method"), [("/elsewhere", "POST"), ("/t/loud", "GET")])
async def test_what_is_not_the_faces_goes_on(path: str, method: str) -> None:
    face = Face()
    edge = QuickEdge(other, Metrics(), face, OpenDoor())
    scope = scope_of(path, method=method)
    assert edge.early_answer(scope) is None
    assert await statuses(edge, scope) == [204]
    assert not face.asked
    assert "route" not in scope


async def test_a_failure_is_left_to_the_usual_way() -> None:
    edge = QuickEdge(other, Metrics(), Face(), OpenDoor())
    scope = scope_of("/t/broken")
    assert edge.early_answer(scope) is None
    assert await statuses(edge, scope) == [500]
    assert REQUEST_ID.get() == ""
