from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.errors import PublishConflict
from registry.layout import training_record_key
from registry.store.local import LocalStore
from training.inputs import Inputs
from training.lake import Lake
from training.record import FoundRecord, TrainingRecord, read_record, settle_record, write_record

PARTS = Inputs(data="1" * 64, catalogue="2" * 64, program="3" * 64, settings="4" * 64)
RECORD = TrainingRecord(
    state="trained",
    inputs=PARTS.digest,
    parts=PARTS,
    version="a" * 16,
    manifest="a" * 64,
    program="bag",
    examples=120,
    macros=8,
    top1=0.5,
    top3=None,
    finished_at=datetime(2026, 11, 28, 3, tzinfo=UTC),
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_record_is_found_as_it_was_written(store: LocalStore) -> None:
    assert read_record(store, "acme") == FoundRecord(record=None, etag=None)
    write_record(store, "acme", RECORD, etag=None)
    found = read_record(store, "acme")
    assert found.record == RECORD
    later = RECORD.model_copy(update={"state": "not_promoted"})
    write_record(store, "acme", later, etag=found.etag)
    assert read_record(store, "acme").record == later


def test_the_same_record_is_the_same_bytes() -> None:
    assert RECORD.to_bytes() == TrainingRecord.model_validate_json(RECORD.to_bytes()).to_bytes()
    assert b'"finished_at":"2026-11-28T03:00:00Z"' in RECORD.to_bytes()


def test_a_record_is_written_over_the_one_that_was_found_and_no_other(store: LocalStore) -> None:
    write_record(store, "acme", RECORD, etag=None)
    other = RECORD.model_copy(update={"macros": 9})
    with pytest.raises(PublishConflict, match="another run trained tenant acme"):
        write_record(store, "acme", other, etag=None)
    with pytest.raises(PublishConflict, match="another run trained tenant acme"):
        write_record(store, "acme", other, etag="0" * 32)
    write_record(store, "acme", RECORD, etag=None)  # one's own, its answer lost
    assert read_record(store, "acme").record == RECORD


@pytest.mark.parametrize("data", [b"", b"not json", b"{}", b'{"state": "trained"}', b"\xff"])
def test_one_that_cannot_be_read_counts_as_none_and_is_written_over(store: LocalStore, data: bytes) -> None:
    store.put(training_record_key("acme"), data)
    found = read_record(store, "acme")
    assert found.record is None
    assert found.etag is not None
    write_record(store, "acme", RECORD, etag=found.etag)
    assert read_record(store, "acme").record == RECORD


def test_fields_of_a_later_release_are_kept(store: LocalStore) -> None:
    later = TrainingRecord.model_validate({**RECORD.model_dump(), "shadow": "b" * 16})
    write_record(store, "acme", later, etag=None)
    settle_record(store, "acme", "a" * 64)
    kept = json.loads(store.get(training_record_key("acme")).data)
    assert (kept["settled"], kept["shadow"]) == (True, "b" * 16)


def test_only_the_training_that_is_meant_is_settled(store: LocalStore) -> None:
    settle_record(store, "acme", "a" * 64)
    assert read_record(store, "acme").record is None
    write_record(store, "acme", RECORD, etag=None)
    settle_record(store, "acme", "b" * 64)
    assert read_record(store, "acme").record == RECORD
    settle_record(store, "acme", "a" * 64)
    settled = read_record(store, "acme")
    assert settled.record == RECORD.model_copy(update={"settled": True})
    settle_record(store, "acme", "a" * 64)
    assert read_record(store, "acme") == settled


def test_who_trains_meanwhile_is_left_alone(store: LocalStore, tmp_path: Path) -> None:
    newer = RECORD.model_copy(update={"manifest": "b" * 64, "version": "b" * 16})

    class Raced(LocalStore):
        def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
            store.put(key, newer.to_bytes())
            return super().put(key, data, if_match=if_match, if_absent=if_absent)

    write_record(store, "acme", RECORD, etag=None)
    settle_record(Raced(tmp_path / "store"), "acme", "a" * 64)
    assert read_record(store, "acme").record == newer


def test_a_record_makes_nobody_a_tenant_with_tickets(store: LocalStore) -> None:
    write_record(store, "acme", RECORD, etag=None)
    assert Lake(store).tenants() == []
