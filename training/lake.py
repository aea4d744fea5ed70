"""The ticket lake: a tenant's labelled tickets as one Parquet object, merged by ticket id under a conditional write."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from polars.exceptions import PanicException, PolarsError

from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, PublishConflict
from registry.fleet.state import in_threads
from registry.layout import LAKE_PREFIX, examples_key
from registry.names import is_tenant
from registry.store import ObjectStore
from training.examples import Example

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "ticket_id": pl.String,
    "subject": pl.String,
    "body": pl.String,
    "latest": pl.String,
    "channel": pl.String,
    "locale": pl.String,
    "applied_at": pl.Datetime("us", "UTC"),
    "macro_id": pl.String,
    "also": pl.List(pl.String),
    "split": pl.String,
    "prompted": pl.Boolean,
}
# Columns that files of earlier releases lack.
_ADDED = ("prompted",)
# Between pages and footer, where no reader of Parquet looks: this, and the SHA-256 of all else.
_MARK = b"mf-lake\x01"
_ATTEMPTS = 8
# What a connector calls the examples of a ticket with the number 17: `17`, and `17#4711` for later ones.
_TICKET_OF = r"^([0-9]{1,18})(?:#[0-9]+)?$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What an import did to a tenant's examples.

    Attributes:
        removed: of tickets that were read again and have no such example any more, or are gone.
    """

    added: int
    changed: int
    unchanged: int
    total: int
    removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What went of a tenant's examples, or would: `undated` are those without a time, which stay."""

    removed: int
    undated: int
    left: int


class Lake:
    """Labelled tickets by tenant, in the object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def merge(self, tenant: str, examples: Iterable[Example]) -> Merge:
        """Add examples; one with a known ticket id replaces the old one. The same import twice changes nothing.

        Raises:
            PublishConflict: other importers kept winning.
        """
        return self.replace(tenant, frame_of(examples), tickets=())

    def replace(self, tenant: str, fresh: pl.DataFrame, *, tickets: Collection[int]) -> Merge:
        """Merge examples that a help desk's connector made, and remove those of its tickets that it made no more.

        Args:
            fresh: as `frame_of` makes it. Of rows with one ticket id the last counts.
            tickets: numbers of the tickets that were read; whatever the lake has under their ids (`17`, `17#4711`) goes where
                it is not among `fresh`.

        Raises:
            PublishConflict: other importers kept winning.
        """
        fresh = fresh.unique("ticket_id", keep="last")
        read = pl.DataFrame({"ticket": list(tickets)}, schema={"ticket": pl.Int64})
        first: Merge | None = None
        for _ in range(_ATTEMPTS):
            before, etag = self._load(tenant)
            kept = before.join(fresh, on="ticket_id", how="anti")
            if len(read):
                number = pl.col("ticket_id").str.extract(_TICKET_OF).cast(pl.Int64, strict=False)
                kept = kept.with_columns(ticket=number).join(read, on="ticket", how="anti").drop("ticket")
            known = before.join(fresh, on="ticket_id", how="semi")
            unchanged = (
                _comparable(known).join(_comparable(fresh), on=list(_SCHEMA), how="semi", nulls_equal=True).height
            )
            result = Merge(
                added=fresh.height - known.height,
                changed=known.height - unchanged,
                unchanged=unchanged,
                total=kept.height + fresh.height,
                removed=before.height - known.height - kept.height,
            )
            if not (result.added or result.changed or result.removed):
                # After a refused write this is what we find when it was our own, its answer lost.
                return first or result
            first = first or result
            data = encode(pl.concat([kept, fresh]).sort("ticket_id"))
            try:
                self._store.put(examples_key(tenant), data, if_match=etag, if_absent=etag is None)
                return result
            except PreconditionFailed:
                continue
        raise PublishConflict(f"the lake of tenant {tenant} kept changing under this import", remedy="Run it again.")

    def expire(self, tenant: str, before: datetime, *, write: bool = True) -> Expiry:
        """Remove examples from before a time; those that have none stay.

        Args:
            write: False only counts.

        Raises:
            PublishConflict: importers kept winning.
        """
        removed = 0
        for _ in range(_ATTEMPTS):
            found, etag = self._load(tenant)
            left = found.filter(pl.col("applied_at").is_null() | (pl.col("applied_at") >= before))
            # After a refused write there is nothing left to do where it was our own, its answer lost.
            removed = max(removed, found.height - left.height)
            expiry = Expiry(removed=removed, undated=left["applied_at"].null_count(), left=left.height)
            if not write or left.height == found.height:
                return expiry
            try:
                self._store.put(examples_key(tenant), encode(left), if_match=etag)
                return expiry
            except PreconditionFailed:
                continue
        raise PublishConflict(f"the lake of tenant {tenant} kept changing meanwhile", remedy="Run it again.")

    def read(self, tenant: str) -> list[Example]:
        """A tenant's examples, empty where it has none."""
        frame, _ = self._load(tenant)
        return [Example(**{**row, "also": tuple(row["also"])}) for row in frame.iter_rows(named=True)]

    def has(self, tenant: str) -> bool:
        """Whether a tenant has examples, without reading them."""
        try:
            self._store.head(examples_key(tenant))
        except ObjectNotFound:
            return False
        return True

    def owners(self) -> list[str]:
        """The tenants of which the lake has anything: tickets, feedback, records."""
        return sorted(name for name in self._store.names(LAKE_PREFIX) if is_tenant(name))

    def tenants(self, *, known: Collection[str] = ()) -> list[str]:
        """The tenants that have examples, sorted. What else the lake has of them, feedback say, is not listed.

        Args:
            known: tenants that had some before; as long as the lake has anything of them, they are not looked at again.
        """
        names = [name for name in self._store.names(LAKE_PREFIX) if is_tenant(name)]
        there = in_threads(lambda name: name in known or self.has(name), names)
        return [name for name, has in zip(names, there, strict=True) if has]

    def _load(self, tenant: str) -> tuple[pl.DataFrame, str | None]:
        key = examples_key(tenant)
        try:
            found = self._store.get(key)
        except ObjectNotFound:
            return pl.DataFrame(schema=_SCHEMA), None
        return decode(found.data, what=f"{self._store.url}/{key}"), found.etag


