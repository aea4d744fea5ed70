"""What most teams write, and a process of it per tenant: `apps/fastapi_app.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.results import PeerInfo
from benchmarks.peers.server import (
    TENSORFLOW,
    UNLOADING,
    Peer,
    PeerCannot,
    PeerFailed,
    app,
    http_request,
    labels_json,
    python_of,
    saved_models,
    text_json,
    told,
)


class FastApi(Peer):
    """FastAPI, `tf.saved_model.load` per tenant, an LRU: `apps/fastapi_app.py`."""

    name = "fastapi"
    environment = "fastapi"

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(
            title="FastAPI + tf.saved_model.load + LRU",
            settings={
                **UNLOADING,
                "uvicorn": "uvloop, httptools, no access log, one worker",
                "--most": "as many as may stay loaded",
            },
            documentation=(
                "https://www.tensorflow.org/api_docs/python/tf/saved_model/load",
                "https://fastapi.tiangolo.com/async/",
                "https://www.uvicorn.org/settings/",
            ),
            notes=(
                "A load runs in a thread, once however many wait for it; an answer runs in the event loop.",
                "The model is asked once when it is loaded, so that a first answer is not slower than the next.",
                "What is evicted has reference cycles, so that Python's collector frees it, some time later.",
            ),
        )

    def start(self, tenants: Sequence[str]) -> None:
        """See `Peer.start`."""
        self._root = self.models_folder(tenants)
        command = [python_of("fastapi"), app("fastapi_app.py"), "--root", str(self._root)]
        self.launch([*command, "--most", str(self.place.most)], UNLOADING)
        self.url = self.wait_for_url()

    def models_folder(self, tenants: Sequence[str]) -> Path:
        """A folder with a SavedModel of each tenant."""
        return saved_models(self, tenants, self.place.world.saved_model)

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it takes the text
        """See `Peer.request`."""
        return http_request(self.url, "POST", f"/models/{tenant}", text_json(text))

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """See `Peer.labels`."""
        return labels_json(answer)

    def replace(self, tenant: str) -> None:
        """See `Peer.replace`: load beside, then exchange."""
        (self._root / tenant / "2").symlink_to(self.place.world.next_saved_model)
        told(self.url, "PUT", f"/models/{tenant}")


class FastApiVariables(FastApi):
    """The same application over SavedModels whose weights are variables: more kind to its memory than ours are."""

    name = "fastapi-variables"
    most_tenants = 40
    also_with = 40
    variant = True

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        found = super().info()
        note = "Its SavedModels hold weights as variables. Memory and first answers are judged by the better of both."
        return dataclasses.replace(found, title=f"{found.title}, variables", notes=(*found.notes, note))

    def models_folder(self, tenants: Sequence[str]) -> Path:
        """See `FastApi.models_folder`."""
        return saved_models(self, tenants, self.place.world.model_with_variables)


class Dedicated(Peer):
    """A process a tenant ("dedicated endpoint"): the same application, one model each."""

    name = "dedicated"
    environment = "fastapi"
    explicit = True
    evicts = False
    load_threads = 2
    most_tenants = 10
    tenants_at_url = 1

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(
            title="a process per tenant",
            settings={**TENSORFLOW, "uvicorn": "uvloop, httptools, no access log, one worker", "--most": "1"},
            documentation=FastApi.info().documentation,
            notes=(
                "Throughput is that of one tenant's process on the server's core: more of them have no more than the core.",
                "Memory, threads and first answers are of all processes.",
            ),
        )

    def start(self, tenants: Sequence[str]) -> None:
        """See `Peer.start`; the first tenant's process."""
        self._root = saved_models(self, tenants, self.place.world.saved_model)
        self._first = tenants[0]
        self.launch(self._command(self._first), {})
        self.url = self.wait_for_url()
        self._urls = {self._first: self.url}

    def _command(self, tenant: str) -> list[str]:
        command = [python_of("fastapi"), app("fastapi_app.py"), "--root", str(self._root), "--most", "1"]
        return [*command, "--load", tenant]

    def load(self, tenant: str) -> None:
        """See `Peer.load`: one more process, whose end is the group's."""
        if tenant not in self._urls:
            log = self.place.folder / f"{tenant}.log"
            self.launch(self._command(tenant), {}, log=log)
            self._urls[tenant] = self.wait_for_url(log)

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it takes the text
        """See `Peer.request`."""
        return http_request(self.url_of(tenant), "POST", f"/models/{tenant}", text_json(text))

    def url_of(self, tenant: str) -> str:
        """See `Peer.url_of`."""
        if tenant not in self._urls:
            raise PeerFailed(f"there is no process for {tenant}")
        return self._urls[tenant]

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """See `Peer.labels`."""
        return labels_json(answer)

    def replace(self, tenant: str) -> None:  # noqa: ARG002  # there is no way
        """See `Peer.replace`."""
        raise PeerCannot("a new version is another process at another address: callers, or a proxy, must be told of it")
