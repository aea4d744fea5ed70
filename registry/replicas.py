"""Asking running replicas at their operator addresses: to read fleet or keys now, and what they have counted."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from registry.errors import InvalidInput
from registry.fleet.state import in_threads

_METRICS = "/metrics"
_MAX_ANSWER = 64 * 1024
_MAX_METRICS = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a replica answered: the generation (of the fleet, or of the keys) that it has now, or what went wrong."""

    url: str
    generation: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """A replica's metrics as Prometheus text, or what went wrong."""

    url: str
    text: str = ""
    problem: str | None = None


def refresh_replicas(
    urls: Sequence[str],
    *,
    what: Literal["fleet", "access"] = "fleet",
    key: str | None = None,
    timeout_seconds: float = 30.0,
) -> list[Refreshed]:
    """Have replicas read the fleet, all at once; one that fails does not keep the others from it.

    Args:
        urls: operator addresses, `http://127.0.0.1:8001`.
        what: "access" has them read the API keys instead.
        key: an operator's, to ask with; None asks without one.
        timeout_seconds: for each step of a request.

    Raises:
        InvalidInput: one is no such address; none was asked.
    """
    path = f"/admin/{what}/refresh"
    return in_threads(lambda one: _refresh(*one, path, key, timeout_seconds), operator_addresses(urls).items())


def scrape_replicas(urls: Sequence[str], *, key: str | None = None, timeout_seconds: float = 10.0) -> list[Scraped]:
    """What replicas have counted, all asked at once. Arguments and errors as for `refresh_replicas`."""
    return in_threads(lambda one: _scrape(*one, key, timeout_seconds), operator_addresses(urls).items())


def operator_addresses(urls: Sequence[str]) -> dict[str, SplitResult]:
    """The parts of operator addresses, each once. Raises InvalidInput when one is none."""
    return {url: _address(url, place) for place, url in enumerate(dict.fromkeys(urls), 1)}


def _address(url: str, place: int) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = url.isascii() and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        # Not repeated: what stands before an @ is often a password.
        raise InvalidInput(
            f"operator address {place} cannot be used",
            remedy="Write http://HOST:PORT, without credentials or a query.",
        )
    return parts


def _refresh(url: str, parts: SplitResult, path: str, key: str | None, timeout_seconds: float) -> Refreshed:
    try:
        return _read(url, *_ask(parts, "POST", path, "application/json", key, timeout_seconds, _MAX_ANSWER))
    except _NO_ANSWER as problem:
        return Refreshed(url=url, problem=f"no answer: {problem or type(problem).__name__}")


def _scrape(url: str, parts: SplitResult, key: str | None, timeout_seconds: float) -> Scraped:
    try:
        status, body = _ask(parts, "GET", _METRICS, "text/plain", key, timeout_seconds, _MAX_METRICS)
    except _NO_ANSWER as problem:
        return Scraped(url=url, problem=f"no answer: {problem or type(problem).__name__}")
    if status != 200:
        return Scraped(url=url, problem=f"{status} {http.client.responses.get(status, '')}".strip())
    return Scraped(url=url, text=body.decode("utf-8", "replace"))


# The last: a host that is no name.
_NO_ANSWER = (OSError, http.client.HTTPException, UnicodeError)


def _ask(
    parts: SplitResult, method: str, path: str, accept: str, key: str | None, timeout_seconds: float, most: int
) -> tuple[int, bytes]:
    # No proxy from the environment and no redirects: an operator address is asked itself or not at all.
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        body = b"" if method == "POST" else None
        headers = {"Accept": accept} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request(method, parts.path.rstrip("/") + path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(most)
    finally:
        connection.close()


def _read(url: str, status: int, body: bytes) -> Refreshed:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    told = answer if isinstance(answer, dict) else {}
    generation = told.get("generation")
    if status == 200 and isinstance(generation, int):
        return Refreshed(url=url, generation=generation)
    why = next((told[name] for name in ("detail", "title") if isinstance(told.get(name), str)), "")
    if not why and status == 200:
        why = "no generation in the answer"
    return Refreshed(url=url, problem=f"{status} {why or http.client.responses.get(status, '')}".strip()[:300])
