"""From segments of a journal to objects of the store: one for each tenant and segment, written once. It blocks.

An object's key is the segment's and its writer's, and the segment takes no more records, so whoever ships it again (after a
crash, from another process) finds the object there and has nothing to do. The file goes only once every object is there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from registry.errors import InvalidTenant, PreconditionFailed
from registry.feedback.records import encode_object
from registry.layout import feedback_key
from registry.names import check_tenant
from registry.store import ObjectStore
from serving.feedback.journal import Segment

_LOG = logging.getLogger(__name__)


class NotUnderstood(ValueError):
    """A segment has records of another release. It stays as it is for a server of that release."""


def parts_of(segment: Segment) -> dict[str, list[bytes]]:
    """A segment's records by tenant, in order, each once.

    Raises:
        NotUnderstood: one of them is of another release. None of the others is shipped either: the objects' keys are the
            segment's, so what is written once is all that ever is.
    """
    parts: dict[str, dict[tuple[object, ...], bytes]] = {}
    for line in segment.records():
        try:
            record = json.loads(line)
            tenant = check_tenant(record["tenant"])
            key = (record["kind"], record.get("id"), record["suggestion_id"], record.get("held_back"))
        except (ValueError, KeyError, TypeError, InvalidTenant):
            # Its checksum held, so another release wrote it.
            raise NotUnderstood(f"a record of the journal {segment.path} is not understood") from None
        # The first one counts: a caller that sends an event again only repeats it.
        parts.setdefault(tenant, {}).setdefault(key, line)
    return {tenant: list(lines.values()) for tenant, lines in parts.items()}


class Shipper:
    """Writes the parts of segments.

    Args:
        store: takes them.
        is_known: whether the fleet has a tenant.
        is_deleted: whether a tenant was deleted, so that nothing of it may be kept. Asked of the store; may raise
            StoreError.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        is_known: Callable[[str], bool] = lambda _: True,
        is_deleted: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._is_known = is_known
        self._is_deleted = is_deleted

    def ship(self, segment: Segment, tenant: str, lines: Sequence[bytes]) -> bool:
        """Have one tenant's part of a segment in the store.

        Returns:
            False where it was dropped, since its tenant was deleted.

        Raises:
            StoreError: it is not known to be there; ship it again.
        """
        if not self._is_known(tenant) and self._is_deleted(tenant):
            _LOG.info("feedback on a deleted tenant was dropped", extra={"records": len(lines)})
            return False
        key = feedback_key(tenant, segment.day, segment.writer, segment.number)
        with suppress(PreconditionFailed):  # it was shipped before
            self._store.put(key, encode_object(lines), if_absent=True)
        # Asked again after writing: the fleet that is known here may be older than the deletion (`registry.deletion.tombstones`).
        if self._is_deleted(tenant):
            self._store.purge(list(self._store.states(key)))
            return False
        return True
