"""The ticket lake: a tenant's labelled tickets as one Parquet object, merged by ticket id under a conditional write."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import polars as pl
from polars.exceptions import PolarsError

from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, PublishConflict
from registry.layout import LAKE_PREFIX, examples_key
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
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What an import did to a tenant's examples."""

    added: int
    changed: int
    unchanged: int
    total: int


class Lake:
    """Labelled tickets by tenant, in the object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def merge(self, tenant: str, examples: Iterable[Example]) -> Merge:
        """Add examples; one with a known ticket id replaces the old one. The same import twice changes nothing.

        Raises:
            PublishConflict: other importers kept winning.
        """
        fresh = {example.ticket_id: example for example in examples}
        first: Merge | None = None
        for _ in range(_ATTEMPTS):
            before, etag = self._load(tenant)
            known = {example.ticket_id: example for example in before}
            merged = known | fresh
            added = len(merged) - len(known)
            changed = sum(known[key] != example for key, example in fresh.items() if key in known)
            result = Merge(added=added, changed=changed, unchanged=len(fresh) - added - changed, total=len(merged))
            if not added and not changed:
                # After a refused write this is what we find when it was our own, its answer lost.
                return first or result
            first = first or result
            try:
                self._store.put(examples_key(tenant), _encode(merged.values()), if_match=etag, if_absent=etag is None)
                return result
            except PreconditionFailed:
                continue
        raise PublishConflict(f"the lake of tenant {tenant} kept changing under this import", remedy="Run it again.")

    def read(self, tenant: str) -> list[Example]:
        """A tenant's examples, empty where it has none."""
        return self._load(tenant)[0]

    def has(self, tenant: str) -> bool:
        """Whether a tenant has examples, without reading them."""
        try:
            self._store.head(examples_key(tenant))
        except ObjectNotFound:
            return False
        return True

    def tenants(self) -> list[str]:
        """The tenants that have examples."""
        suffix = "/examples.parquet"
        keys = (info.key for info in self._store.list(LAKE_PREFIX))
        return [key.removeprefix(LAKE_PREFIX).removesuffix(suffix) for key in keys if key.endswith(suffix)]

    def _load(self, tenant: str) -> tuple[list[Example], str | None]:
        try:
            found = self._store.get(examples_key(tenant))
        except ObjectNotFound:
            return [], None
        try:
            frame = pl.read_parquet(io.BytesIO(found.data))
            lacking = [pl.lit(None, _SCHEMA[name]).alias(name) for name in _ADDED if name not in frame.columns]
            frame = frame.with_columns(lacking).select(_SCHEMA.keys())
        except PolarsError as problem:
            raise InvalidInput(
                f"{self._store.url}/{examples_key(tenant)} is not a lake file: {problem}",
                remedy="Remove it and import the tenant's tickets again.",
            ) from None
        return [Example(**{**row, "also": tuple(row["also"])}) for row in frame.iter_rows(named=True)], found.etag


def _encode(examples: Iterable[Example]) -> bytes:
    rows = sorted((asdict(example) for example in examples), key=lambda row: str(row["ticket_id"]))
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=_SCHEMA).write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
