"""Servers that take feedback and are killed in the middle of it, again and again: what callers were told, and what is there."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from flows.local_server import LocalServer, store_environment
from registry.feedback.records import Feedback, parse_record, read_feedback
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import feedback_prefix
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store

TENANTS = ("acme", "beta", "gamma")
# In segments, after which kills come: so that they meet them in every state, being written, sealed, shipped, in the store.
_FIRST_SEGMENTS, _LAST_SEGMENTS = 1.5, 6.0


@dataclass(slots=True)
class Callers:
    """Callers that send one event after the other; one that gets no answer sends its event again to the next server.

    Attributes:
        accepted: events that a server has answered for.
        resent: how often an event was sent again.
        refused: answers that were no 202.
    """

    accepted: list[str] = field(default_factory=list)
    resent: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    _pending: dict[int, str] = field(default_factory=dict)
    _sent: Counter[int] = field(default_factory=Counter)

    async def run(self, url: str, count: int) -> None:
        """Until the server is gone."""
        await asyncio.gather(*(self._call(url, number) for number in range(count)))

    async def _call(self, url: str, number: int) -> None:
        place = urlsplit(url)
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
        except OSError:
            return
        try:
            while True:
                if number in self._pending:
                    self.resent += 1
                else:
                    self._sent[number] += 1
                    self._pending[number] = f"{number}-{self._sent[number]}"
                event = self._pending[number]
                writer.write(_request(number, event))
                answer = await reader.readuntil(b"\r\n\r\n")
                _, _, rest = answer.partition(b"content-length: ")
                await reader.readexactly(int(rest.partition(b"\r\n")[0]))
                if answer.startswith(b"HTTP/1.1 202 "):
                    self.accepted.append(event)
                else:
                    self.refused[answer.partition(b"\r\n")[0].decode("latin-1")] += 1
                del self._pending[number]
                if b"connection: close\r\n" in answer:
                    return
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived:
    """What became of the events.

    Attributes:
        accepted: that servers have answered for.
        lost: of these, not among what readers of the store find.
        doubled: found more than once by them.
        resent: sent again for want of an answer.
        repeated: records in the store that readers leave out, since an event that was sent again is there twice.
        refused: answers that were no 202.
        left_files: files that the last server left on its disk.
    """

    kills: int
    accepted: int
    lost: int
    doubled: int
    resent: int
    repeated: int
    refused: dict[str, int]
    left_files: int


def kill_servers(
    folder: Path,
    store_settings: StoreSettings,
    *,
    kills: int,
    connections: int,
    segment_seconds: float = 0.2,
    seed: int = 1,
    step: Callable[[int], None] = lambda _: None,
) -> Survived:
    """Kill a server `kills` times under load (SIGKILL), end another one in order, and compare.

    Args:
        folder: takes logs and disk.
        store_settings: an empty store.
        connections: callers, each with a connection.
        segment_seconds: how long a server writes to one file before it ships that; kills come after 1.5 to 6 of them.
        seed: of the moments.
        step: told how many kills are done.
    """
    store = open_store(store_settings)
    update_fleet(store, {tenant: lambda _: FleetEntry(reason="too few examples") for tenant in TENANTS})
    environment = {
        **store_environment(store_settings),
        "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
        "MACROFLEET_ACCESS": "open",
        "MACROFLEET_FEEDBACK_SEGMENT_SECONDS": str(segment_seconds),
        # Or a segment would be given longer for the tenants in it, and no kill met one that is being shipped.
        "MACROFLEET_FEEDBACK_OBJECTS_PER_HOUR": "10000000",
    }
    chance, callers = random.Random(seed), Callers()
    for done in range(kills + 1):
        step(done)
        with LocalServer(folder, environment) as server:
            seconds = segment_seconds * chance.uniform(_FIRST_SEGMENTS, _LAST_SEGMENTS)
            number = signal.SIGKILL if done < kills else signal.SIGTERM
            asyncio.run(_load_until(callers, server.url, connections, seconds, server.pid, number))
    return _compare(store, callers, kills=kills, disk=folder / "disk")


async def _load_until(callers: Callers, url: str, connections: int, seconds: float, pid: int, number: int) -> None:
    asyncio.get_running_loop().call_later(seconds, os.kill, pid, number)
    await callers.run(url, connections)


def _compare(store: ObjectStore, callers: Callers, *, kills: int, disk: Path) -> Survived:
    found: Counter[str] = Counter()
    for tenant in TENANTS:
        for record in read_feedback(store, tenant):
            assert isinstance(record, Feedback)
            found[record.ticket_id or ""] += 1
    return Survived(
        kills=kills,
        accepted=len(callers.accepted),
        lost=sum(1 for event in callers.accepted if not found[event]),
        doubled=sum(1 for count in found.values() if count > 1),
        resent=callers.resent,
        repeated=_records(store) - found.total(),
        refused=dict(callers.refused),
        left_files=sum(1 for _ in disk.rglob("*.journal")),
    )


def _records(store: ObjectStore) -> int:
    """Records in the objects, those that stand there twice counted twice."""
    return sum(
        1
        for tenant in TENANTS
        for info in store.list(feedback_prefix(tenant))
        for line in gzip.decompress(store.get(info.key).data).splitlines()
        if parse_record(line) is not None
    )


def _request(number: int, event: str) -> bytes:
    body = json.dumps(
        {"suggestion_id": f"s{number}", "applied": "m1", "ticket_id": event, "event_id": event, "shown": ["m1", "m2"]}
    ).encode()
    head = f"POST /v1/tenants/{TENANTS[number % len(TENANTS)]}/feedback HTTP/1.1\r\nHost: x\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
