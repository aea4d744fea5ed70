"""A tenant's lease: the object in the store by which one run at a time works on a tenant.

It is taken, renewed and released by conditional writes, and nobody compares the clocks of two machines. Who holds it
counts its seconds from before the write was sent; who wants it counts them from when it saw the object first, and takes
over what has not changed since. So a lease has run out for its holder before another one can have it, whatever time
either machine thinks it is; clocks need only tick alike. The times in the object are for people.

Each taking has a token, greater than every one before. A holder that was stopped in the middle may wake up after it was
replaced, and still write; what it writes bears its token, and the fleet takes no smaller one than it has
(`FleetEntry.published`).
"""

from __future__ import annotations

import logging
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field, StringConstraints

from registry.deletion.tombstones import read_tombstone
from registry.documents import Document
from registry.errors import (
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    MacrofleetError,
    ObjectNotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from registry.fleet.state import edit_fleet
from registry.layout import lease_key
from registry.store import ObjectStore, StoredObject

LEASE_SECONDS = 60.0
LONGEST_SECONDS = 3600.0
MOST_LEASE_SECONDS = 3600
_LOG = logging.getLogger(__name__)
_MAX_BYTES = 4096
_ATTEMPTS = 4
_POLL_SECONDS = 1.0
# Two machines' clocks do not tick quite alike.
_DRIFT = 1.01
_HOLDER = re.compile(r"[ -~]{1,200}")


class LeaseState(Document):
    """A lease at rest. Whoever rewrites it rewrites it whole.

    Attributes:
        holder: who has it, or had it last.
        claim: tells this taking from every other one.
        token: greater than that of every taking before.
        renewals: so that no two states of a lease are alike, nor their entity tags.
        seconds: how long it holds from a taking or renewal on.
        taken_at, expires_at: by the holder's clock, for people.
        released: it is free, and remains for its token.
    """

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    holder: Annotated[str, StringConstraints(pattern=rf"^{_HOLDER.pattern}$")]
    claim: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    token: Annotated[int, Field(ge=1)]
    renewals: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(gt=0, le=MOST_LEASE_SECONDS)]
    taken_at: datetime
    expires_at: datetime
    released: bool = False


class _Found(NamedTuple):
    state: LeaseState
    etag: str


class Lease:
    """A tenant that this run may work on, until `check` says otherwise. Made by `Leases`; threads may share it.

    Attributes:
        tenant: whose it is.
        token: what goes with all that is published under it.
    """

    def __init__(
        self, store: ObjectStore, tenant: str, found: _Found, *, deadline: float, clock: Callable[[], float]
    ) -> None:
        self.tenant = tenant
        self.token = found.state.token
        self._store = store
        self._state, self._etag = found
        self._deadline = deadline
        self._lost: str | None = None
        self._clock = clock
        self._writing = threading.Lock()

    def check(self) -> None:
        """Return while the lease holds. Asks nobody: as long as it has not run out, nobody else can have it.

        Raises:
            LeaseLost: it ran out, was released, or was found taken over.
        """
        if self._lost is not None or self._clock() >= self._deadline:
            raise LeaseLost(
                f"the lease of tenant {self.tenant} {self._lost or 'has run out'}",
                remedy="Run it again; if it happens often, look for work that hangs or a store that does not answer.",
            )

    def renew(self) -> None:
        """Have the lease hold for its whole time again.

        Raises:
            LeaseLost: it has run out, or somebody else has it.
            StoreError: the store failed; the lease holds as long as it did, and a later try may do better.
        """
        with self._writing:
            self.check()
            sent = self._clock()
            seconds = self._state.seconds
            self._write({"renewals": self._state.renewals + 1, "expires_at": _in(seconds)})
            self._deadline = sent + seconds

    def release(self) -> None:
        """Let the next one have the tenant at once. One that was lost already is left alone.

        Raises:
            StoreError: the store failed; the lease runs out by itself.
        """
        with self._writing:
            if self._state.released:
                return
            self._lost = "was released"
            try:
                self._write({"released": True, "expires_at": datetime.now(UTC)})
            except LeaseLost:
                return

    def _write(self, update: dict[str, object]) -> None:
        state = self._state.model_copy(update=update)
        for attempt in range(_ATTEMPTS):
            try:
                self._etag = self._store.put(lease_key(self.tenant), state.to_bytes(), if_match=self._etag)
            except PreconditionFailed:
                found = _find(self._store, self.tenant)
                if found is None or found.state.claim != state.claim:
                    self._lost = f"was taken over by {found.state.holder}" if found else "was removed"
                    raise LeaseLost(f"the lease of tenant {self.tenant} {self._lost}") from None
                # A write of ours, whose answer was lost.
                self._etag = found.etag
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                self._state = state
                return


