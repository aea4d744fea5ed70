"""Who may ask: API keys from the store, and what each of them opens. `docs/access.md` has the rules in words."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from registry.errors import AccessUnavailable, MacrofleetError, NotAuthenticated, NotPermitted, TenantNotFound
from registry.keys.published import MAX_KEY_CHARACTERS, KeysFollower, PublishedKey, PublishedKeys, Scope
from registry.store import ObjectStore
from serving.metrics import Metrics
from serving.settings import ServingSettings
from serving.threads import Workers

AUTHORIZATION = b"authorization"
_BEARER = b"bearer "
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do.

    Attributes:
        tenant: whose data it is about; None is everybody's.
        scopes: what may be done with it.
        expires: when that ends, in seconds since the epoch; None for never.
    """

    tenant: str | None
    scopes: frozenset[Scope]
    expires: int | None = None

    def covers(self, tenant: str) -> bool:
        """Whether the caller may know of a tenant at all."""
        return self.tenant is None or self.tenant == tenant

    def has(self, scope: Scope) -> bool:
        """Whether the caller may do a thing. An operator may do everything, and a tenant's administrator what its agents may."""
        held = self.scopes
        return scope in held or "operator" in held or (scope != "operator" and "tenant-admin" in held)

    def check(self, scope: Scope, tenant: str | None = None) -> None:
        """Return where the caller may do this.

        Asks nothing but the key itself. So for somebody else's tenant there is the same answer in the same time, whether
        there is such a tenant or not.

        Args:
            scope: what is to be done.
            tenant: with whose data, whatever that string is; None where it is nobody's in particular.

        Raises:
            TenantNotFound: the caller may not know of the tenant.
            NotPermitted: it may, and may not do this.
        """
        if tenant is not None and not self.covers(tenant):
            raise TenantNotFound("there is no such tenant")
        if not self.has(scope):
            raise NotPermitted(f"this key lacks the scope {scope}", remedy="Ask with another key.")


EVERYTHING = Grant(None, frozenset({"operator"}))
# Where everybody is let in from a network, nobody is an administrator.
ANY_SUGGESTION = Grant(None, frozenset({"suggest", "feedback"}))


class Doorkeeper(Protocol):
    """Knows callers by what they send."""

    def grant(self, authorization: bytes | None) -> Grant:
        """What the caller with this Authorization header may do; None is a caller without one.

        Raises:
            NotAuthenticated: the caller has no key, or one that is none (any more).
            AccessUnavailable: the keys are not known.
        """
        ...


