"""Documents that change in their place (catalogues, settings, API keys, tombstones), mirrored in a second region's store.

What is written over is read after the entity tag under which it is written, so that of two copies at once neither replaces
anything by what was read before it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping

from registry.conditional import put_over
from registry.errors import ObjectNotFound, PreconditionFailed, StoreError
from registry.layout import TENANTS_PREFIX
from registry.regions.marks import read_documents, write_documents
from registry.store import ObjectStore
from registry.threads import in_threads

_DOCUMENT = re.compile(r"tenants/[a-z0-9][a-z0-9_-]{0,62}/(?:macros|settings)\.json")
_ATTEMPTS = 5
_MAX_BYTES = 64 * 1024 * 1024


class DocumentCopier:
    """Copies documents and removes those that the source has no longer, for one pass.

    Args:
        where: the source, by `registry.regions.marks.place_of`.
        threads: so many documents at once.
        afresh: what the destination has is of another fleet: it is copied over, or goes.

    Attributes:
        known: what is known to be in the destination, by key the entity tag in the source; an empty one is unsure.
        copied, removed: how many were.
    """

    def __init__(
        self, source: ObjectStore, destination: ObjectStore, *, where: str, threads: int, afresh: bool
    ) -> None:
        self._source = source
        self._destination = destination
        self._where = where
        self._threads = threads
        self._counting = threading.Lock()
        self._unsettled: set[str] = set()
        self.copied = 0
        self.removed = 0
        if afresh:
            there = (info.key for info in destination.list(TENANTS_PREFIX))
            self.known = {key: "" for key in there if _DOCUMENT.fullmatch(key)}
        else:
            self.known = read_documents(destination, where)
        self._before = dict(self.known)

    def tenants_documents(self) -> dict[str, str]:
        """The source's catalogues and settings, with their entity tags."""
        return {info.key: info.etag for info in self._source.list(TENANTS_PREFIX) if _DOCUMENT.fullmatch(info.key)}

    def copy(self, listing: Mapping[str, str], *, settled: bool = True) -> list[str]:
        """Copy what changed since it was copied last; its keys.

        Args:
            listing: keys and entity tags in the source.
            settled: False for what has to be followed once it is there; until `save` nobody writes down that it was copied.
        """
        changed = [key for key, etag in listing.items() if self.known.get(key) != etag]
        if not settled:
            self._unsettled |= set(changed)
        in_threads(self._copy, changed, threads=self._threads)
        return changed

    def remove(
        self, here: Collection[str], *, is_needed: Callable[[str], bool], is_gone: Callable[[str], bool]
    ) -> None:
        """Remove documents that the source has no longer.

        Args:
            here: keys that it has.
            is_needed: of a tenant, whether its catalogue stays all the same.
            is_gone: of a key, by a second look.
        """
        for key in [key for key in self.known if key not in here and not _DOCUMENT.fullmatch(key)]:
            del self.known[key]
        gone = [
            key
            for key in self.known
            if key not in here and not (key.endswith("/macros.json") and is_needed(key.split("/")[1])) and is_gone(key)
        ]
        self.doubt(gone)
        for key in gone:
            self._destination.delete(key)
            self.removed += 1
            del self.known[key]

    def doubt(self, keys: Collection[str]) -> None:
        """Write down that these may or may not be there, before they are removed.

        Otherwise one that comes back as it was would be taken for copied, after a crash in between.
        """
        if keys:
            self.known |= dict.fromkeys(keys, "")
            self.save(settled=False)

    def save(self, *, settled: bool = True) -> None:
        """Write down what is copied, where that changed.

        Args:
            settled: False as long as a copy that goes on after a crash has to follow what was copied unsettled: without that.
        """
        left_out = () if settled else self._unsettled
        told = {key: etag for key, etag in self.known.items() if key not in left_out}
        if told != self._before:
            write_documents(self._destination, self._where, told)
            self._before = told

    def _copy(self, key: str) -> None:
        for _ in range(_ATTEMPTS):
            etag = self._etag(key)
            try:
                found = self._source.get(key, max_bytes=_MAX_BYTES)
            except ObjectNotFound:
                return  # deleted since it was listed: a later copy removes it
            try:
                put_over(self._destination, key, found.data, etag=etag)
            except PreconditionFailed:
                continue  # by another copy
            with self._counting:
                self.known[key] = found.etag
                self.copied += 1
            return
        raise StoreError(f"{self._destination.url}/{key} is written by others all the time", remedy="Run it again.")

    def _etag(self, key: str) -> str | None:
        try:
            return self._destination.head(key).etag
        except ObjectNotFound:
            return None
