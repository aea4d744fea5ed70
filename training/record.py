"""The record of a tenant's last training: what it was made of, what became of it, and when.

It lies beside the tickets, `lake/tenants/<tenant>/training.json`, and is what a later run compares with. It only saves
work: a tenant without one, or with one that cannot be read, is trained.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from registry.conditional import put_over
from registry.documents import Document
from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, PublishConflict
from registry.files import Digest
from registry.layout import training_record_key
from registry.store import ObjectStore
from training.inputs import Inputs

_MAX_BYTES = 256 * 1024


class TrainingRecord(Document):
    """What the last training of a tenant came to. Fields of later releases are kept.

    Attributes:
        state: "trained" (and passed the gate), "not_promoted" (the gate refused it), "not_eligible" (fitting found too
            little), "failed"; later releases may have others.
        reason: of that state, where it has one.
        inputs: digest of all that it was made of.
        parts: the same, part by part.
        version, manifest: of the model; None where none was made.
        program: that it was fitted for.
        examples, macros: how many it was made of.
        top1, top3: None where there were no rows to judge on.
        finished_at: when the outcome was known.
        settled: whether the fleet and MLflow's alias followed; until then a later run has that left to do.
    """

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    state: Annotated[str, Field(min_length=1)]
    reason: str = ""
    inputs: Digest
    parts: Inputs
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    manifest: Digest | None = None
    program: str = ""
    examples: Annotated[int, Field(ge=0)] = 0
    macros: Annotated[int, Field(ge=0)] = 0
    top1: float | None = None
    top3: float | None = None
    finished_at: AwareDatetime
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRecord:
    """A record as it was found.

    Attributes:
        record: None where there is none, or none that can be read.
        etag: of the object, on which the next write is conditional; None where there is none.
    """

    record: TrainingRecord | None
    etag: str | None


def read_record(store: ObjectStore, tenant: str) -> FoundRecord:
    """The record of a tenant's last training."""
    key = training_record_key(tenant)
    try:
        found = store.get(key)
    except ObjectNotFound:
        return FoundRecord(record=None, etag=None)
    record = None
    with suppress(InvalidInput):
        record = TrainingRecord.parse(found.data, what=key, error=InvalidInput)
    return FoundRecord(record=record, etag=found.etag)


def write_record(store: ObjectStore, tenant: str, record: TrainingRecord, *, etag: str | None) -> None:
    """Write a record over the one that was found before the training.

    Raises:
        PublishConflict: another run has trained the tenant meanwhile; what it wrote stays.
    """
    try:
        put_over(store, training_record_key(tenant), record.to_bytes(), etag=etag)
    except PreconditionFailed:
        raise PublishConflict(
            f"another run trained tenant {tenant} at the same time",
            remedy="Its outcome counts; this one's was dropped.",
        ) from None


def settle_record(store: ObjectStore, tenant: str, manifest: str) -> None:
    """Note that fleet and alias follow a tenant's last training, if that still is the one of `manifest`."""
    found = read_record(store, tenant)
    if found.record is None or found.record.manifest != manifest or found.record.settled:
        return
    # Who changed it meanwhile has its own to settle.
    with suppress(PreconditionFailed):
        settled = found.record.model_copy(update={"settled": True})
        put_over(store, training_record_key(tenant), settled.to_bytes(), etag=found.etag)