class Leases:
    """Takes tenants' leases, for one run or process.

    Args:
        store: where they lie.
        holder: who takes them, as others are to read it: up to 200 printable ASCII characters.
        seconds: how long a lease holds without being renewed: how soon a run that died is replaced.
        longest: how long `hold` renews one; work that takes longer is taken to hang.
        every: seconds between its renewals; a third of `seconds` by default.
        clock: seconds that pass, also while the machine sleeps.
        sleep: waits for so many seconds.

    Raises:
        InvalidInput: the holder or the seconds cannot be used.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        holder: str,
        seconds: float = LEASE_SECONDS,
        longest: float = LONGEST_SECONDS,
        every: float | None = None,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not _HOLDER.fullmatch(holder):
            raise InvalidInput(
                f"{holder[:80]!r} cannot be the holder of a lease", remedy="Use 1 to 200 printable ASCII characters."
            )
        if not 0 < seconds <= MOST_LEASE_SECONDS:
            raise InvalidInput(
                f"a lease cannot hold for {seconds:g} seconds",
                remedy=f"Give more than 0 and up to {MOST_LEASE_SECONDS}.",
            )
        self._store = store
        self._holder = holder
        self._seconds = seconds
        self._longest = longest
        self._every = seconds / 3 if every is None else every
        self._clock = clock
        self._sleep = sleep

    @contextmanager
    def hold(self, tenant: str, *, seize: bool = False) -> Iterator[Lease]:
        """Hold a tenant's lease while the context lasts; a thread renews it. It is released however that ends.

        Args:
            seize: take it from whoever has it, and wait until that one knows that it is gone: for a deletion, which
                nobody's work may hold up. That takes as long as the other one's lease holds.

        Raises:
            LeaseHeld, StoreError: as `take` does.
        """
        lease, wait = self._seize(tenant) if seize else (self.take(tenant), 0.0)
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(lease, ended), name=f"lease of {tenant}", daemon=True)
        keeper.start()
        try:
            if wait:
                # It cannot be renewed any more, and its holder asks nobody before its time is over.
                self._sleep(wait)
            yield lease
        finally:
            ended.set()
            keeper.join()
            try:
                lease.release()
            except StoreError as problem:
                # What was done under it is done; it will run out.
                _LOG.warning("tenant %s: its lease was not released: %s", tenant, problem)

    def take(self, tenant: str) -> Lease:
        """Take a tenant's lease; renewing and releasing it is the caller's.

        One that somebody else has is watched until it is released (then it is taken), is renewed (then its holder lives,
        and has it), or has not changed for its whole time (then its holder is gone, and it is taken over).

        Raises:
            LeaseHeld: somebody else has it; says who.
            StoreError: the store failed, or the object is damaged. If a write got through all the same, the lease is
                nobody's until its time is over.
        """
        found = _find(self._store, tenant)
        for _ in range(_ATTEMPTS):
            if found is not None and not found.state.released:
                found = self._outwait(tenant, found)
            lease = self._claim(tenant, found)
            if lease is not None:
                return lease
            found = _find(self._store, tenant)  # somebody was quicker
        raise _held(tenant, found)

    def _seize(self, tenant: str) -> tuple[Lease, float]:
        """A tenant's lease whoever has it, and the seconds for which that one may believe that it does."""
        for _ in range(_ATTEMPTS):
            try:
                found = _find(self._store, tenant)
            except StoreUnavailable:
                raise
            except (StoreError, InvalidInput):
                # Damaged, so that nobody can renew it.
                self._store.delete(lease_key(tenant))
                continue
            lease = self._claim(tenant, found)
            if lease is not None:
                return lease, 0.0 if found is None or found.state.released else found.state.seconds * _DRIFT
        raise _held(tenant, None)

    def _outwait(self, tenant: str, found: _Found) -> _Found:
        """The lease once it may be taken. Raises LeaseHeld."""
        until = self._clock() + found.state.seconds * _DRIFT
        while (left := until - self._clock()) > 0:
            self._sleep(min(left, _POLL_SECONDS))
            try:
                changed = self._store.get_if_changed(lease_key(tenant), found.etag, max_bytes=_MAX_BYTES)
            except ObjectNotFound:
                raise _held(tenant, found) from None  # whoever has it deletes the tenant
            if changed is None:
                continue
            now = _parse(self._store, tenant, changed)
            if now.state.released:
                return now
            raise _held(tenant, now)
        _LOG.warning("tenant %s: its lease is taken over from %s, which is gone", tenant, found.state.holder)
        return found

    def _claim(self, tenant: str, found: _Found | None) -> Lease | None:
        """Write ourselves in, over what was found; None where somebody was quicker."""
        sent = self._clock()
        state = LeaseState(
            holder=self._holder,
            claim=uuid.uuid4().hex,
            token=1 + (found.state.token if found else self._last_published(tenant)),
            seconds=self._seconds,
            taken_at=datetime.now(UTC),
            expires_at=_in(self._seconds),
        )
        etag = found.etag if found else None
        try:
            etag = self._store.put(lease_key(tenant), state.to_bytes(), if_match=etag, if_absent=etag is None)
        except PreconditionFailed:
            # The store may have taken our write and lost the answer; its client then retried and was refused.
            now = _find(self._store, tenant)
            if now is None or now.state.claim != state.claim:
                return None
            etag = now.etag
        return Lease(self._store, tenant, _Found(state, etag), deadline=sent + self._seconds, clock=self._clock)

    def _last_published(self, tenant: str) -> int:
        """The last token that others remember, which a lease object that somebody removed must not start below."""
        return last_token(self._store, tenant)

    def _keep(self, lease: Lease, ended: threading.Event) -> None:
        """Renew until the work has ended, or should have."""
        last = self._clock() + self._longest
        while not ended.wait(self._every):
            if self._clock() >= last:
                _LOG.warning("tenant %s: its lease is not renewed any more: the work takes too long", lease.tenant)
                return
            try:
                lease.renew()
            except LeaseLost as problem:
                _LOG.warning("tenant %s: %s", lease.tenant, problem)
                return
            except MacrofleetError as problem:
                _LOG.warning("tenant %s: its lease was not renewed: %s", lease.tenant, problem)


