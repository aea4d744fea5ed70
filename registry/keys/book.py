"""API keys in the control plane's database: who has which, until when. Servers know them by `registry.keys.published`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from registry.database import Database
from registry.errors import InvalidInput, KeyNotFound
from registry.keys.published import (
    MAX_KEYS,
    PREFIX,
    PublishedKey,
    PublishedKeys,
    Scope,
    key_digest,
    make_key,
    prefix_of,
    sorted_scopes,
)
from registry.names import check_tenant

MAX_NOTE = 200
# A key that expired so long ago is no key at any server, however wrong its clock; it need not be published any more.
_FORGOTTEN_SECONDS = 86_400

_METADATA = sa.MetaData()
_KEYS = sa.Table(
    "api_keys",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("prefix", sa.String(10), nullable=False, unique=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("tenant", sa.String(63), nullable=True, index=True),
    sa.Column("scopes", sa.String(100), nullable=False),
    sa.Column("note", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=True),
    sa.Column("revoked_at", sa.BigInteger, nullable=True),
    sa.Column("replaced_by", sa.String(10), nullable=True),
)
_STATE = sa.Table(
    "access_state",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is known of a key; times are whole seconds since the epoch.

    Attributes:
        prefix: names it; the first part of the key itself.
        tenant: whose it is; None for an operator's.
        scopes: what it may do.
        note: what its maker wrote of it.
        expires_at: when it stops being one; None for never.
        revoked_at: when it was taken back; None if it was not.
        replaced_by: the prefix of the key that a rotation made in its place.
    """

    prefix: str
    tenant: str | None
    scopes: tuple[Scope, ...]
    note: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    replaced_by: str | None

    def state(self, now: float) -> str:
        """ "revoked", "expired" or "valid"."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


class KeyBook:
    """Makes, lists, rotates and revokes keys. What it changes holds at servers once it is published.

    Args:
        database: one transaction a call; calls of several processes come one after the other.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, tenant: str | None, scopes: Iterable[Scope], *, lifetime_seconds: float | None = None, note: str = ""
    ) -> tuple[str, KeyRecord]:
        """A new key, which nobody can be told again, and its record.

        Args:
            tenant: whose it is, in the fleet or not yet; None for an operator's key.
            scopes: what it may do; an operator's has the scope `operator` alone.
            lifetime_seconds: None for ever.
            note: what it is for, at most 200 characters.

        Raises:
            InvalidInput: a key cannot be so, or there are too many.
        """
        wanted = _checked_scopes(tenant, scopes)
        if len(note) > MAX_NOTE or not note.isprintable():
            raise InvalidInput(f"a key's note has at most {MAX_NOTE} printable characters", remedy="Shorten it.")
        now = int(self._clock())
        key, prefix = make_key()
        record = KeyRecord(
            prefix=prefix,
            tenant=tenant,
            scopes=wanted,
            note=note,
            created_at=now,
            expires_at=_expiry(now, lifetime_seconds),
            revoked_at=None,
            replaced_by=None,
        )
        with self._database.begin() as connection:
            _change(connection, now)
            _insert(connection, record, key)
        return key, record

    def rotate(
        self, prefix: str, *, overlap_seconds: float, lifetime_seconds: float | None = None
    ) -> tuple[str, KeyRecord]:
        """A new key in the place of one, which goes on for a while. Returns as `create`.

        Args:
            prefix: of the one that is replaced.
            overlap_seconds: how long both hold; 0 revokes the old one at once.
            lifetime_seconds: of the new one; None gives it as long as the old one was given.

        Raises:
            KeyNotFound: there is no such key.
            InvalidInput: it is revoked, expired or replaced already.
        """
        if overlap_seconds < 0:
            raise InvalidInput("an overlap cannot be negative", remedy="Give 0 or more.")
        now = int(self._clock())
        key, made = make_key()
        with self._database.begin() as connection:
            _change(connection, now)
            old = _find(connection, prefix)
            if old.replaced_by is not None:
                raise InvalidInput(f"key {prefix} was replaced by {old.replaced_by}", remedy="Rotate that one.")
            if old.state(now) != "valid":
                raise InvalidInput(f"key {prefix} is {old.state(now)}", remedy="Create a new one.")
            if lifetime_seconds is None and old.expires_at is not None:
                lifetime_seconds = old.expires_at - old.created_at
            record = KeyRecord(
                prefix=made,
                tenant=old.tenant,
                scopes=old.scopes,
                note=old.note,
                created_at=now,
                expires_at=_expiry(now, lifetime_seconds),
                revoked_at=None,
                replaced_by=None,
            )
            _insert(connection, record, key)
            ends = _expiry(now, overlap_seconds) if overlap_seconds else now
            ends = ends if old.expires_at is None else min(ends or now, old.expires_at)
            values: dict[str, Any] = {"replaced_by": made, "expires_at": ends}
            if not overlap_seconds:
                values["revoked_at"] = now
            connection.execute(sa.update(_KEYS).where(_KEYS.c.prefix == prefix).values(values))
        return key, record

    def revoke(self, prefixes: Sequence[str] = (), *, tenant: str | None = None) -> list[KeyRecord]:
        """Take keys back for ever: these, and all of a tenant's. Those that are revoked already stay so.

        Returns:
            All of them, as they are now.

        Raises:
            KeyNotFound: one of `prefixes` is none; then none is revoked.
        """
        now = int(self._clock())
        with self._database.begin() as connection:
            _change(connection, now)
            these: sa.ColumnElement[bool] = _KEYS.c.prefix.in_(
                sorted({_find(connection, prefix).prefix for prefix in prefixes})
            )
            if tenant is not None:
                # By its name: of a tenant with tens of thousands, prefixes are more than a statement takes.
                these = sa.or_(these, _KEYS.c.tenant == check_tenant(tenant))
            connection.execute(sa.update(_KEYS).where(these, _KEYS.c.revoked_at.is_(None)).values(revoked_at=now))
            return _records(connection, these)

    def forget(self, tenant: str) -> int:
        """Delete the records of all of a tenant's keys, for a tenant that is deleted; how many there were."""
        now = int(self._clock())
        with self._database.begin() as connection:
            count = connection.scalar(
                sa.select(sa.func.count()).select_from(_KEYS).where(_KEYS.c.tenant == check_tenant(tenant))
            )
            if count:
                _change(connection, now)
                connection.execute(sa.delete(_KEYS).where(_KEYS.c.tenant == tenant))
        return int(count or 0)

    def records(self, *, tenant: str | None = None) -> list[KeyRecord]:
        """Every key there ever was, or a tenant's, the oldest first."""
        chosen = () if tenant is None else (_KEYS.c.tenant == check_tenant(tenant),)
        with self._database.begin() as connection:
            return _records(connection, *chosen)

    def find(self, key: str) -> KeyRecord | None:
        """The record of a whole key, valid or not; None for what is no key. Looked up by its digest."""
        if prefix_of(key) is None:
            return None
        with self._database.begin() as connection:
            found = _records(connection, _KEYS.c.digest == key_digest(key.encode()))
        return found[0] if found else None

    def published(self) -> PublishedKeys:
        """What servers shall know: a function of the database's state and of nothing else.

        Raises:
            InvalidInput: it has more keys than servers read: it was restored from elsewhere, say.
        """
        with self._database.begin() as connection:
            # Locked, so that on PostgreSQL no change comes between the two readings.
            state = connection.execute(sa.select(_STATE).with_for_update()).one()
            chosen = sa.select(_KEYS).where(_KEYS.c.revoked_at.is_(None)).order_by(_KEYS.c.prefix)
            rows = connection.execute(chosen).mappings().all()
        if len(rows) > MAX_KEYS:
            raise _too_many(len(rows))
        keys = tuple(
            PublishedKey(
                prefix=row["prefix"],
                digest=row["digest"],
                tenant=row["tenant"],
                scopes=tuple(row["scopes"].split()),
                expires=row["expires_at"],
            )
            for row in rows
        )
        return PublishedKeys(source=state.source, generation=state.revision, keys=keys)

    def overtake(self, generation: int) -> None:
        """Count this database's changes on from `generation`, where they are fewer: it was restored, or is another one."""
        with self._database.begin() as connection:
            count = sa.case((_STATE.c.revision > generation, _STATE.c.revision), else_=generation) + 1
            connection.execute(sa.update(_STATE).values(revision=count))


