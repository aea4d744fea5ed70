"""What a server answers, looked at: whether it is right, how long a first one takes, what failed, whether any comes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.client import Client
from benchmarks.expected import agrees
from benchmarks.load import Samples, describe
from benchmarks.peers.requests import ask, ask_on
from benchmarks.peers.server import Peer, PeerFailed, call, call_failed
from benchmarks.peers.tree import Footprint
from benchmarks.peers.world import Expected

Figures = dict[str, Any]
#: Within which a new version must answer.
SWAP_MOST_SECONDS = 60.0
_PAUSE_SECONDS = 0.01
# What a server may take to answer anything at all before it counts as hung, and how often it is asked.
_ALIVE_SECONDS = 10.0
_ALIVE_TRIES = 3


def gone(peer: Peer, step: str) -> str | None:
    """Why nothing more can come of a server in which a step failed; None for one that still answers something."""
    if step == "ready":
        return "it never took requests"
    if peer.has_ended():
        return "it was not there any more"
    for _ in range(_ALIVE_TRIES):
        with contextlib.suppress(PeerFailed):
            call(peer.url, "GET", "/", seconds=_ALIVE_SECONDS)
            return None
    return "it did not answer anything any more"


def first_answer(peer: Peer, tenant: str, place: int) -> float:
    """Seconds until a tenant's first answer, with having it loaded where that is somebody's task."""
    time.sleep(_PAUSE_SECONDS)
    if not peer.explicit:
        with Client(peer.url_of(tenant)) as client:
            return ask_on(client, peer, tenant, place)[0]
    began = time.perf_counter()
    peer.load(tenant)
    ask(peer, tenant, place)
    return time.perf_counter() - began


def answers_right(peer: Peer, row: Expected) -> bool:
    """Whether a server answers what a model must say of a text. Raises PeerFailed for anything but 200."""
    with Client(peer.url_of(row.tenant)) as client:
        _, status, answer = client.send(peer.request(row.tenant, row.body, row.text))
    if status != 200:
        raise PeerFailed(call_failed(row.tenant, status, answer))
    return agrees(peer.labels(answer), row.scores)


def until_right(peer: Peer, rows: Iterable[Expected], deadline: float) -> None:
    """Wait until a tenant answers as it must. Raises PeerFailed."""
    for row in rows:
        while not answers_right(peer, row):
            if time.monotonic() > deadline:
                raise PeerFailed(f"after {SWAP_MOST_SECONDS:.0f} s {row.tenant} is answered by the version before")
            time.sleep(_PAUSE_SECONDS)


def described(samples: Samples) -> Figures:
    found = describe(samples)
    statuses = found.pop("statuses")
    return {**found, "failures": found["requests"] - statuses.get("200", 0)}


def first_failure(samples: Samples) -> str | None:
    places = np.flatnonzero(samples.status != 200)
    if not len(places):
        return None
    first = int(places[0])
    status = int(samples.status[first])
    if status <= 0:
        return "unanswered" if status == 0 else "the connection was lost"
    return call_failed("a request", status, samples.answers[first])


def as_figures(footprint: Footprint) -> Figures:
    return {
        "processes": footprint.processes,
        "threads": footprint.threads,
        "pss_bytes": footprint.pss,
        "resident_bytes": footprint.resident,
        "charged_bytes": footprint.charged,
    }
