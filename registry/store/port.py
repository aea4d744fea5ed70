"""What the rest of macrofleet asks of an object store. Every adapter passes `tests/contract/test_store.py`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol

from registry.errors import InvalidInput

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_KEY_LENGTH = 512
URL_REMEDY = "Set MACROFLEET_STORE_URL to s3://bucket/prefix, file:///folder or the path of a folder."
LOST_RACE = "Another writer was quicker: run it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object's key (below the store's prefix), size in bytes and entity tag."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectState:
    """Something the store keeps under a key, seen by readers or not.

    Attributes:
        key: below the store's prefix.
        kind: "current", what readers see; "noncurrent", what was there before it was written over or deleted, and
            "marker", which says that it was deleted (both in a versioned bucket only); "unfinished", a write that is
            under way or was given up.
        size: bytes; 0 where the store does not say.
        modified: seconds since the epoch, by the store's clock; some stores count whole ones.
        id: tells it from the other states of the key; what it is made of is the adapter's affair.
    """

    key: str
    kind: Literal["current", "noncurrent", "marker", "unfinished"]
    size: int
    modified: float
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object read whole.

    Attributes:
        etag: names exactly this content.
        modified: when it was written, in seconds since the epoch by the store's clock; infinite where a store does not say.
    """

    data: bytes
    etag: str
    modified: float = field(default=math.inf, compare=False)


class ObjectStore(Protocol):
    """A flat map from keys to bytes with conditional writes; S3's semantics, less what we do not need.

    Calls block; callers on an event loop use a thread. Every method raises `StoreUnavailable` when the store
    cannot be reached or refuses the credentials, and `InvalidInput` for a key that `check_key` refuses.
    """

    @property
    def url(self) -> str:
        """Where this store is, for messages and provenance; never holds a secret."""
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """Read an object whole.

        Raises:
            ObjectNotFound: nothing under `key`.
            InvalidInput: the object is larger than `max_bytes`.
        """
        ...

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        """Read an object unless its entity tag is still `etag` (then None): a conditional GET."""
        ...

    def open(self, key: str) -> IO[bytes]:
        """A stream over an object's bytes, read once from the start; the caller closes it.

        Raises:
            ObjectNotFound: nothing under `key`.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Size and entity tag of an object. Raises ObjectNotFound."""
        ...

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """Write an object and return its new entity tag. Readers see the old object or the new one, never a part.

        Args:
            if_match: write only over the object with this entity tag.
            if_absent: write only where nothing is.

        Raises:
            PreconditionFailed: the condition does not hold (an absent object under `if_match` included).
        """
        ...

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        """Like `put`, from a file, without holding it in memory."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (a plain string prefix), in key order.

        What somebody else has put there under a key that `check_key` refuses is passed over: nobody could read it.
        """
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """What comes next in the keys that start with `prefix`, up to their next slash: each once, sorted.

        With `a/b`, `a/c/d` and `a/c/e` there, `a/` has the names `b` and `c`. What lies further below is not listed, however
        much there is: in a bucket, a request for every thousand names. A name of which everything was deleted may stay for a
        while: some servers (SeaweedFS) keep empty folders.

        Args:
            prefix: empty, or one that ends with a slash.

        Raises:
            InvalidInput: a prefix that is neither.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; removing nothing is not an error. A versioned bucket keeps what was there: see `purge`."""
        ...

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        """Everything that is kept under keys that start with `prefix`, in no order: also what readers do not see, and what
        `list` passes over."""
        ...

    def purge(self, states: Iterable[ObjectState]) -> None:
        """Remove these states for good; one that is gone is not an error.

        What was written since under the same key stays. The exception is a bucket without versions, which cannot tell a
        state from what took its place: there, whoever purges must know that nobody writes.
        """
        ...


def too_large(key: str, url: str, size: int, limit: int) -> InvalidInput:
    """What to raise for an object that is larger than its reader takes."""
    return InvalidInput(
        f"{key} in {url} has {size} bytes, more than the {limit} it may have",
        remedy="macrofleet writes none so large: find out who did, and put the right one in its place.",
    )


def check_folder(prefix: str) -> str:
    """Return `prefix` if it is empty or a key with a slash behind it. Raises InvalidInput."""
    if prefix and not prefix.endswith("/"):
        raise InvalidInput(f"{prefix[:80]!r} does not end with a slash", remedy="Prefixes are made by registry.layout.")
    if prefix:
        check_key(prefix[:-1])
    return prefix


def check_key(key: str) -> str:
    """Return `key` if every adapter can hold it: `/`-separated segments of `[A-Za-z0-9._-]`, none starting with a dot.

    Raises:
        InvalidInput: anything else, `..`, empty segments and keys over 512 characters included.
    """
    if not is_key(key):
        raise InvalidInput(f"{key[:80]!r} is not an object key", remedy="Keys are made by registry.layout.")
    return key


def is_key(key: str) -> bool:
    """Whether `check_key` takes it, for keys that somebody else may have made."""
    return len(key) <= MAX_KEY_LENGTH and all(_SEGMENT.fullmatch(part) for part in key.split("/"))