def _change(connection: sa.Connection, now: int) -> None:
    """Begin a change: whoever begins another one waits here for its end. Before anything is read."""
    connection.execute(sa.update(_STATE).values(revision=_STATE.c.revision + 1))
    long_expired = (_KEYS.c.revoked_at.is_(None), _KEYS.c.expires_at < now - _FORGOTTEN_SECONDS)
    connection.execute(sa.update(_KEYS).where(*long_expired).values(revoked_at=_KEYS.c.expires_at))


def _insert(connection: sa.Connection, record: KeyRecord, key: str) -> None:
    count = connection.scalar(sa.select(sa.func.count()).select_from(_KEYS).where(_KEYS.c.revoked_at.is_(None)))
    if count is not None and count >= MAX_KEYS:
        raise _too_many(count)
    values = {name: getattr(record, name) for name in KeyRecord.__slots__}
    values |= {"scopes": " ".join(record.scopes), "digest": key_digest(key.encode())}
    connection.execute(sa.insert(_KEYS).values(values))


def _too_many(count: int) -> InvalidInput:
    return InvalidInput(
        f"there are {count} keys that are not revoked, and there can be {MAX_KEYS} at most",
        remedy="Revoke those not in use: `macrofleet keys list` shows them, `macrofleet keys revoke` takes several at once.",
    )


