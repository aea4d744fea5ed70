"""From segments of a journal to objects of the store: one for each tenant and segment, written once. It blocks.

An object's key is the segment's and its writer's, and the segment takes no more records, so whoever ships it again (after a
crash, from another process) finds the object there and has nothing to do. The file goes only once every object is there.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic_core import from_json

from registry.errors import InvalidTenant, PreconditionFailed
from registry.feedback.records import encode_object
from registry.layout import feedback_key
from registry.names import check_tenant
from registry.store import ObjectStore
from serving.feedback.journal import Segment
from serving.feedback.pace import Pace

_LOG = logging.getLogger(__name__)
# So many are looked at between two looks at the clock.
_LINES_AT_ONCE = 16


class NotUnderstood(ValueError):
    """A segment has records of another release. It stays as it is for a server of that release."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tenant's records of a segment: where they are, since a segment may be larger than what fits into memory."""

    segment: Segment
    _begins: array[int] = field(default_factory=lambda: array("Q"))
    _sizes: array[int] = field(default_factory=lambda: array("I"))

    def add(self, begin: int, size: int) -> None:
        """Another record, behind those that it has."""
        self._begins.append(begin)
        self._sizes.append(size)

    def lines(self, pace: Pace) -> list[bytes]:
        """The records' JSON, in order, each once. Raises OSError."""
        found: dict[tuple[object, ...], bytes] = {}
        descriptor = os.open(self.segment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number, (begin, size) in enumerate(zip(self._begins, self._sizes, strict=True)):
                line = os.pread(descriptor, size, begin)
                # The first one counts: a caller that sends an event again only repeats it.
                found.setdefault(_identity(from_json(line)), line)
                if number % _LINES_AT_ONCE == 0:
                    pace.rest()
        finally:
            os.close(descriptor)
        return list(found.values())


def parts_of(segment: Segment, pace: Pace) -> dict[str, Part]:
    """A segment's records by tenant.

    Raises:
        NotUnderstood: one of them is of another release. None of the others is shipped either: the objects' keys are the
            segment's, so what is written once is all that ever is.
    """
    parts: dict[str, Part] = {}
    for number, (begin, line) in enumerate(segment.records()):
        try:
            record = from_json(line)
            _identity(record)
            tenant = record["tenant"]
            part = parts.get(tenant)
            if part is None:
                part = parts[check_tenant(tenant)] = Part(segment)
        except (ValueError, KeyError, TypeError, InvalidTenant):
            # Its checksum held, so another release wrote it.
            raise NotUnderstood(f"a record of the journal {segment.path} is not understood") from None
        part.add(begin, len(line))
        if number % _LINES_AT_ONCE == 0:
            pace.rest()
    return parts


def _identity(record: dict[str, object]) -> tuple[object, ...]:
    return record["kind"], record.get("id"), record["suggestion_id"], record.get("held_back")


class Shipper:
    """Writes the parts of segments.

    Args:
        store: takes them.
        is_known: whether the fleet has a tenant.
        deleted_among: of some tenants those that were deleted, so that nothing of them may be kept. Asked of the store; may
            raise StoreError.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        is_known: Callable[[str], bool] = lambda _: True,
        deleted_among: Callable[[Iterable[str]], Iterable[str]] = lambda _: (),
    ) -> None:
        self._store = store
        self._is_known = is_known
        self._deleted_among = deleted_among

    def dropped(self, tenants: Iterable[str]) -> set[str]:
        """Those that are not in the fleet since they were deleted; to be asked before `ship`. Raises StoreError."""
        unknown = [tenant for tenant in tenants if not self._is_known(tenant)]
        return set(self._deleted_among(unknown)) if unknown else set()

    def ship(self, segment: Segment, tenant: str, lines: Sequence[bytes], pace: Pace) -> None:
        """Have one tenant's part of a segment in the store; `take_back` must follow.

        Raises:
            StoreError: it is not known to be there; ship it again.
        """
        with suppress(PreconditionFailed):  # it was shipped before
            self._store.put(_key(segment, tenant), encode_object(lines, rest=pace.rest), if_absent=True)

    def take_back(self, segment: Segment, tenants: Sequence[str]) -> set[str]:
        """Remove again what was shipped of tenants that were deleted meanwhile; which these are.

        Asked after writing, of all tenants of a segment at once: the fleet that is known here may be older than a deletion
        (`registry.deletion.tombstones`).

        Raises:
            StoreError: they are not known to be removed; ship the segment again.
        """
        deleted = set(self._deleted_among(tenants))
        for tenant in deleted:
            self._store.purge(list(self._store.states(_key(segment, tenant))))
        return deleted


def _key(segment: Segment, tenant: str) -> str:
    return feedback_key(tenant, segment.day, segment.writer, segment.number)
