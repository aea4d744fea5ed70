"""What is kept of suggestions that were shown and of what agents then did: records, and reading them from the store.

Servers write both as lines of JSON (`serving.feedback.journal`), and ship them as objects, one a tenant and segment. A record may
stand in several objects, since a caller that got no answer sends it again, perhaps to another server: it counts once, by
its id. Neither kind has a ticket's text.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from registry.documents import Document, canonical_json
from registry.errors import ObjectNotFound, StoreError
from registry.layout import feedback_prefix
from registry.store import ObjectStore

SUFFIX = ".jsonl.gz"
# Far above what a server writes, which is what stands behind a route with bodies of 64 KiB.
_MAX_LINE = 256 * 1024
# Compressed between two rests: some hundred microseconds' worth.
_LINES_AT_ONCE = 32


class _Record(Document):
    model_config = ConfigDict(extra="allow")

    tenant: str
    at: float
    suggestion_id: str
    model_version: str | None = None
    ticket_id: str | None = None

    @property
    def when(self) -> datetime:
        """By the server's clock."""
        return datetime.fromtimestamp(self.at, UTC)


class Shown(_Record):
    """A view of a ticket, and what it was answered.

    Attributes:
        at: seconds since the epoch.
        macros: that were suggested, best first; of a view that was held back, those that would have been.
        abstained: no macro was good enough.
        held_back: nothing was shown, so that there are applications that nothing prompted.
    """

    kind: Literal["shown"] = "shown"
    macros: tuple[str, ...] = ()
    abstained: bool = False
    held_back: bool = False

    @property
    def key(self) -> str:
        """A ticket that is opened many times is one view as long as the answer stays the same."""
        return f"shown {self.suggestion_id} {int(self.held_back)}"


class Feedback(_Record):
    """What an agent did after a suggestion.

    Attributes:
        at: seconds since the epoch, when it came in.
        id: the same for the same event, however often and wherever it is sent.
        shown: macros that the agent saw, as its caller says; None where it does not.
        applied: the macro that the agent applied, suggested or not; None for none.
    """

    kind: Literal["feedback"] = "feedback"
    id: str
    shown: tuple[str, ...] | None = None
    applied: str | None = None

    @property
    def key(self) -> str:
        """What it counts once by."""
        return f"feedback {self.id}"


Record: TypeAlias = Annotated[Shown | Feedback, Field(discriminator="kind")]
_RECORD: TypeAdapter[Shown | Feedback] = TypeAdapter(Record)


def feedback_id(
    tenant: str,
    suggestion_id: str,
    event_id: str | None,
    *,
    applied: str | None,
    shown: Sequence[str] | None,
    ticket_id: str | None,
) -> str:
    """The id of an event: of the caller's own name for it, or, where it has none, of all that it says."""
    said: list[Any] = [tenant, suggestion_id]
    said += ["event", event_id] if event_id is not None else ["said", applied, shown and list(shown), ticket_id]
    return hashlib.sha256(canonical_json(said)).hexdigest()[:32]


def read_feedback(store: ObjectStore, tenant: str, *, since: date | None = None) -> Iterator[Shown | Feedback]:
    """A tenant's records, each once, in the order of the days that their segments were begun on.

    One object is held at a time, and sixteen bytes for each record that was read. What is packed meanwhile
    (`registry.feedback.packing`) is read where it lies then, after all else.

    Args:
        since: leave out segments that were begun earlier.

    Raises:
        StoreError: an object cannot be read, or is none of a server's.
    """
    seen: set[bytes] = set()
    looked_at: set[str] = set()
    # An object goes only after one that contains it has come, so whoever finds nothing new has not missed any.
    while keys := [key for key in _feedback_keys(store, tenant, since) if key not in looked_at]:
        looked_at.update(keys)
        for key in keys:
            with suppress(ObjectNotFound):
                for record in read_feedback_object(store, key):
                    name = hashlib.blake2b(record.key.encode(), digest_size=16).digest()
                    # The tenant is checked, so that an object in the wrong place mixes nothing.
                    if name not in seen and record.tenant == tenant:
                        seen.add(name)
                        yield record


def _feedback_keys(store: ObjectStore, tenant: str, since: date | None) -> list[str]:
    prefix = feedback_prefix(tenant)
    first = "" if since is None else since.isoformat()
    keys = (info.key for info in store.list(prefix))
    return [key for key in keys if key.endswith(SUFFIX) and key.removeprefix(prefix).partition("/")[0] >= first]


def encode_object(lines: Sequence[bytes], *, rest: Callable[[], object] = lambda: None) -> bytes:
    """An object of these lines; the same lines make the same bytes.

    Args:
        rest: called between pieces of the work, which take a millisecond or so.
    """
    data = io.BytesIO()
    with gzip.GzipFile(fileobj=data, mode="wb", compresslevel=6, mtime=0, filename="") as file:
        for first in range(0, len(lines), _LINES_AT_ONCE):
            file.write(b"".join(line + b"\n" for line in lines[first : first + _LINES_AT_ONCE]))
            rest()
    return data.getvalue()


def parse_record(line: bytes) -> Shown | Feedback | None:
    """The record of a line; None for one of a kind that a later release knows."""
    try:
        return _RECORD.validate_json(line)
    except ValidationError as problem:
        kinds = {
            error["type"] for error in problem.errors(include_url=False, include_input=False, include_context=False)
        }
        if kinds == {"union_tag_invalid"}:
            return None
        raise


def lines_of(store: ObjectStore, key: str) -> Iterator[bytes]:
    """The lines of an object of feedback, without their ends, one at a time.

    Raises:
        ObjectNotFound: it is gone.
        StoreError: it is none of a server's.
    """
    try:
        with store.open(key) as raw, gzip.GzipFile(fileobj=raw) as lines:
            while line := lines.readline(_MAX_LINE):
                yield line.removesuffix(b"\n")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise no_feedback(store, key) from None


def read_feedback_object(store: ObjectStore, key: str) -> Iterator[Shown | Feedback]:
    """The records of an object. Raises as `lines_of`."""
    try:
        for line in lines_of(store, key):
            record = parse_record(line)
            if record is not None:
                yield record
    except ValidationError:
        raise no_feedback(store, key) from None


def no_feedback(store: ObjectStore, key: str) -> StoreError:
    """What to raise for an object that is none of a server's."""
    return StoreError(
        f"{store.url}/{key} is no object of feedback", remedy="No server writes such: find out who did, and remove it."
    )
