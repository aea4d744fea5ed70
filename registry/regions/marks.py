"""What a copy of a store says of itself: whose copy it is, how far it has come, and what is copied of what can change."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from registry.documents import Document
from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, StoreError
from registry.layout import COPY_DOCUMENTS, COPY_MARK
from registry.store import ObjectStore

_MAX_MARK_BYTES = 64 * 1024
_MAX_DOCUMENTS_BYTES = 256 * 1024 * 1024


class CopyMark(Document):
    """Stands in a store that is a copy. One without it is nobody's, or a home of its own, and is not written over.

    Attributes:
        source: the store that it is a copy of, by `place_of`.
        generation: of the fleet that it has; 0 before the first.
        finished_at: when a copy last came to its end, also one that found nothing to do; seconds since the epoch, by the
            clock of who copied.
        replaces: what the store had before it was adopted, and is still to go: its fleet, then other documents. Whoever goes
            on after a crash cannot tell these from what was copied.
    """

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    source: str
    generation: Annotated[int, Field(ge=0)] = 0
    finished_at: float = 0.0
    replaces: Literal["fleet", "documents"] | None = None


class CopiedDocuments(Document):
    """What has been copied of the documents that change in their place: by key, the entity tag in the source.

    It saves requests and decides nothing: without it everything is compared once more.
    """

    format: Annotated[int, Field(ge=1, le=1)] = 1
    source: str
    etags: dict[str, str] = Field(default_factory=dict)


def place_of(store: ObjectStore) -> str:
    """Which store this is: its URL and, where it is a bucket of another server than Amazon's, that server."""
    return str(getattr(store, "place", store.url))


def read_mark(store: ObjectStore) -> CopyMark | None:
    """What a store says of itself; None where it is no copy. Raises StoreError."""
    try:
        found = store.get(COPY_MARK, max_bytes=_MAX_MARK_BYTES)
    except ObjectNotFound:
        return None
    return CopyMark.parse(found.data, what=f"{store.url}/{COPY_MARK}", error=StoreError)


def write_mark(store: ObjectStore, mark: CopyMark) -> None:
    """Have a store say that it is a copy. Raises StoreError."""
    store.put(COPY_MARK, mark.to_bytes())


def check_mark(store: ObjectStore) -> str:
    """The entity tag of the mark of a store that is copied to. Raises InvalidInput where it was promoted meanwhile."""
    try:
        return store.get(COPY_MARK, max_bytes=_MAX_MARK_BYTES).etag
    except ObjectNotFound:
        raise InvalidInput(
            f"{store.url} was promoted while it was copied to", remedy="Nothing more is to be copied there."
        ) from None


def finish_mark(store: ObjectStore, mark: CopyMark) -> None:
    """Note that a copy has come to its end, unless the store was promoted meanwhile. Raises InvalidInput where it was."""
    etag = check_mark(store)
    # Lost to another copy, that one's is as good.
    with suppress(PreconditionFailed):
        store.put(COPY_MARK, mark.to_bytes(), if_match=etag)
    _forget_earlier(store, COPY_MARK)
    # A copy that was killed right after writing them could not, and this one need not have written any.
    _forget_earlier(store, COPY_DOCUMENTS)


def promote(store: ObjectStore) -> CopyMark:
    """Make a home of a copy: nobody copies over it any more, and it may be copied from.

    Returns:
        What it was a copy of.

    Raises:
        InvalidInput: it is none.
    """
    mark = read_mark(store)
    if mark is None:
        raise InvalidInput(f"{store.url} is no copy of another store", remedy="There is nothing to do.")
    store.purge([*store.states(COPY_MARK), *store.states(COPY_DOCUMENTS)])
    return mark


def read_documents(store: ObjectStore, source: str) -> dict[str, str]:
    """What is known to be copied of a source; nothing where that cannot be told."""
    try:
        data = store.get(COPY_DOCUMENTS, max_bytes=_MAX_DOCUMENTS_BYTES).data
        found = CopiedDocuments.parse(data, what=COPY_DOCUMENTS, error=InvalidInput)
    except (ObjectNotFound, InvalidInput):
        return {}
    return dict(found.etags) if found.source == source else {}


def write_documents(store: ObjectStore, source: str, etags: dict[str, str]) -> None:
    """Write down what is copied. Raises StoreError."""
    store.put(COPY_DOCUMENTS, CopiedDocuments(source=source, etags=etags).to_bytes())
    _forget_earlier(store, COPY_DOCUMENTS)


def _forget_earlier(store: ObjectStore, key: str) -> None:
    """Have a bucket with versions keep the last one alone: the earlier ones name tenants that were deleted, and are many."""
    store.purge([state for state in store.states(key) if state.kind == "noncurrent"])
