"""One request at a time, and what a server says of itself."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from typing import Any, Self
from urllib.parse import urlsplit

from benchmarks.load import http_request

_TIMEOUT_SECONDS = 30.0


class Client:
    """One kept-alive connection; as little of its own cost in a figure as Python allows."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self._connection = socket.create_connection((parts.hostname or "", parts.port or 80), _TIMEOUT_SECONDS)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def suggest(self, tenant: str, body: bytes) -> float:
        """Ask once; the seconds until the answer was read. Raises RuntimeError for anything but 200."""
        return self.ask(tenant, body)[0]

    def ask(self, tenant: str, body: bytes) -> tuple[float, bytes]:
        """Like `suggest`, with the answer's body."""
        seconds, status, answer = self.send(http_request(self._url, f"/v1/tenants/{tenant}/suggestions", body))
        if status != 200:
            raise RuntimeError(f"{tenant}: {status} {answer[:400]!r}")
        return seconds, answer

    def send(self, request: bytes) -> tuple[float, int, bytes]:
        """Any request, whole: the seconds until its answer was read, the status and the body."""
        began = time.perf_counter()
        self._connection.sendall(request)
        head, answer = self._receive()
        return time.perf_counter() - began, int(head[9:12]), answer

    def _receive(self) -> tuple[bytes, bytes]:
        data = b""
        while True:
            part = self._connection.recv(65536)
            if not part:
                raise RuntimeError("the server hung up")
            data += part
            head, found, body = data.partition(b"\r\n\r\n")
            if found and len(body) >= _length(head):
                return head, body


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


class Operator:
    """What an operator asks of a server, at its second address."""

    def __init__(self, url: str) -> None:
        self._url = url

    def refresh_fleet(self) -> int:
        """Have it read the fleet now; the generation."""
        answer: int = self._call("/admin/fleet/refresh", post=True)["generation"]
        return answer

    def models(self, state: str | None = None) -> dict[str, dict[str, Any]]:
        """What it says of its models, by tenant."""
        found: dict[str, dict[str, Any]] = {}
        after: str | None = ""
        while after is not None:
            chosen = f"&state={state}" if state else ""
            page = self._call(f"/admin/models?after={after}{chosen}")
            found |= {model["tenant"]: model for model in page["models"]}
            after = page["next"]
        return found

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name and labels as they stand in the exposition."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=_TIMEOUT_SECONDS) as answer:
            return parse_metrics(answer.read().decode())

    def _call(self, path: str, *, post: bool = False) -> Any:
        request = urllib.request.Request(self._url + path, method="POST" if post else "GET")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)


def parse_metrics(text: str) -> dict[str, float]:
    """Samples of a Prometheus exposition, by name and labels as they stand there."""
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


def total(metrics: dict[str, float], name: str, **labels: str) -> float:
    """The sum over all samples of a metric that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for sample, value in metrics.items()
        if sample.partition("{")[0] == name and all(label in sample for label in wanted)
    )
