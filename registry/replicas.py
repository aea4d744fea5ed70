"""Telling running replicas to read the fleet now, instead of at their next poll."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from registry.errors import InvalidInput
from registry.fleet import in_threads

_PATH = "/admin/fleet/refresh"
_MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a replica answered: the generation it serves now, or what went wrong."""

    url: str
    generation: int | None = None
    problem: str | None = None


def refresh_replicas(urls: Sequence[str], *, timeout_seconds: float = 30.0) -> list[Refreshed]:
    """Have replicas read the fleet, all at once; one that fails does not keep the others from it.

    Args:
        urls: operator addresses, `http://127.0.0.1:8001`.
        timeout_seconds: for each step of a request.

    Raises:
        InvalidInput: one is no such address; none was asked.
    """
    chosen = [(url, _address(url, place)) for place, url in enumerate(dict.fromkeys(urls), 1)]
    return in_threads(lambda one: _refresh(*one, timeout_seconds), chosen)


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


def _refresh(url: str, parts: SplitResult, timeout_seconds: float) -> Refreshed:
    # No proxy from the environment and no redirects: an operator address is asked itself or not at all.
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("POST", parts.path.rstrip("/") + _PATH, body=b"", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return _read(url, answer.status, answer.read(_MAX_ANSWER))
    except (OSError, http.client.HTTPException, UnicodeError) as problem:  # the last: a host that is no name
        return Refreshed(url=url, problem=f"no answer: {problem or type(problem).__name__}")
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
