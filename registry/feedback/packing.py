"""Many small objects of feedback into one a day: each server ships several a day and tenant, and every reader reads them all.

For each day that is over, the objects are read, one with all their records is written, and then they are deleted:

- What is deleted is contained in an object that was written before, so whoever dies in between loses nothing. Readers count
  a record once by its id, wherever it stands, so nothing is doubled while both are there.
- The new object's key is a digest of what it has, which depends on the records alone. So a rerun, or another packer at the
  same time, writes the same object or a greater one, and whichever is deleted is contained in what stays.
- A segment that is shipped late, or once more because its server died, makes an object of its own again, which the next run
  packs with the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from pydantic import ValidationError

from registry.errors import ObjectNotFound, PreconditionFailed, StoreError
from registry.feedback.records import SUFFIX, encode_object, lines_of, no_feedback, parse_record
from registry.layout import feedback_prefix, packed_feedback_key
from registry.store import ObjectInfo, ObjectStore

# Of JSON: what a packer holds in memory, and an object has at most.
MOST_BYTES = 64 * 1024 * 1024
# A day's last segment is begun before midnight and shipped a while later; until then there would only be more to do.
_SETTLED = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What became of a tenant's objects of feedback.

    Attributes:
        packed: that others took the place of.
        made: these others.
    """

    packed: int = 0
    made: int = 0


def pack_feedback(
    store: ObjectStore, tenant: str, *, today: date, write: bool = True, most_bytes: int = MOST_BYTES
) -> Packing:
    """Have each day that is over in few objects. May run at any time, and again after an interruption.

    The caller sees to it that the tenant was not deleted meanwhile (`registry.deletion.tombstones.unless_deleted`).

    Args:
        today: UTC; days from the one before on are left alone.
        write: False only counts.
        most_bytes: of an object's lines.

    Raises:
        StoreError: an object cannot be read, or is none of a server's: then its day stays as it is.
    """
    packed = made = 0
    for day, found in _days(store, tenant):
        if day > (today - _SETTLED).isoformat() or len(found) < 2:
            continue
        for keys, lines in _groups(store, found, most_bytes):
            if len(keys) < 2:
                continue
            packed += len(keys)
            made += 1
            if write:
                _replace(store, tenant, day, keys, lines)
    return Packing(packed=packed, made=made)


def _replace(store: ObjectStore, tenant: str, day: str, keys: list[str], lines: list[bytes]) -> None:
    data = encode_object(lines)
    key = packed_feedback_key(tenant, day, hashlib.sha256(b"\n".join(lines)).hexdigest()[:32])
    try:
        store.put(key, data, if_absent=True)
    except PreconditionFailed:
        # By another packer, or by one that died before it had deleted what it had packed.
        # By what it says: not every machine's zlib packs it into the same bytes.
        if list(lines_of(store, key)) != lines:
            raise StoreError(
                f"{store.url}/{key} is not what its name says",
                remedy="No packer writes such: find out who did, and remove it.",
            ) from None
    for old in keys:
        if old != key:
            store.purge([state for state in store.states(old) if state.key == old])


def _days(store: ObjectStore, tenant: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
    prefix = feedback_prefix(tenant)
    days: dict[str, list[ObjectInfo]] = {}
    for info in store.list(prefix):
        if info.key.endswith(SUFFIX):
            days.setdefault(info.key.removeprefix(prefix).partition("/")[0], []).append(info)
    yield from sorted(days.items())


def _groups(store: ObjectStore, found: list[ObjectInfo], most_bytes: int) -> Iterator[tuple[list[str], list[bytes]]]:
    """A day's objects, as many together as one may have, and their records, each once."""
    keys: list[str] = []
    records: dict[str, tuple[float, bytes]] = {}
    size = 0
    for info in found:
        lines = _read(store, info.key)
        if lines is None:  # another packer was quicker; it goes on by itself
            continue
        more = sum(map(len, lines))
        if more >= most_bytes // 2:
            continue  # large enough to stay
        if keys and size + more > most_bytes:
            yield keys, _ordered(records)
            keys, records, size = [], {}, 0
        keys.append(info.key)
        size += more
        try:
            for line in lines:
                _add(records, line)
        except ValidationError:
            raise no_feedback(store, info.key) from None
    yield keys, _ordered(records)


def _read(store: ObjectStore, key: str) -> list[bytes] | None:
    try:
        return list(lines_of(store, key))
    except ObjectNotFound:
        return None


def _add(records: dict[str, tuple[float, bytes]], line: bytes) -> None:
    """Take a record; of several with one id the earliest, so that it does not matter which was read first."""
    record = parse_record(line)
    # What a later release wrote, or what is not this tenant's, is not told apart, but by what it says.
    key, at = (line.decode(), 0.0) if record is None else (f"{record.tenant} {record.key}", record.at)
    if key not in records or (at, line) < records[key]:
        records[key] = (at, line)


def _ordered(records: dict[str, tuple[float, bytes]]) -> list[bytes]:
    return [line for _, line in sorted(records.values())]
