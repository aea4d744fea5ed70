"""Publishing: a reader finds a whole model or none, whatever happens to the writer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.errors import BundleCorrupt, MacrofleetError, PreconditionFailed, PublishConflict, StoreUnavailable
from registry.files import put_immutable, put_immutable_file
from registry.layout import LABELS, MANIFEST, PROVENANCE, WEIGHTS, model_key
from registry.model.bundle import Label, Manifest, write_bundle
from registry.publishing import publish_bundle, record_provenance
from registry.store.local import LocalStore

FILES = (LABELS, WEIGHTS, MANIFEST)


class Crash(Exception):
    """The process ends here."""


class Scripted(LocalStore):
    """A store that counts what it is asked to write, and fails at one of the writes.

    Attributes:
        asked: the keys, in order.
        fails: which write fails, counted from 1; None for none.
        error: what it then raises.
        written: whether the object was written all the same and only the answer is lost.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []
        self.fails: int | None = None
        self.error: Callable[[], Exception] = Crash
        self.written = False

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        return self._play(key, lambda: super(Scripted, self).put(key, data, if_match=if_match, if_absent=if_absent))

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        return self._play(key, lambda: super(Scripted, self).put_file(key, path, if_absent=if_absent))

    def _play(self, key: str, write: Callable[[], str]) -> str:
        self.asked.append(key)
        if len(self.asked) != self.fails:
            return write()
        if self.written:
            write()
        raise self.error()


