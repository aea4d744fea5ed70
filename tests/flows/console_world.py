"""A console of a test's own: a small fleet in a folder, keys, and servers that are stood in for."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from flows.console.acceptance import AcceptanceDay, MacroUse
from flows.console.app import create_app
from flows.console.cookies import Cookies
from flows.console.fleet_index import FleetIndex
from flows.console.prefect_rest import PrefectRest
from flows.console.rendering import Pages
from flows.console.servers import Servers
from flows.console.sessions import Sessions
from flows.console.tracked_view import TrackedRow
from flows.console.world import World
from flows.settings import FlowSettings
from registry.database import Database, DatabaseSettings
from registry.errors import TrackingUnavailable
from registry.keys.book import KeyBook
from registry.store import ObjectStore
from training.examples import Example
from training.lake import Lake


class Tracked:
    """What MLflow would say."""

    def __init__(self) -> None:
        self.answer: list[TrackedRow] | None = []

    def rows(self, tenant: str) -> list[TrackedRow]:
        if self.answer is None:
            raise TrackingUnavailable("MLflow is away", remedy="Start it.")
        return self.answer


class Feedback:
    """What agents did."""

    def __init__(self) -> None:
        self.answer: list[AcceptanceDay] = []
        self.use: MacroUse | None = None

    def macros(self, tenant: str) -> MacroUse | None:
        return self.use

    def days(self, tenant: str) -> list[AcceptanceDay]:
        return self.answer


@dataclass
class Console:
    """A console and what it stands on."""

    app: FastAPI
    world: World
    store: ObjectStore
    keys: KeyBook
    tracked: Tracked
    feedback: Feedback
    operator: str
    clock: list[float]

    def sign_in(self, client: httpx.Client, key: str | None = None) -> httpx.Response:
        return client.post("/sign-in", data={"key": key or self.operator, "csrf": csrf(client.get("/sign-in").text)})


@contextmanager
def running(app: Any) -> Iterator[str]:
    """An application on a free port of this machine; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    try:
        # It listens already: what is asked before it has begun waits.
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def asking(console: Console) -> Iterator[httpx.Client]:
    """A browser without a browser: a client of a running console, nobody signed in."""
    with running(console.app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def csrf(page: str) -> str:
    """The token that a page's forms send back."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


def make_console(
    folder: Path,
    store: ObjectStore,
    *,
    servers: Servers | None = None,
    secure: bool = False,
    prefect: PrefectRest | None = None,
    watched: Sequence[str] = (),
    copy: ObjectStore | None = None,
) -> Console:
    database = Database(DatabaseSettings(url=SecretStr(f"sqlite:///{folder / 'macrofleet.db'}")))
    keys = KeyBook(database)
    clock = [datetime.now(UTC).timestamp()]
    tracked, feedback = Tracked(), Feedback()
    world = World(
        store=store,
        index=FleetIndex(store),
        servers=servers or Servers(()),
        sessions=Sessions(keys, hours=12, clock=lambda: clock[0]),
        cookies=Cookies(secure=secure),
        tracked=tracked,
        acceptance=feedback,
        prefect=prefect,
        flow_settings=FlowSettings(),
        pages=Pages(),
        metrics_tenants=watched,
        copy=copy,
    )
    operator = keys.create(None, ["operator"], note="test")[0]
    return Console(create_app(world), world, store, keys, tracked, feedback, operator, clock)


def put_tickets(store: ObjectStore, tenant: str, count: int, *, now: datetime | None = None) -> None:
    """Tickets of the last days, in the place of whatever the tenant has."""
    from registry.layout import examples_key

    at = now or datetime.now(UTC)
    store.delete(examples_key(tenant))
    rows = [
        Example(
            ticket_id=str(n), body="Where is my parcel?", macro_id=f"m{n % 5}", applied_at=at - timedelta(days=n % 30)
        )
        for n in range(count)
    ]
    Lake(store).merge(tenant, rows)


def some_days(days: int = 42) -> list[AcceptanceDay]:
    began = date(2026, 10, 1)
    return [
        AcceptanceDay(
            day=began + timedelta(days=n), shown=120 + n % 7, accepted_first=60 + n // 2, accepted=78 + n // 2
        )
        for n in range(days)
    ]


METRICS = """\
# TYPE macrofleet_request_seconds histogram
macrofleet_request_seconds_bucket{face="api",le="0.001"} {fast}
macrofleet_request_seconds_bucket{face="api",le="0.0025"} {most}
macrofleet_request_seconds_bucket{face="api",le="0.01"} {all}
macrofleet_request_seconds_bucket{face="api",le="+Inf"} {all}
macrofleet_request_seconds_bucket{face="metrics",le="+Inf"} 900.0
# TYPE macrofleet_requests_total counter
macrofleet_requests_total{face="api",status="200"} {all}
macrofleet_requests_total{face="health",status="200"} 500.0
# TYPE macrofleet_cache_hits_total counter
macrofleet_cache_hits_total{tier="memory"} {hits}
macrofleet_cache_hits_total{tier="disk"} {cold}
macrofleet_cache_hits_total{tier="store"} 0.0
# TYPE macrofleet_cold_loads_total counter
macrofleet_cold_loads_total{source="disk"} {cold}
macrofleet_cold_loads_total{source="store"} 0.0
# TYPE macrofleet_refusals_total counter
macrofleet_refusals_total{reason="tenant_rate"} {refused}
macrofleet_refusals_total{reason="deadline"} 0.0
# TYPE macrofleet_models_loaded gauge
macrofleet_models_loaded 612.0
# TYPE macrofleet_bytes gauge
macrofleet_bytes{tier="memory"} 6.27e+09
macrofleet_bytes{tier="disk"} 3e+10
# TYPE macrofleet_budget_bytes gauge
macrofleet_budget_bytes{tier="memory"} 8e+09
# TYPE macrofleet_ready gauge
macrofleet_ready 1.0
# TYPE macrofleet_fleet_generation gauge
macrofleet_fleet_generation 1.0
"""


def metrics(requests: int, *, refused: int = 3) -> str:
    """What a server says after so many requests."""
    said = {
        "fast": requests * 0.6,
        "most": requests * 0.97,
        "all": requests,
        "hits": requests * 0.985,
        "cold": requests * 0.015,
        "refused": refused,
    }
    text = METRICS
    for name, value in said.items():
        text = text.replace(f"{{{name}}}", f"{float(value)}")
    return text


EXPLAINED = {
    "suggestion_id": "x",
    "model_version": "9f2b6c1d4e5a7788",
    "abstained": False,
    "reason": None,
    "macros": [
        {
            "id": "m7",
            "title": "Shipping::Where is my parcel",
            "score": 0.83,
            "explanation": [
                {"text": "parcel", "contribution": 2.1},
                {"text": "should have arrived", "contribution": 1.2},
                {"text": "Monday", "contribution": 0.3},
                {"text": "money back", "contribution": -0.6},
            ],
        },
        {
            "id": "m2",
            "title": "Refunds::Money back",
            "score": 0.11,
            "explanation": [
                {"text": "money back", "contribution": 2.9},
                {"text": "parcel", "contribution": -0.9},
            ],
        },
        {"id": "m9", "title": "Complaints::Apology", "score": 0.04, "explanation": []},
    ],
}


@dataclass
class StandIn:
    """A server's operator face, stood in for: counts go up with each reading."""

    ready: list[str] = field(default_factory=list)
    requests: int = 40_000
    asked: list[dict[str, Any]] = field(default_factory=list)
    seen_keys: set[str] = field(default_factory=set)
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str, str]:
        if path == "/metrics":
            self.requests += 4200
            return 200, "text/plain", metrics(self.requests)
        if path.startswith("/v1/"):
            self.asked.append(json.loads(body))
            return 200, "application/json", json.dumps(EXPLAINED)
        if path.startswith("/admin/models?"):
            found = [{"tenant": name, "version": "1" * 16, "state": "ready"} for name in self.ready]
            return 200, "application/json", json.dumps({"models": found, "next": None})
        if path.startswith("/admin/models/"):
            tenant = path.rsplit("/", 1)[1]
            is_ready = tenant in self.ready
            told = {
                "tenant": tenant, "version": "1" * 16, "state": "ready" if is_ready else "absent", "bytes": 10_242_000,
                "serving_version": "1" * 16 if is_ready else None, "hits": 1204 if is_ready else 0, "load_ms": 0.4, "error": None,
            }  # fmt: skip
            return 200, "application/json", json.dumps(told)
        if path == "/admin/fleet/refresh":
            return 200, "application/json", '{"generation": 99}'
        return 404, "application/json", '{"detail": "there is no such thing"}'


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[StandIn]:
    """Have it listen, at `url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            stand_in.seen_keys.add(str(self.headers.get("Authorization")))
            status, kind, text = stand_in.answer(self.command, self.path, self.rfile.read(length))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{cast('tuple[str, int]', server.server_address)[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