def _find(connection: sa.Connection, prefix: str) -> KeyRecord:
    found = _records(connection, _KEYS.c.prefix == prefix) if PREFIX.fullmatch(prefix) else []
    if not found:
        # What was given may be a whole key, which is nobody's to read in a log.
        raise KeyNotFound(
            "there is no key with that prefix",
            remedy="`macrofleet keys list` shows them; a prefix is the ten digits between `mf_` and the next `_`.",
        )
    return found[0]


def _records(connection: sa.Connection, *chosen: sa.ColumnElement[bool]) -> list[KeyRecord]:
    rows = connection.execute(sa.select(_KEYS).where(*chosen).order_by(_KEYS.c.id)).mappings()
    return [_record(dict(row)) for row in rows]


def _record(row: Mapping[str, Any]) -> KeyRecord:
    values = {name: row[name] for name in KeyRecord.__slots__}
    return KeyRecord(**{**values, "scopes": tuple(row["scopes"].split())})


def _checked_scopes(tenant: str | None, scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    wanted = sorted_scopes(scopes)
    if not wanted:
        raise InvalidInput("a key without a scope may do nothing", remedy="Give it a scope.")
    if tenant is not None:
        check_tenant(tenant)
    if "operator" in wanted and (tenant is not None or len(wanted) > 1):
        raise InvalidInput(
            "an operator's key is for the whole fleet, and for everything",
            remedy="Give it no tenant and no other scope.",
        )
    if tenant is None and "operator" not in wanted:
        raise InvalidInput("a key that is no operator's belongs to a tenant", remedy="Name it with --tenant.")
    return wanted


def _expiry(now: int, lifetime_seconds: float | None) -> int | None:
    if lifetime_seconds is None:
        return None
    if not 1 <= lifetime_seconds <= 100 * 365 * 86_400:
        raise InvalidInput("a key lives a second at least, and a hundred years at most", remedy="Give another time.")
    return now + int(lifetime_seconds)
