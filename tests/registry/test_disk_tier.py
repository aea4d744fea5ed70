import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.fleets import publish_tenants
from registry import disk_tier
from registry.bundle import Manifest
from registry.disk_tier import DiskTier
from registry.errors import (
    BundleCorrupt,
    ModelNotFound,
    ProgramCorrupt,
    ProgramUntrusted,
    StoreError,
    StoreUnavailable,
)
from registry.files import FileDigest, file_digest, write_durably
from registry.layout import LABELS, MANIFEST, PROGRAM_FILES, WEIGHTS, model_key, program_key
from registry.program import publish_program
from registry.runtime import Program
from registry.store.local import LocalStore


class Counted(LocalStore):
    """Counts downloads; may be switched off."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self.down = False

    def open(self, key: str):  # type: ignore[no-untyped-def]  # as the adapter's
        if self.down:
            raise StoreUnavailable("switched off")
        self.opened.append(key)
        return super().open(key)


@pytest.fixture
def store(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "store")


@pytest.fixture
def published(store: Counted, bag: Program) -> Manifest:
    return publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)["acme"]


@pytest.fixture
def tier(tmp_path: Path, store: Counted, bag: Program) -> DiskTier:
    return DiskTier(tmp_path / "disk", store, trusted=frozenset([bag.digest]))


def test_a_model_is_downloaded_once_and_mapped_with_its_own_bytes(
    tier: DiskTier, store: Counted, published: Manifest
) -> None:
    store.opened.clear()
    for _ in range(2):
        assert tier.install_model("acme", published.version, published.digest) == published
    files = [name for name in store.opened if not name.endswith(MANIFEST)]
    assert sorted(files) == sorted(model_key("acme", published.version, name) for name in (WEIGHTS, LABELS))
    mapped = tier.map_model("acme", published.version, published.digest)
    assert mapped.nbytes == published.files[WEIGHTS].size
    assert [label.id for label in mapped.labels.macros] == [f"m{i}" for i in range(5)]


def overwrite_in_store(store: Counted, key: str, change: Callable[[bytes], bytes]) -> None:
    data = store.get(key).data
    store.put(key, change(data))


FLIP: Callable[[bytes], bytes] = lambda data: data[:-1] + bytes([data[-1] ^ 1])  # noqa: E731


@pytest.mark.parametrize("name", [WEIGHTS, LABELS, MANIFEST])
@pytest.mark.parametrize("change", [FLIP, lambda d: d[:-64], lambda d: d + bytes(64), lambda _: b""])
def test_what_the_store_holds_is_refused_when_it_is_not_what_the_fleet_names(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    overwrite_in_store(store, model_key("acme", published.version, name), change)
    with pytest.raises(BundleCorrupt):
        tier.install_model("acme", published.version, published.digest)
    assert not tier.model_folder("acme", published.version).exists(), "nothing half-written"
    assert list((tmp_path / "disk" / "incoming").iterdir()) == []


@pytest.mark.parametrize("name", [WEIGHTS, LABELS])
@pytest.mark.parametrize("damage", ["truncate", "grow", "flip", "replace", "remove"])
def test_damage_on_disk_is_found_before_mapping_and_mended_by_installing(
    tier: DiskTier, published: Manifest, name: str, damage: str
) -> None:
    tier.install_model("acme", published.version, published.digest)
    path = tier.model_folder("acme", published.version) / name
    data = path.read_bytes()
    if damage == "truncate":
        os.truncate(path, len(data) // 2)
    elif damage == "grow":
        path.write_bytes(data + bytes(64))
    elif damage == "flip":
        path.write_bytes(FLIP(data))
    elif damage == "replace":
        path.with_name("other").write_bytes(FLIP(data))
        path.with_name("other").replace(path)
    else:
        path.unlink()
    with pytest.raises(BundleCorrupt):
        tier.map_model("acme", published.version, published.digest)
    tier.install_model("acme", published.version, published.digest)
    tier.map_model("acme", published.version, published.digest)


def test_a_copied_tier_is_verified_again_and_used_without_a_download(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, bag: Program
) -> None:
    tier.install_model("acme", published.version, published.digest)
    shutil.copytree(tmp_path / "disk", tmp_path / "copy")
    store.down = True
    copy = DiskTier(tmp_path / "copy", store, trusted=frozenset([bag.digest]))
    assert copy.install_model("acme", published.version, published.digest) == published


def test_another_tenants_model_is_refused(tier: DiskTier, store: Counted, published: Manifest) -> None:
    for name in (WEIGHTS, LABELS, MANIFEST):
        data = store.get(model_key("acme", published.version, name)).data
        store.put(model_key("globex", published.version, name), data)
    with pytest.raises(BundleCorrupt, match="another tenant"):
        tier.install_model("globex", published.version, published.digest)


def test_a_version_that_is_not_there_is_named(tier: DiskTier, published: Manifest) -> None:
    with pytest.raises(ModelNotFound, match="version 00000000"):
        tier.install_model("acme", "0" * 16, "0" * 64)


def test_two_processes_may_install_the_same_model_at_once(
    store: Counted, published: Manifest, tmp_path: Path, bag: Program
) -> None:
    def install(_: int) -> Manifest:
        tier = DiskTier(tmp_path / "shared", store, trusted=frozenset([bag.digest]))
        return tier.install_model("acme", published.version, published.digest)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(install, range(4))) == [published] * 4
    assert list((tmp_path / "shared" / "incoming").iterdir()) == []


def test_a_process_that_saw_nothing_does_not_take_away_what_another_installed_meanwhile(
    tier: DiskTier, published: Manifest, tmp_path: Path, store: Counted, bag: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DiskTier(tmp_path / "disk", store, trusted=frozenset([bag.digest]))
    install = tier._install

    def late(folder: Path, fill: Callable[[Path], None]) -> None:
        other.install_model("acme", published.version, published.digest)
        inode = (folder / WEIGHTS).stat().st_ino
        install(folder, fill)
        assert (folder / WEIGHTS).stat().st_ino == inode

    monkeypatch.setattr(tier, "_install", late)
    assert tier.install_model("acme", published.version, published.digest) == published


def test_an_untrusted_program_is_not_even_downloaded(store: Counted, bag_folder: Path, tmp_path: Path) -> None:
    digest = publish_program(store, bag_folder)
    store.opened.clear()
    with pytest.raises(ProgramUntrusted, match="MACROFLEET_TRUSTED_PROGRAMS"):
        DiskTier(tmp_path / "disk", store, trusted=frozenset(["f" * 64])).install_program(digest)
    assert store.opened == []
    assert not (tmp_path / "disk").exists()


def test_a_program_is_installed_and_a_changed_one_is_refused(
    store: Counted, tier: DiskTier, bag_folder: Path, bag: Program
) -> None:
    assert publish_program(store, bag_folder) == bag.digest
    folder = tier.install_program(bag.digest)
    (folder / "saved_model.pb").write_bytes(FLIP((folder / "saved_model.pb").read_bytes()))
    assert tier.install_program(bag.digest) == folder, "a damaged copy is fetched again"
    shutil.rmtree(folder)
    overwrite_in_store(store, program_key(bag.digest, "saved_model.pb"), FLIP)
    with pytest.raises(ProgramCorrupt):
        tier.install_program(bag.digest)
    overwrite_in_store(store, program_key(bag.digest, PROGRAM_FILES), FLIP)
    with pytest.raises(ProgramCorrupt):
        tier.install_program(bag.digest)
    assert not folder.exists()


def test_a_program_that_the_store_does_not_have_is_named(tier: DiskTier, bag: Program) -> None:
    with pytest.raises(ProgramCorrupt, match="programs build"):
        tier.install_program(bag.digest)


# The install record

RECORD = "installed.json"


def test_openers_that_find_no_record_do_not_stand_in_each_others_way(
    store: Counted, tier: DiskTier, published: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.install_model("acme", published.version, published.digest)
    record = tier.model_folder("acme", published.version) / RECORD
    before = record.read_bytes()
    record.unlink()
    all_have_verified = threading.Barrier(6)

    def write_when_all_have_verified(path: Path, data: bytes) -> None:
        all_have_verified.wait(60)
        write_durably(path, data)

    monkeypatch.setattr(disk_tier, "write_durably", write_when_all_have_verified)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: tier.map_model("acme", published.version, published.digest), range(6)))
    assert [mapped.manifest for mapped in found] == [published] * 6
    assert record.read_bytes() == before
    assert {path.name for path in record.parent.iterdir()} == {RECORD, WEIGHTS, LABELS, MANIFEST}


def test_a_tier_that_cannot_be_written_serves_what_it_holds(
    tier: DiskTier, published: Manifest, tmp_path: Path
) -> None:
    tier.install_model("acme", published.version, published.digest)
    (tier.model_folder("acme", published.version) / RECORD).unlink()
    refuse_writes(tmp_path / "disk")
    assert tier.install_model("acme", published.version, published.digest) == published
    assert tier.map_model("acme", published.version, published.digest).manifest == published


def refuse_writes(folder: Path) -> None:
    """What permissions would do, for root as well: the folder that every write goes through is none."""
    (folder / "incoming").rmdir()
    (folder / "incoming").touch()


def test_a_file_that_is_replaced_while_it_is_verified_is_not_recorded(
    tier: DiskTier, published: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier.install_model("acme", published.version, published.digest)
    folder = tier.model_folder("acme", published.version)
    (folder / RECORD).unlink()

    def replaced_after_hashing(path: Path) -> FileDigest:
        found = file_digest(path)
        if path.name == WEIGHTS:
            path.with_name("other").write_bytes(FLIP(path.read_bytes()))
            path.with_name("other").replace(path)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(disk_tier, "file_digest", replaced_after_hashing)
        tier.map_model("acme", published.version, published.digest)
    with pytest.raises(BundleCorrupt):
        tier.map_model("acme", published.version, published.digest)


# A tier that cannot be written


def test_a_folder_that_cannot_be_made_is_reported_with_a_remedy(
    store: Counted, published: Manifest, bag: Program, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    tier = DiskTier(tmp_path / "file" / "disk", store, trusted=frozenset([bag.digest]))
    for install in (
        lambda: tier.install_model("acme", published.version, published.digest),
        lambda: tier.install_program(bag.digest),
    ):
        with pytest.raises(StoreError, match=r"cannot write below .*permissions"):
            install()


def test_a_bad_copy_that_cannot_be_set_aside_is_reported_with_a_remedy(
    tier: DiskTier, published: Manifest, tmp_path: Path
) -> None:
    tier.install_model("acme", published.version, published.digest)
    (tier.model_folder("acme", published.version) / WEIGHTS).unlink()
    refuse_writes(tmp_path / "disk")
    with pytest.raises(StoreError, match=r"cannot write below .*permissions"):
        tier.install_model("acme", published.version, published.digest)


# Names that become paths


@pytest.mark.parametrize(
    "version", ["../../../victim", "", ".", "0" * 15, "0" * 17, "0" * 15 + "A", "0" * 16 + "\n", "/" + "0" * 15]
)
def test_a_version_that_is_none_touches_no_file(
    tier: DiskTier, published: Manifest, tmp_path: Path, version: str
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "kept").touch()
    calls: list[Callable[[], object]] = [
        lambda: tier.model_folder("acme", version),
        lambda: tier.install_model("acme", version, published.digest),
        lambda: tier.map_model("acme", version, published.digest),
    ]
    for call in calls:
        with pytest.raises(BundleCorrupt, match="not a model version"):
            call()
    assert (tmp_path / "victim" / "kept").exists()
    assert not (tmp_path / "disk").exists()


def test_a_version_that_is_not_its_manifests_is_refused(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path
) -> None:
    other = "f" * 16
    for name in (WEIGHTS, LABELS, MANIFEST):
        store.put(model_key("acme", other, name), store.get(model_key("acme", published.version, name)).data)
    for call in (tier.install_model, tier.map_model):
        with pytest.raises(BundleCorrupt, match="does not go with"):
            call("acme", other, published.digest)
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize("digest", ["../../victim", "", "0" * 63, "0" * 64 + "\n", "F" * 64])
def test_a_program_digest_that_is_none_touches_no_file(store: Counted, tmp_path: Path, digest: str) -> None:
    (tmp_path / "victim").mkdir()
    with pytest.raises(ProgramCorrupt, match="MACROFLEET_TRUSTED_PROGRAMS"):
        DiskTier(tmp_path / "disk", store, trusted=frozenset([digest])).install_program(digest)
    assert (tmp_path / "victim").is_dir()
    assert not (tmp_path / "disk").exists()


def test_what_a_killed_process_left_goes_after_a_day(tier: DiskTier, published: Manifest, tmp_path: Path) -> None:
    waiting = tmp_path / "disk" / "incoming"
    for name in ("old", "fresh"):
        (waiting / name).mkdir(parents=True)
        (waiting / name / "weights.safetensors").write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(waiting / "old", (two_days_ago, two_days_ago))
    tier.install_model("acme", published.version, published.digest)
    assert [path.name for path in waiting.iterdir()] == ["fresh"]
