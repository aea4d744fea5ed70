"""Asking a help desk's API: at its pace, over and over where it fails for the moment, and never anybody else."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import httpx

from registry.errors import HelpDeskRefused, HelpDeskUnavailable
from registry.retrying import patiently
from training.connectors.address import check_same_host
from training.connectors.pace import Pace

# A page of a thousand tickets has a few megabytes.
_MOST_BYTES = 256 * 1024 * 1024
_LONGEST_HOLD_SECONDS = 900.0
_USUAL_HOLD_SECONDS = 30.0
_MOST_HOLDS = 20
_TIMEOUT_SECONDS = 30.0
_CONNECTIONS = 32
_RATE_LIMIT = "x-rate-limit"
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


@dataclass(slots=True)
class Traffic:
    """What was asked so far.

    Attributes:
        requests: all of them, tried again or not.
        throttled: answers with 429.
        retried: answers that were no use for the moment, and requests that had none.
        rate_limit: requests a minute that the account may make, as the API says it; None before it did.
    """

    requests: int = 0
    throttled: int = 0
    retried: int = 0
    rate_limit: int | None = None


class HelpDesk:
    """One account's API; may be asked by several threads.

    Args:
        base: scheme, host and port; see `help_desk_address`.
        headers: with the credentials. They go to `base` alone: redirects are not followed.
        first_wait_seconds: before the second attempt; the waits double, and differ by chance.
    """

    def __init__(
        self, base: str, headers: Mapping[str, str], *, attempts: int = 6, first_wait_seconds: float = 1.0
    ) -> None:
        self.traffic = Traffic()
        self._base = base
        self._attempts = attempts
        self._first_wait_seconds = first_wait_seconds
        self._lock = threading.Lock()
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._client = httpx.Client(
            headers={**headers, "Accept": "application/json", "User-Agent": "macrofleet"},
            timeout=_TIMEOUT_SECONDS,
            limits=limits,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, parameters: Mapping[str, str | int] | None = None, *, pace: Pace) -> Any:
        """The JSON at a path, or at the address of a further page on the same host.

        Raises:
            HelpDeskRefused: 4xx but 408, 425 and 429; has the status.
            HelpDeskUnavailable: it kept failing.
            InvalidInput: the address is another host's.
            Stopped: see `Pace.stop`.
        """
        url = f"{self._base}{path}" if path.startswith("/") else check_same_host(self._base, path)
        if parameters:
            # Not by httpx, which takes longer for it than for the rest of a request.
            url = f"{url}?{urlencode(parameters)}"
        try:
            return self._answer(url, pace)
        except HelpDeskUnavailable as problem:
            failure: HelpDeskUnavailable | None = problem

        def again() -> Any:
            """The first time what has failed already; nine in ten requests do without the machinery."""
            nonlocal failure
            if failure is not None:
                failed, failure = failure, None
                raise failed
            return self._answer(url, pace)

        return patiently(
            again,
            on=HelpDeskUnavailable,
            attempts=self._attempts,
            first_wait_seconds=self._first_wait_seconds,
            longest_wait_seconds=60 * self._first_wait_seconds,
            longest_seconds=_LONGEST_HOLD_SECONDS,
        )

    def _answer(self, url: str, pace: Pace) -> Any:
        for _ in range(_MOST_HOLDS):
            pace.wait()
            status, headers, body = self._once(url)
            if status == 429:
                with self._lock:
                    self.traffic.throttled += 1
                hold = _hold_seconds(headers)
                # Nobody asks before; and who held back does not come back in the same moment as others.
                pace.hold(hold + random.uniform(0, min(1.0, hold / 10)))  # noqa: S311  # spreads, hides nothing
                continue
            if status in {408, 425} or status >= 500:
                if "retry-after" in headers:
                    pace.hold(_hold_seconds(headers))
                raise self._failure(f"answers with status {status}")
            if status != 200:
                raise HelpDeskRefused(
                    f"the help desk answers with status {status}", status=status, remedy=_remedy(status)
                )
            if headers.get(_RATE_LIMIT, "").isdecimal():
                self.traffic.rate_limit = int(headers[_RATE_LIMIT])
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                raise self._failure("answers with half a body, or with no JSON") from None
        raise HelpDeskUnavailable(
            "the help desk lets nobody through any more", remedy="Run it again later: it goes on where it was."
        )

    def _once(self, url: str) -> tuple[int, httpx.Headers, bytes]:
        with self._lock:
            self.traffic.requests += 1
        parts, size = [], 0
        try:
            with self._client.stream("GET", url) as response:
                for part in response.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > _MOST_BYTES:
                        raise HelpDeskRefused(f"the help desk's answer is longer than {_MOST_BYTES} bytes")
        # InvalidURL is no HTTPError; neither's text is shown, which may quote an address.
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise self._failure(f"does not answer ({type(problem).__name__})") from None
        return response.status_code, response.headers, b"".join(parts)

    def _failure(self, what: str) -> HelpDeskUnavailable:
        with self._lock:
            self.traffic.retried += 1
        return HelpDeskUnavailable(f"the help desk {what}", remedy="Run it again: it goes on where it was.")


def _hold_seconds(headers: Mapping[str, str]) -> float:
    """What `Retry-After` says, seconds or a date (RFC 9110, 10.2.3), in seconds and bounded; some time where it says none."""
    said = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(said):
        return min(float(said), _LONGEST_HOLD_SECONDS)
    until = _date(said)
    if until is None:
        return _USUAL_HOLD_SECONDS
    # By the clock that the date is of, where the answer tells it.
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return min(max((until - now).total_seconds(), 0.0), _LONGEST_HOLD_SECONDS)


def _date(text: str) -> datetime | None:
    """A date of a header; None for what is none."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return "Check the credentials: an administrator's token, with the e-mail address that it belongs to."
    if 300 <= status < 400:
        return "It redirects, which is not followed: check the subdomain."
    return "Check the subdomain, and docs/connectors.md for what is asked."


def repeated_page(what: str) -> HelpDeskRefused:
    """What to raise where a help desk names a page as the next that it gave before.

    Silence would pass a part of `what` off as all of it, and asking again would go round for ever.
    """
    return HelpDeskRefused(
        f"the help desk's pages of {_place(what)} lead back to one that it gave before: what comes after cannot be read",
        remedy="What it gave is kept. Run it again later; if it persists, the API or a proxy before it ignores cursors.",
    )


def endless_pages(what: str, most: int) -> HelpDeskRefused:
    """What to raise where a listing does not end."""
    return HelpDeskRefused(
        f"the help desk's pages of {_place(what)} do not end after {most}",
        remedy="Check that the address is the account's own.",
    )


def _place(what: str) -> str:
    """A path alone, of the address of a further page: the rest of it may be anything."""
    return urlsplit(what).path if "/" in what else what
