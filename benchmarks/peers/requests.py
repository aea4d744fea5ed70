"""The same requests for every server, and asking them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from benchmarks.client import Client
from benchmarks.load import Integers, Plan, Samples, poisson_arrivals, run_load, zipf_shares
from benchmarks.peers.results import Text
from benchmarks.peers.server import Peer, PeerFailed, call_failed
from benchmarks.peers.world import bodies, text_of

#: Requests made beforehand for each tenant and kind of text.
EACH = 4
_PICKS = 20_000
_PATIENCE_SECONDS = 10.0


@functools.cache
def _texts(text: Text) -> list[tuple[bytes, str]]:
    return [(body, text_of(body)) for body in bodies(text)]


def request(peer: Peer, tenant: str, place: int, text: Text = "50 words") -> bytes:
    """A whole request about one of the texts."""
    texts = _texts(text)
    return peer.request(tenant, *texts[place % len(texts)])


def ask(peer: Peer, tenant: str, place: int, text: Text = "50 words") -> bytes:
    """One request on a connection of its own; the answer's body. Raises PeerFailed for anything but 200."""
    try:
        client = Client(peer.url_of(tenant))
    except OSError as problem:
        raise PeerFailed(f"no connection: {problem}; {peer.last_words()}") from None
    with client:
        return ask_on(client, peer, tenant, place, text)[1]


def ask_on(client: Client, peer: Peer, tenant: str, place: int, text: Text = "50 words") -> tuple[float, bytes]:
    """One request: seconds until its answer, and its body. Raises PeerFailed for anything but 200."""
    try:
        seconds, status, answer = client.send(request(peer, tenant, place, text))
    except (OSError, RuntimeError) as problem:
        raise PeerFailed(f"{tenant}: {problem}; {peer.last_words()}") from None
    if status != 200:
        raise PeerFailed(call_failed(tenant, status, answer))
    return seconds, answer


class Load:
    """Closed and open loops over some tenants, drawn by Zipf's law in their order.

    Args:
        tenants: the first the busiest.
        core: for the generator.
        seed: of what is drawn: the same for every server.
    """

    def __init__(self, peer: Peer, tenants: Sequence[str], text: Text, *, core: int | None, seed: int = 1) -> None:
        self.tenants = list(tenants)
        self._peer = peer
        self._core = core
        self._rng = np.random.default_rng(seed)
        self._requests = [
            request(peer, name, EACH * place + copy, text) for place, name in enumerate(tenants) for copy in range(EACH)
        ]

    def _draw(self, count: int) -> Integers:
        places = self._rng.choice(len(self.tenants), count, p=zipf_shares(len(self.tenants)))
        return places * EACH + self._rng.integers(0, EACH, count)

    def _plan(self, picks: Integers, **more: object) -> Plan:
        return Plan(
            url=self._peer.url,
            requests=self._requests,
            picks=picks,
            core=self._core,
            patience_seconds=_PATIENCE_SECONDS,
            **more,  # type: ignore[arg-type]  # `Plan` names them
        )

    def closed_plan(self, *, clients: int, seconds: float, keep_answers: bool = False) -> Plan:
        """Each client sends its next request when it has its answer."""
        return self._plan(self._draw(_PICKS), connections=clients, seconds=seconds, keep_answers=keep_answers)

    def closed(self, *, clients: int, seconds: float) -> Samples:
        """Run it."""
        return run_load(self.closed_plan(clients=clients, seconds=seconds))

    def open(self, *, rate: float, seconds: float) -> Samples:
        """So many requests a second, whatever becomes of them; answers are kept."""
        at = poisson_arrivals(rate, seconds, rng=self._rng)
        return run_load(self._plan(self._draw(len(at)), at=at, keep_answers=True))