class OpenDoor:
    """Lets everybody in, as whoever it is told. For a server on one's own machine, or behind somebody who asks."""

    def __init__(self, grant: Grant = EVERYTHING) -> None:
        self._grant = grant

    def grant(self, authorization: bytes | None) -> Grant:  # noqa: ARG002  # nobody is asked
        """See `Doorkeeper`."""
        return self._grant


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read last, by digest; of which generation."""

    generation: int = 0
    grants: Mapping[bytes, Grant] = field(default_factory=dict)


def _known(heading: PublishedKeys, keys: Iterable[PublishedKey]) -> _Known:
    """What a server keeps of the keys, of which there may be hundreds of thousands: what is alike is kept once."""
    alike: dict[Grant, Grant] = {}
    scopes: dict[tuple[Scope, ...], frozenset[Scope]] = {}
    grants = {}
    for key in keys:
        held = scopes.setdefault(key.scopes, frozenset(key.scopes))
        grant = Grant(key.tenant, held, key.expires)
        grants[bytes.fromhex(key.digest)] = alike.setdefault(grant, grant)
    return _Known(heading.generation, grants)


class PublishedAccess:
    """Lets in whoever has a key that is published in the store. Owned by one event loop.

    The keys are asked for by entity tag again and again; what a key opens is decided by the last ones read. They stay
    valid when they cannot be read again, since servers shall outlive their store, but not for ever: a key may have been
    revoked meanwhile. Where there are none, nobody is let in.

    Args:
        store: only ever read.
        poll_seconds: pause between two readings: a revoked key is refused after that and a reading's time.
        stale_seconds: for how long keys that cannot be read again stay valid; then nobody is let in until they can be.
        clock: seconds, never backwards.
        wall: seconds since the epoch, for keys that expire.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        poll_seconds: float,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reader = KeysFollower(store, _known)
        self._poll_seconds = poll_seconds
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._wall = wall
        self._known = _Known()
        self._read_at: float | None = None
        self._workers: Workers | None = None
        self._reading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether it is known who may ask: the keys were read, and not too long ago."""
        return self._read_at is not None and self._clock() - self._read_at <= self._stale_seconds

    @property
    def age_seconds(self) -> float | None:
        """Since the store last confirmed the keys, or None before the first reading."""
        return None if self._read_at is None else self._clock() - self._read_at

    @property
    def generation(self) -> int:
        """Of the keys that hold; 0 where there are none."""
        return self._known.generation

    @property
    def count(self) -> int:
        """How many keys were published. No `__len__`: one without keys must not count as none where it stands at a door."""
        return len(self._known.grants)

    def grant(self, authorization: bytes | None) -> Grant:
        """See `Doorkeeper`."""
        if not self.ready:
            raise AccessUnavailable("the API keys could not be read")
        key = _bearer(authorization)
        # By the digest of the whole key: see `registry.keys.published` for why this tells nobody anything by its time.
        found = None if key is None else self._known.grants.get(hashlib.sha256(key).digest())
        if found is None or (found.expires is not None and found.expires <= self._wall()):
            raise NotAuthenticated("this needs a valid API key", remedy="Send it as `Authorization: Bearer mf_…`.")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the published keys while the context lasts."""
        self._workers = Workers("access", 1, nice=10)
        polling = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            self._workers.close()
            self._workers = None

    async def refresh(self) -> int:
        """Read the keys now; what was published before the call holds after it. Within `running`.

        Returns:
            Their generation; 0 where there are none.

        Raises:
            MacrofleetError: they cannot be read; the last ones stay valid for their time.
        """
        assert self._workers is not None, "it is not running"
        async with self._reading:
            began = self._clock()  # what is published while it is read need not be in it
            known = await self._workers.run(self._reader.refresh)
            if self._read_at is None and known is None:
                _LOG.warning("there are no API keys, so nobody is let in: `macrofleet keys create` makes one")
            if known is not None and known is not self._known:
                self._known = known
                _LOG.info("API keys", extra={"generation": self.generation, "keys": self.count})
            self._read_at = began
            return self.generation

    async def _poll(self) -> None:
        while True:
            try:
                await self.refresh()
            except MacrofleetError as error:
                _LOG.warning("the API keys cannot be read", extra={"age_seconds": self.age_seconds}, exc_info=error)
            except Exception:  # noqa: BLE001  # polling goes on, whatever it was
                _LOG.exception("reading the API keys failed")
            await asyncio.sleep(self._poll_seconds)


def open_access(settings: ServingSettings, store: ObjectStore) -> PublishedAccess:
    """The published keys of a store, read as the settings say."""
    return PublishedAccess(
        store, poll_seconds=settings.access_poll_seconds, stale_seconds=settings.access_stale_seconds
    )


def add_access_metrics(metrics: Metrics, access: PublishedAccess) -> None:
    """Show in the metrics how old the keys are, how many, and which state of them."""
    metrics.gauge(
        "macrofleet_access_age_seconds", "Since the store last confirmed the API keys", lambda: access.age_seconds
    )
    metrics.gauge("macrofleet_access_generation", "Generation of the API keys that hold", lambda: access.generation)
    metrics.gauge("macrofleet_access_keys", "API keys that were published", lambda: access.count)


def _bearer(authorization: bytes | None) -> bytes | None:
    """The key in an Authorization header; None where there is none, or what cannot be one."""
    if authorization is None or len(authorization) > len(_BEARER) + MAX_KEY_CHARACTERS:
        return None
    return authorization[len(_BEARER) :] if authorization[: len(_BEARER)].lower() == _BEARER else None


def authorization_of(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """A request's Authorization header. Several are none: nobody could say which one counts."""
    found = [value for name, value in headers if name == AUTHORIZATION]
    return found[0] if len(found) == 1 else None