@pytest.fixture
def store(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path / "store")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The folder of a model of the tenant `acme`."""
    folder = tmp_path / "bundle"
    make_bundle(folder)
    return folder


def make_bundle(folder: Path) -> Manifest:
    folder.mkdir()
    return write_bundle(
        folder,
        tenant="acme",
        program="a" * 64,
        tensors={"kernel": np.arange(128, dtype=np.float32).reshape(64, 2)},
        macros=[Label(id="m0", title="Zero"), Label(id="m1", title="One")],
        data_fingerprint="b" * 64,
        settings={"seed": 0},
        metrics={"hit_rate@3": 0.75},
        threshold=0.25,
    )


def contents(store: LocalStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list()}


def as_in(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    return {model_key("acme", manifest.version, name): (folder / name).read_bytes() for name in FILES}


def test_the_manifest_is_written_last(store: Scripted, bundle: Path) -> None:
    manifest = publish_bundle(store, bundle, tenant="acme")
    assert [key.rpartition("/")[2] for key in store.asked] == list(FILES)
    assert contents(store) == as_in(bundle, manifest)


def test_publishing_twice_is_harmless(store: Scripted, bundle: Path, tmp_path: Path) -> None:
    first = publish_bundle(store, bundle, tenant="acme")
    before = list(store.list())
    assert publish_bundle(store, bundle, tenant="acme") == first
    assert make_bundle(tmp_path / "again").digest == first.digest
    assert publish_bundle(store, tmp_path / "again", tenant="acme") == first
    assert list(store.list()) == before


@pytest.mark.parametrize("written", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("crash", range(1, len(FILES) + 1))
def test_a_crash_at_any_write_shows_no_half_model_and_a_rerun_finishes(
    store: Scripted, bundle: Path, tmp_path: Path, crash: int, written: bool
) -> None:
    store.fails, store.written = crash, written
    with pytest.raises(Crash):
        publish_bundle(store, bundle, tenant="acme")
    held = contents(store)
    assert len(held) == crash - 1 + written
    shows_a_manifest = any(key.endswith(MANIFEST) for key in held)
    assert shows_a_manifest is (len(held) == len(FILES)), "a manifest is there when all it names is, and not before"

    shutil.rmtree(bundle)
    expected = make_bundle(bundle)
    assert publish_bundle(LocalStore(tmp_path / "store"), bundle, tenant="acme").digest == expected.digest
    finished = contents(store)
    assert finished == as_in(bundle, expected)
    assert held.items() <= finished.items(), "what was there is left as it was"


@pytest.mark.parametrize("lost", range(1, len(FILES) + 1))
def test_ones_own_write_found_by_a_retry_is_success(store: Scripted, bundle: Path, lost: int) -> None:
    store.fails, store.written, store.error = lost, True, lambda: PreconditionFailed("the object exists")
    manifest = publish_bundle(store, bundle, tenant="acme")
    assert contents(store) == as_in(bundle, manifest)


@pytest.mark.parametrize("lost", range(1, len(FILES) + 1))
def test_a_lost_answer_is_reported_and_a_rerun_finishes(store: Scripted, bundle: Path, lost: int) -> None:
    store.fails, store.written, store.error = lost, True, lambda: StoreUnavailable("no answer")
    with pytest.raises(StoreUnavailable):
        publish_bundle(store, bundle, tenant="acme")
    manifest = publish_bundle(store, bundle, tenant="acme")
    assert contents(store) == as_in(bundle, manifest)


@pytest.mark.parametrize("name", FILES)
def test_other_content_under_a_published_name_is_a_conflict_and_stays(
    store: Scripted, bundle: Path, tmp_path: Path, name: str
) -> None:
    version = Manifest.parse((bundle / MANIFEST).read_bytes(), what=MANIFEST, error=MacrofleetError).version
    key = model_key("acme", version, name)
    other = (bundle / name).read_bytes()[:-1] + b"~"
    LocalStore(tmp_path / "store").put(key, other)
    with pytest.raises(PublishConflict, match="other content"):
        publish_bundle(store, bundle, tenant="acme")
    held = contents(store)
    assert held[key] == other
    assert name == MANIFEST or not any(key.endswith(MANIFEST) for key in held)


def test_another_tenants_bundle_is_not_published(store: Scripted, bundle: Path) -> None:
    with pytest.raises(BundleCorrupt, match="another tenant"):
        publish_bundle(store, bundle, tenant="globex")
    assert store.asked == []


@pytest.mark.parametrize("name", [LABELS, WEIGHTS])
@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_files_that_are_not_what_the_manifest_says_are_not_published(
    store: Scripted, bundle: Path, name: str, damage: str
) -> None:
    data = (bundle / name).read_bytes()
    if damage == "remove":
        (bundle / name).unlink()
    else:
        (bundle / name).write_bytes(data[:-1] + (b"~" if damage == "change" else b""))
    with pytest.raises(BundleCorrupt):
        publish_bundle(store, bundle, tenant="acme")
    assert store.asked == []


class Vanishing(Scripted):
    """Refuses the first writes, and then says that nothing is there: somebody removed it in between."""

    def __init__(self, root: Path, refusals: int) -> None:
        super().__init__(root)
        self.refusals = refusals

    def _play(self, key: str, write: Callable[[], str]) -> str:
        if self.refusals:
            self.refusals -= 1
            raise PreconditionFailed("the object exists")
        return super()._play(key, write)


@pytest.mark.parametrize("refusals", [1, 2])
def test_an_object_that_is_removed_before_it_can_be_compared_is_written_again(
    tmp_path: Path, bundle: Path, refusals: int
) -> None:
    store = Vanishing(tmp_path / "store", refusals)
    manifest = publish_bundle(store, bundle, tenant="acme")
    assert contents(store) == as_in(bundle, manifest)


def test_an_object_that_comes_and_goes_all_the_time_is_a_lost_race(tmp_path: Path) -> None:
    store = Vanishing(tmp_path / "store", 1_000)
    with pytest.raises(PreconditionFailed, match="all the time"):
        put_immutable(store, "a", b"1")
    (tmp_path / "file").touch()
    with pytest.raises(PreconditionFailed, match="all the time"):
        put_immutable_file(store, "a", tmp_path / "file")


@pytest.mark.parametrize("other", [b"", b"123", b"12345", b"1235", b"1" * 1_000_000])
def test_content_of_any_other_length_is_a_conflict(store: Scripted, tmp_path: Path, other: bytes) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    store.put("a", other)
    with pytest.raises(PublishConflict):
        put_immutable(store, "a", b"1234")
    with pytest.raises(PublishConflict):
        put_immutable_file(store, "a", tmp_path / "file")


def test_content_that_only_begins_alike_is_a_conflict(store: Scripted) -> None:
    data = bytes(256 * 1024)  # a whole piece of what is read at a time
    store.put("a", data + b"more")
    with pytest.raises(PublishConflict):
        put_immutable(store, "a", data)
    put_immutable(store, "a", data + b"more")


def test_the_first_record_of_provenance_stays(store: Scripted) -> None:
    for run in ("first", "second"):
        record_provenance(store, tenant="acme", version="0" * 16, provenance={"run": run})
    assert json.loads(store.get(model_key("acme", "0" * 16, PROVENANCE)).data) == {"run": "first"}