def frame_of(examples: Iterable[Example]) -> pl.DataFrame:
    """Examples as the lake keeps them."""
    # Not asdict, which copies deeply: an example's fields are plain.
    rows = [{name: getattr(example, name) for name in _SCHEMA} for example in examples]
    return pl.DataFrame(rows, schema=_SCHEMA)


def encode(frame: pl.DataFrame) -> bytes:
    """Examples as a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    data = buffer.getvalue()
    footer = _footer(data)
    return data[:footer] + _MARK + hashlib.sha256(data).digest() + data[footer:]


def decode(data: bytes, *, what: str) -> pl.DataFrame:
    """Examples out of a Parquet file. Raises InvalidInput, which names `what`."""
    if not _is_whole(data):
        raise InvalidInput(
            f"{what} is damaged", remedy="Restore it, or remove it and import the tenant's tickets again."
        )
    try:
        frame = pl.read_parquet(io.BytesIO(data))
        lacking = [pl.lit(None, _SCHEMA[name]).alias(name) for name in _ADDED if name not in frame.columns]
        return frame.with_columns(lacking).select(_SCHEMA.keys())
    except (PolarsError, PanicException) as problem:
        raise InvalidInput(
            f"{what} is not a lake file ({type(problem).__name__})",
            remedy="Remove it and import the tenant's tickets again.",
        ) from None


def _footer(data: bytes) -> int:
    """Where the footer of a Parquet file begins: it names its pages by their distance from the beginning."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def _is_whole(data: bytes) -> bool:
    """Whether a file is as it was written. Files of earlier releases do not tell, and count as whole.

    Reading Parquet trusts what it reads: a byte that differs may be other words, a panic, which is no `Exception`, or the
    end of the process for all that it does for others.
    """
    footer = _footer(data)
    mark = footer - len(_MARK) - hashlib.sha256().digest_size
    if mark < 0 or data[mark : mark + len(_MARK)] != _MARK:
        return _MARK not in data
    said = data[mark + len(_MARK) : footer]
    return hashlib.sha256(data[:mark] + data[footer:]).digest() == said


def _comparable(frame: pl.DataFrame) -> pl.DataFrame:
    """With lists as strings, which frames can be joined on; no macro's id holds the separator."""
    return frame.with_columns(also=pl.col("also").list.join("\x1f"))
