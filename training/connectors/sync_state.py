"""How far a synchronisation with a help desk has come: one small document, and the parts that it names.

A part is written first and then named, by a conditional write; so what was broken off in between is read again, and of two
synchronisations at once one ends with an error. Parts that nothing names are swept at the end.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from registry.conditional import put_over
from registry.documents import Document
from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, PublishConflict
from registry.layout import sync_prefix
from registry.store import ObjectStore
from training.connectors.zendesk import Ticket
from training.lake import decode, encode, frame_of

_MAX_BYTES = 16 * 1024 * 1024
_WAITING = {
    "id": pl.Int64, "updated": pl.Float64, "requester": pl.Int64, "subject": pl.String, "channel": pl.String,
    "locale": pl.String, "deleted": pl.Boolean,
}  # fmt: skip
_READ = {"id": pl.Int64, "updated": pl.Float64}
_USED = {"id": pl.Int64}


class SyncState(Document):
    """A synchronisation at rest.

    Attributes:
        account: the subdomain: another account's tickets would have the same numbers.
        cursor: of the export's next page; None before the first.
        exported_to: seconds since the epoch; what an export begins at where the cursor is not known any more.
        waiting: parts with tickets that the export gave.
        read: parts with those among them whose audits were read.
        labelled: parts with examples that are not in the lake yet.
        events: whether ticket events tell which tickets macros were applied to; None as long as nobody has looked.
        events_from: seconds since the epoch; where the next look at them begins.
        used: parts with the tickets that events told of.
    """

    account: str
    cursor: str | None = None
    exported_to: Annotated[int, Field(ge=0)] = 0
    waiting: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()
    events: bool | None = None
    events_from: Annotated[int, Field(ge=0)] = 0
    used: tuple[str, ...] = ()


class SyncStore:
    """The state of one tenant's synchronisation, and its parts."""

    def __init__(self, store: ObjectStore, tenant: str, source: str) -> None:
        self._store = store
        self._tenant = tenant
        self._prefix = sync_prefix(tenant, source)
        self._etag: str | None = None

    def load(self) -> SyncState | None:
        """The state, or None where there is none yet. Raises InvalidInput where it is none."""
        key = f"{self._prefix}state.json"
        try:
            found = self._store.get(key, max_bytes=_MAX_BYTES)
        except ObjectNotFound:
            self._etag = None
            return None
        self._etag = found.etag
        return SyncState.parse(found.data, what=f"{self._store.url}/{key}", error=InvalidInput)

    def save(self, state: SyncState) -> SyncState:
        """Write the state over the one that was loaded or saved last, and return it.

        Raises:
            PublishConflict: another synchronisation of the tenant is under way.
        """
        try:
            self._etag = put_over(self._store, f"{self._prefix}state.json", state.to_bytes(), etag=self._etag)
        except PreconditionFailed:
            raise PublishConflict(
                f"another synchronisation of tenant {self._tenant} is under way", remedy="Let it end, and run it again."
            ) from None
        return state

    def put_waiting(self, tickets: Iterable[Ticket]) -> str:
        """Keep tickets of the export; the part's name."""
        rows = [{name: getattr(ticket, name) for name in _WAITING} for ticket in tickets]
        return self._put(_name("waiting", uuid.uuid4().hex), _parquet(pl.DataFrame(rows, schema=_WAITING)))

    def put_labelled(self, tickets: Iterable[Ticket], examples: pl.DataFrame) -> tuple[str, str]:
        """Keep that the audits of tickets were read, and the examples that came of them; the two parts' names."""
        rows = [{"id": ticket.id, "updated": ticket.updated} for ticket in tickets]
        token = uuid.uuid4().hex
        read = self._put(_name("read", token), _parquet(pl.DataFrame(rows, schema=_READ)))
        return read, self._put(_name("labelled", token), encode(examples))

    def put_used(self, tickets: Iterable[int]) -> str:
        """Keep which tickets macros were applied to; the part's name."""
        return self._put(_name("used", uuid.uuid4().hex), _parquet(pl.DataFrame({"id": list(tickets)}, schema=_USED)))

    def labelled(self, names: Sequence[str]) -> tuple[pl.DataFrame, list[int]]:
        """The examples of some parts, in their order, and the numbers of the tickets that were read for them."""
        examples = [decode(self._get(name), what=name) for name in names]
        read = self._frames([name.replace("labelled", "read", 1) for name in names], _READ)
        return pl.concat([frame_of(()), *examples]), read["id"].unique().to_list()

    def tickets(self, state: SyncState) -> pl.DataFrame:
        """What is known of every ticket that the export gave and nobody has finished, each once and as it was last.

        Columns are those of `Ticket`, and `done`: its audits were read since.
        """
        waiting = self._frames(state.waiting, _WAITING)
        read = self._frames(state.read, _READ).group_by("id").agg(pl.col("updated").max().alias("read"))
        latest = waiting.sort("updated", maintain_order=True).unique("id", keep="last", maintain_order=True)
        return latest.join(read, on="id", how="left").with_columns(
            done=(pl.col("read") >= pl.col("updated")).fill_null(value=False)
        )

    def used(self, state: SyncState) -> pl.DataFrame:
        """The tickets that events told of."""
        return self._frames(state.used, _USED).unique()

    def sweep(self, state: SyncState) -> None:
        """Remove the parts that the state does not name."""
        named = {*state.waiting, *state.read, *state.labelled, *state.used, "state.json"}
        for found in list(self._store.list(self._prefix)):
            if found.key.removeprefix(self._prefix) not in named:
                self._store.delete(found.key)

    def forget(self) -> None:
        """Begin again from nothing; the lake keeps what it has."""
        for found in list(self._store.list(self._prefix)):
            self._store.delete(found.key)
        self._etag = None

    def _put(self, name: str, data: bytes) -> str:
        self._store.put(self._prefix + name, data)
        return name

    def _get(self, name: str) -> bytes:
        return self._store.get(self._prefix + name).data

    def _frames(self, names: Sequence[str], schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        return pl.concat(
            [pl.DataFrame(schema=dict(schema)), *(pl.read_parquet(io.BytesIO(self._get(n))) for n in names)]
        )


def _name(kind: str, token: str) -> str:
    """A name that nobody else has: whoever loses the race for the state has not written over the winner's part."""
    return f"{kind}-{token}.parquet"


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