def last_token(store: ObjectStore, tenant: str) -> int:
    """The greatest token that is known of a tenant's leases: of the fleet's, and of those before it was deleted."""
    entry = edit_fleet(store, [tenant], lambda found: found, write=False).before[tenant]
    tombstone = read_tombstone(store, tenant)
    return max(entry.lease_token if entry else 0, tombstone.token if tombstone else 0)


def this_process() -> str:
    """A holder's name for this process."""
    return f"process {os.getpid()} on {re.sub(r'[^!-~]', '?', platform.node())[:100]}"


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _find(store: ObjectStore, tenant: str) -> _Found | None:
    try:
        return _parse(store, tenant, store.get(lease_key(tenant), max_bytes=_MAX_BYTES))
    except ObjectNotFound:
        return None


def _parse(store: ObjectStore, tenant: str, stored: StoredObject) -> _Found:
    state = LeaseState.parse(stored.data, what=f"{store.url}/{lease_key(tenant)}", error=StoreError)
    return _Found(state, stored.etag)


def _held(tenant: str, found: _Found | None) -> LeaseHeld:
    who = f"{found.state.holder}, until {found.state.expires_at:%Y-%m-%d %H:%M:%S %Z} or longer" if found else "others"
    return LeaseHeld(f"tenant {tenant} is being worked on by {who}", remedy="Run it again later.")
