"""Why a server did not answer with a success, counted by status and reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.load import BROKEN, UNANSWERED, Samples

_REASON_CHARACTERS = 100
_KINDS = ("type", "reason", "code", "error", "title", "message", "detail")
_RETRY = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
# What is of one request alone would make every refusal a kind of its own.
_NUMBERS = re.compile(r"[0-9a-f]{8,}|(?<![A-Za-z])\d+")


def refusals(samples: Samples) -> list[dict[str, Any]]:
    """Every answer that was no success and every request without an answer, the most frequent first.

    Returns:
        `status` ("broken": the connection was lost; "unanswered": nothing came in time), `reason`, `count`, and
        `retry_after`, how many of them said when to come again.
    """
    counts: Counter[tuple[str, str]] = Counter()
    told: Counter[tuple[str, str]] = Counter()
    for status, text in _unsuccessful(samples):
        head, _, body = text.partition(b"\r\n\r\n")
        key = (_name(status), reason_of(body) if status > 0 else "")
        counts[key] += 1
        told[key] += bool(_RETRY.search(head))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"status": status, "reason": reason, "count": count, "retry_after": told[status, reason]}
        for (status, reason), count in ordered
    ]


def reason_of(body: bytes) -> str:
    """The reason that a body gives: of problem details (RFC 9457) the kind, of other JSON the first field that is one."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return _short(body.decode("utf-8", "replace"))
    if isinstance(answer, dict):
        for field in _KINDS:
            found = answer.get(field)
            if isinstance(found, str) and found not in ("", "about:blank"):
                return _short(found.rpartition(":")[2] if found.startswith("urn:") else found)
            if isinstance(found, int) and field != "code":
                return str(found)
    return _short(body.decode("utf-8", "replace"))


def _short(text: str) -> str:
    return _NUMBERS.sub("…", " ".join(text.split()))[:_REASON_CHARACTERS]


def _name(status: int) -> str:
    return {UNANSWERED: "unanswered", BROKEN: "broken"}.get(status, str(status))


def _unsuccessful(samples: Samples) -> Iterator[tuple[int, bytes]]:
    for place in np.flatnonzero((samples.status < 200) | (samples.status >= 300)).tolist():
        yield int(samples.status[place]), samples.refusals[place] if samples.refusals else b""
