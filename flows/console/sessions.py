"""Who is signed in: sessions in this process's memory, each tied to an operator's key that is looked at again and again."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from registry.keys.book import KeyRecord

# How long a key that was revoked may still be signed in with.
CHECK_SECONDS = 5.0
MOST_SESSIONS = 500
_MOST_NOTICES = 5


class KeySource(Protocol):
    """What sessions ask of `registry.keys.book.KeyBook`."""

    def find(self, key: str) -> KeyRecord | None:
        """The record of a whole key; None for what is no key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What the next page tells: how an action went. `kind` is "good" or "bad"."""

    kind: str
    text: str


@dataclass(slots=True, kw_only=True)
class Session:
    """Somebody who is signed in.

    Attributes:
        token: what the cookie holds.
        csrf: what every form sends back.
        key: the operator's, for asking servers; never shown.
        prefix, note: name it.
    """

    token: str = field(repr=False)
    csrf: str = field(repr=False)
    key: str = field(repr=False)
    prefix: str
    note: str
    ends: float
    checked: float
    notices: list[Notice] = field(default_factory=list)

    def tell(self, kind: str, text: str) -> None:
        """Have the next page say something."""
        self.notices = [*self.notices, Notice(kind=kind, text=text)][-_MOST_NOTICES:]

    def told(self) -> list[Notice]:
        """What there is to say, which then is said."""
        said, self.notices = self.notices, []
        return said


class Sessions:
    """Opens, finds and ends sessions. May be used from any thread.

    Args:
        keys: looked up when somebody signs in, and every few seconds of use.
        hours: after which a session ends in any case.
        clock: seconds since the epoch.
    """

    def __init__(self, keys: KeySource, *, hours: float, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._seconds = hours * 3600
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}

    def sign_in(self, key: str) -> Session | None:
        """A new session; None where the key is no operator's, or none any more. Raises DatabaseUnavailable."""
        record = self._operator(key)
        if record is None:
            return None
        now = self._clock()
        session = Session(
            token=secrets.token_urlsafe(32),
            csrf=secrets.token_urlsafe(32),
            key=key,
            prefix=record.prefix,
            note=record.note,
            ends=now + self._seconds,
            checked=now,
        )
        with self._lock:
            self._open = {token: one for token, one in self._open.items() if one.ends > now}
            while len(self._open) >= MOST_SESSIONS:
                del self._open[next(iter(self._open))]
            self._open[session.token] = session
        return session

    def is_operator(self, key: str) -> bool:
        """Whether a key is an operator's and valid now, for who signs in to nothing. Raises DatabaseUnavailable."""
        return self._operator(key) is not None

    def find(self, token: str) -> Session | None:
        """The session that a cookie names, if it goes on. Raises DatabaseUnavailable: nobody knows."""
        now = self._clock()
        with self._lock:
            session = self._open.get(token)
        if session is None:
            return None
        if session.ends <= now:
            self.end(token)
            return None
        if now - session.checked >= CHECK_SECONDS:
            if self._operator(session.key) is None:
                self.end(token)
                return None
            session.checked = now
        return session

    def end(self, token: str) -> None:
        """Sign somebody out; again is harmless."""
        with self._lock:
            self._open.pop(token, None)

    def _operator(self, key: str) -> KeyRecord | None:
        record = self._keys.find(key)
        if record is None or record.state(self._clock()) != "valid" or "operator" not in record.scopes:
            return None
        return record
