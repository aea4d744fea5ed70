"""Which tenants are this replica's own, by Envoy's ring: for the preload plan `share`."""

from __future__ import annotations

import logging
from collections.abc import Collection

from registry.errors import NotReady
from serving.proxy.ring_members import ring_members

_LOG = logging.getLogger(__name__)


class OwnShare:
    """A replica's part of the tenants. A server that is told of no ring is alone, and has all of them.

    It counts itself as a member, too: while it starts it is not in DNS yet, and Envoy will put it on the ring when it is
    ready, which is when its share must be there.

    Args:
        source: see `serving.proxy.ring_members.ring_members`; None is no ring.
        key: this replica's.
    """

    def __init__(self, source: str | None, key: str | None) -> None:
        self._source = source
        self._key = key
        self._members: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it can become another one."""
        return self._source is not None

    @property
    def replicas(self) -> int:
        """How many replicas it is a share of, as of the last look; 0 where nobody knows."""
        return len(self._members)

    def refresh(self) -> bool:
        """Look who is on the ring; whether it is not who was. May block. What cannot be read leaves it as it is."""
        if self._source is None or self._key is None:
            return False
        try:
            members = tuple(sorted({*ring_members(self._source), self._key}))
        except NotReady as problem:
            _LOG.warning("it is not known who is on the ring", exc_info=problem)
            return False
        changed = members != self._members
        self._members = members
        return changed

    def of(self, tenants: Collection[str]) -> Collection[str]:
        """Those of the tenants that are its own; all of them where nobody knows."""
        if self._key is None or not self._members:
            return tenants
        from serving.proxy.ring import replica_ring  # and xxhash, which a server without a ring does not need

        return frozenset(replica_ring(self._members).share(self._key, tenants))
