"""macrofleet, as `macrofleet serve` runs it, and a raw ASGI echo: what the stack below it can do at most."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.client import Operator
from benchmarks.peers.results import OURS, PeerInfo
from benchmarks.peers.server import Peer, PeerCannot, app, http_request
from benchmarks.peers.world import publish_next, publish_now
from flows.local_server import store_environment

_ROOT = Path(__file__).parents[2]
# Nobody is asked for a key, and no answer is remembered or held back: what is measured is the model. Cold loads are
# not bounded, since no other server bounds its own.
_SETTINGS = {
    "MACROFLEET_ACCESS": "open",
    "MACROFLEET_HOLDBACK_SHARE": "0",
    "MACROFLEET_ANSWER_BYTES": "0",
    "MACROFLEET_COLD_LOADS_PER_SECOND": "100000",
    "MACROFLEET_REQUEST_TIMEOUT_MS": "60000",
}


class Ours(Peer):
    """One process of `macrofleet serve`."""

    name = OURS
    environment = None

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(
            title="macrofleet",
            settings={**_SETTINGS, "MACROFLEET_MEMORY_BYTES": "weights of as many models as may stay loaded"},
            documentation=("docs/serving.md",),
            notes=(
                "It cleans the ticket, checks which macros may be shown and signs its answer; others are sent cleaned text.",
            ),
        )

    def start(self, tenants: Sequence[str]) -> None:  # noqa: ARG002  # it serves all of the fleet
        """See `Peer.start`."""
        publish_now(self.place.world)
        ready = self.place.folder / "url"
        environment = {
            **store_environment(self.place.world.store_settings),
            **_SETTINGS,
            "MACROFLEET_DISK_FOLDER": str(self.place.world.disk),
            "MACROFLEET_MEMORY_BYTES": str(self.place.most * self.place.world.model_bytes),
            "MACROFLEET_OPERATOR_PORT": "0",
            "PYTHONPATH": str(_ROOT),
        }
        self.launch(
            [sys.executable, "-m", "macrofleet", "serve", "--port", "0", "--ready-file", str(ready)], environment
        )
        self.url, self._operator_url = self._wait(lambda: ready.read_text() if ready.exists() else None).split()
        self.wait_until_answering(self.url, "/readyz")

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it reads the ticket
        """See `Peer.request`."""
        return http_request(self.url, "POST", f"/v1/tenants/{tenant}/suggestions", body)

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """See `Peer.labels`."""
        return [(macro["id"], macro["score"]) for macro in json.loads(answer)["macros"]]

    def replace(self, tenant: str) -> None:  # noqa: ARG002  # the world has a next version of one tenant
        """See `Peer.replace`: publish a fleet, and push it."""
        publish_next(self.place.world)
        Operator(self._operator_url).refresh_fleet()


class Echo(Peer):
    """A raw ASGI application under the same uvicorn that answers each body with itself."""

    name = "echo"
    environment = None

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(title="raw ASGI echo", notes=("No server: what uvicorn, uvloop and httptools can do at most.",))

    def start(self, tenants: Sequence[str]) -> None:  # noqa: ARG002  # it knows of none
        """See `Peer.start`."""
        self.launch([sys.executable, app("asgi_echo.py")], {})
        self.url = self.wait_for_url()

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it reads nothing
        """See `Peer.request`."""
        return http_request(self.url, "POST", f"/v1/tenants/{tenant}/suggestions", body)

    def labels(self, answer: bytes) -> list[tuple[str, float]]:  # noqa: ARG002  # it has none
        """See `Peer.labels`."""
        return []

    def replace(self, tenant: str) -> None:  # noqa: ARG002  # it knows of none
        """See `Peer.replace`."""
        raise PeerCannot("it has no models")
