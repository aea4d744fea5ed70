import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import pytest

from registry.background import Background
from registry.disk import install_record, placing
from registry.disk import tier as disk_tier
from registry.disk.install_record import RECORD, sync_model
from registry.disk.tier import DiskTier
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
from registry.model import mapped
from registry.model.bundle import Manifest
from registry.model.program import publish_program
from registry.model.runtime import Program
from registry.store.local import LocalStore


class Counted(LocalStore):
    """Counts downloads; may be switched off."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self.streams: list[IO[bytes]] = []
        self.down = False

    def open(self, key: str):  # type: ignore[no-untyped-def]  # as the adapter's
        if self.down:
            raise StoreUnavailable("switched off")
        self.opened.append(key)
        self.streams.append(super().open(key))
        return self.streams[-1]


@pytest.fixture
def store(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "store")


@pytest.fixture
def published(store: Counted, publish: Callable[..., Manifest]) -> Manifest:
    """A model whose weights come in several pieces."""
    return publish(store, "acme", rows=40_000)


@pytest.fixture
def tier(tmp_path: Path, store: Counted) -> Iterator[DiskTier]:
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as made:
        yield made


@pytest.fixture
def trusting(tmp_path: Path, store: Counted, bag: Program) -> Iterator[DiskTier]:
    """A tier that may install the program `bag`."""
    with DiskTier(tmp_path / "disk", store, trusted=frozenset([bag.digest])) as made:
        yield made


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
    assert list(tmp_path.glob("disk/incoming/*")) == []


def test_weights_that_were_asked_for_in_vain_are_let_go(tier: DiskTier, store: Counted, published: Manifest) -> None:
    """They are asked for before the manifest is there; a connection that nobody reads must not stay open."""
    overwrite_in_store(store, model_key("acme", published.version, MANIFEST), FLIP)
    store.streams.clear()
    with pytest.raises(BundleCorrupt):
        tier.install_model("acme", published.version, published.digest)
    tier._helpers._pool.shutdown()
    assert all(stream.closed for stream in store.streams)


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
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path
) -> None:
    tier.install_model("acme", published.version, published.digest)
    tier.settle()
    shutil.copytree(tmp_path / "disk", tmp_path / "copy")
    store.down = True
    with DiskTier(tmp_path / "copy", store, trusted=frozenset()) as copy:
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


def test_two_processes_may_install_the_same_model_at_once(store: Counted, published: Manifest, tmp_path: Path) -> None:
    def install(_: int) -> Manifest:
        with DiskTier(tmp_path / "shared", store, trusted=frozenset()) as tier:
            return tier.install_model("acme", published.version, published.digest)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(install, range(4))) == [published] * 4
    assert list((tmp_path / "shared" / "incoming").iterdir()) == []


def test_a_process_that_saw_nothing_does_not_take_away_what_another_installed_meanwhile(
    tier: DiskTier, published: Manifest, tmp_path: Path, store: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as other:
        put_in_place = placing.put_in_place

        def late(beside: Path, folder: Path) -> bool:
            monkeypatch.setattr(disk_tier, "put_in_place", put_in_place)
            other.install_model("acme", published.version, published.digest)
            inode = (folder / WEIGHTS).stat().st_ino
            placed = put_in_place(beside, folder)
            assert (folder / WEIGHTS).stat().st_ino == inode
            return placed

        monkeypatch.setattr(disk_tier, "put_in_place", late)
        assert tier.install_model("acme", published.version, published.digest) == published


def test_an_untrusted_program_is_not_even_downloaded(store: Counted, bag_folder: Path, tmp_path: Path) -> None:
    digest = publish_program(store, bag_folder)
    store.opened.clear()
    with pytest.raises(ProgramUntrusted, match="MACROFLEET_TRUSTED_PROGRAMS"):
        DiskTier(tmp_path / "disk", store, trusted=frozenset(["f" * 64])).install_program(digest)
    assert store.opened == []
    assert not (tmp_path / "disk").exists()


def test_a_program_is_installed_and_a_changed_one_is_refused(
    store: Counted, trusting: DiskTier, bag_folder: Path, bag: Program
) -> None:
    tier = trusting
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


def test_a_program_that_the_store_does_not_have_is_named(trusting: DiskTier, bag: Program) -> None:
    with pytest.raises(ProgramCorrupt, match="programs build"):
        trusting.install_program(bag.digest)


# The install record


def installed_and_recorded(tier: DiskTier, published: Manifest) -> Path:
    tier.install_model("acme", published.version, published.digest)
    tier.settle()
    return tier.model_folder("acme", published.version)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    names: list[str] = []

    def noted(path: Path) -> FileDigest:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(mapped, "file_digest", noted)
    return names


def test_a_recorded_model_is_not_hashed_again(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, hashed: list[str]
) -> None:
    installed_and_recorded(tier, published)
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as later:
        later.install_model("acme", published.version, published.digest)
        later.map_model("acme", published.version, published.digest)
    assert hashed == []


def test_a_model_without_a_record_is_hashed_once_and_recorded(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, hashed: list[str]
) -> None:
    record = installed_and_recorded(tier, published) / RECORD
    before = record.read_bytes()
    record.unlink()
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as later:
        for _ in range(2):
            later.open_model("acme", published.version, published.digest)
    assert sorted(hashed) == [LABELS, WEIGHTS]
    assert record.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifest":"x","files":{}}', b"\0" * 100])
def test_a_record_that_cannot_be_read_is_none(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, hashed: list[str], content: bytes
) -> None:
    record = installed_and_recorded(tier, published) / RECORD
    before = record.read_bytes()
    record.write_bytes(content)
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as later:
        later.open_model("acme", published.version, published.digest)
    assert sorted(hashed) == [LABELS, WEIGHTS]
    assert record.read_bytes() == before


def test_a_model_is_usable_before_it_is_recorded_and_not_hashed_for_it(
    tier: DiskTier, published: Manifest, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    monkeypatch.setattr(Background, "submit", lambda *_: None)
    tier.install_model("acme", published.version, published.digest)
    tier.map_model("acme", published.version, published.digest)
    tier.open_model("acme", published.version, published.digest)
    assert not (tier.model_folder("acme", published.version) / RECORD).exists()
    assert hashed == []


def test_openers_that_find_no_record_do_not_stand_in_each_others_way(
    store: Counted, tier: DiskTier, published: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = installed_and_recorded(tier, published) / RECORD
    before = record.read_bytes()
    record.unlink()
    all_have_verified = threading.Barrier(6)

    def write_when_all_have_verified(path: Path, data: bytes) -> None:
        all_have_verified.wait(60)
        write_durably(path, data)

    monkeypatch.setattr(install_record, "write_durably", write_when_all_have_verified)

    def open_it(_: int) -> Manifest:
        with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as opener:
            return opener.map_model("acme", published.version, published.digest).manifest

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(open_it, range(6))) == [published] * 6
    assert record.read_bytes() == before
    assert {path.name for path in record.parent.iterdir()} == {RECORD, WEIGHTS, LABELS, MANIFEST}


def test_a_tier_that_cannot_be_written_serves_what_it_holds(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path
) -> None:
    (installed_and_recorded(tier, published) / RECORD).unlink()
    refuse_writes(tmp_path / "disk")
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as later:
        assert later.install_model("acme", published.version, published.digest) == published
        assert later.map_model("acme", published.version, published.digest).manifest == published


def refuse_writes(folder: Path) -> None:
    """What permissions would do, for root as well: the folder that every write goes through is none."""
    (folder / "incoming").rmdir()
    (folder / "incoming").touch()


def replace_file(path: Path) -> None:
    """Other content of the same length under a file's name."""
    path.with_name("other").write_bytes(FLIP(path.read_bytes()))
    path.with_name("other").replace(path)


def test_a_file_that_is_replaced_while_it_is_verified_is_not_used_or_recorded(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = installed_and_recorded(tier, published)
    (folder / RECORD).unlink()

    def replaced_after_hashing(path: Path) -> FileDigest:
        found = file_digest(path)
        if path.name == WEIGHTS:
            replace_file(path)
        return found

    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as later:
        with monkeypatch.context() as patched:
            patched.setattr(mapped, "file_digest", replaced_after_hashing)
            with pytest.raises(BundleCorrupt):
                later.map_model("acme", published.version, published.digest)
        later.settle()
        assert not (folder / RECORD).exists()
        with pytest.raises(BundleCorrupt):
            later.map_model("acme", published.version, published.digest)


def test_a_file_that_is_replaced_before_it_is_recorded_is_not(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither this process's memory nor the record may speak for a file that came later."""

    def replaced(folder: Path, names: Iterable[str], *, root: Path) -> None:
        replace_file(folder / WEIGHTS)
        sync_model(folder, names, root=root)

    monkeypatch.setattr(disk_tier, "sync_model", replaced)
    folder = installed_and_recorded(tier, published)
    assert not (folder / RECORD).exists()
    with pytest.raises(BundleCorrupt):
        tier.map_model("acme", published.version, published.digest)


# Crashes


class Crash(BaseException):
    """The machine loses its power here."""


class Disk:
    """What of the files would survive: those that were synced. `crash_at` ends the work before that step.

    Names survive here, synced or not: the worst case, since a name without its content is what must not be believed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.crash_at: int | None = None
        self.synced: set[int] = set()
        for name in ("fsync", "rename", "replace", "mkdir", "utime"):
            monkeypatch.setattr(os, name, self._step(name, getattr(os, name)))
        monkeypatch.setattr(Background, "submit", lambda _, job: job())

    def _step(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def step(*args: Any, **kwargs: Any) -> None:
            self.steps += 1
            if self.steps == self.crash_at:
                raise Crash
            real(*args, **kwargs)
            if name == "fsync":
                self.synced.add(os.fstat(args[0]).st_ino)

        return step

    def lose_power(self, folder: Path, names: Collection[str]) -> None:
        """Files of these names that were not synced keep their names, lengths and times; zeros are in their second half."""
        for path in folder.rglob("*"):
            status = path.stat()
            if path.name in names and status.st_ino not in self.synced:
                with path.open("r+b") as file:
                    file.seek(status.st_size // 2)
                    file.write(bytes(status.st_size - status.st_size // 2))
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("lost", [(WEIGHTS,), (LABELS,), (MANIFEST,), (RECORD,), (WEIGHTS, LABELS, MANIFEST, RECORD)])
def test_a_crash_at_any_step_never_leaves_wrong_bytes_that_are_believed(
    store: Counted, publish: Callable[..., Manifest], tmp_path: Path, lost: tuple[str, ...]
) -> None:
    model = publish(store, "globex")
    expected = store.get(model_key("globex", model.version, WEIGHTS)).data

    def open_and_compare(folder: Path) -> None:
        with DiskTier(folder, store, trusted=frozenset()) as tier:
            opened = tier.open_model("globex", model.version, model.digest)
            assert expected.endswith(opened.tensors["kernel"].tobytes())
            assert [label.id for label in opened.labels.macros] == [f"m{number}" for number in range(5)]

    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch)
        open_and_compare(tmp_path / "whole")
        steps = disk.steps
    assert steps > 10
    for crash in range(1, steps + 2):  # the last time everything is done
        folder = tmp_path / f"crash-{crash}"
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = Disk(monkeypatch)
            disk.crash_at = crash
            with pytest.raises(Crash) if crash <= steps else nullcontext():
                open_and_compare(folder)
        disk.lose_power(folder, lost)
        open_and_compare(folder)


def test_what_is_recorded_is_synced_with_all_the_folders_that_lead_to_it(
    tier: DiskTier, published: Manifest, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch)
        folder = installed_and_recorded(tier, published)
        paths = [*folder.iterdir(), folder, *folder.parents]
        for path in paths[: paths.index(tmp_path)]:
            assert path.stat().st_ino in disk.synced, path


def test_what_can_not_be_synced_is_fetched_again(
    tier: DiskTier, store: Counted, published: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says only once that it lost bytes, so they must not be synced, or hashed from memory, once more."""

    def lost(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(disk_tier, "sync_model", lost)
        folder = installed_and_recorded(tier, published)
    assert not folder.exists()
    store.opened.clear()
    tier.open_model("acme", published.version, published.digest)
    assert model_key("acme", published.version, WEIGHTS) in store.opened


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EROFS, errno.EINVAL])
def test_what_is_merely_not_synced_stays(
    tier: DiskTier, published: Manifest, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk_tier, "sync_model", refused)
    folder = installed_and_recorded(tier, published)
    assert folder.exists()
    assert not (folder / RECORD).exists()
    tier.map_model("acme", published.version, published.digest)


# Reads that fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("name", [WEIGHTS, LABELS, MANIFEST])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_copy_that_cannot_be_read_is_not_thrown_away(
    tier: DiskTier,
    store: Counted,
    published: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    name: str,
    recorded: bool,
) -> None:
    folder = installed_and_recorded(tier, published)
    inode = folder.stat().st_ino
    if not recorded:
        (folder / RECORD).unlink()
    with DiskTier(tmp_path / "disk", store, trusted=frozenset()) as later:
        with monkeypatch.context() as patched:
            refuse_opening(patched, folder / name, number)
            with pytest.raises(StoreError, match="cannot read"):
                later.open_model("acme", published.version, published.digest)
        assert folder.stat().st_ino == inode
        store.down = True
        later.open_model("acme", published.version, published.digest)


def test_a_program_that_cannot_be_read_is_not_thrown_away(
    trusting: DiskTier, store: Counted, bag: Program, bag_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_program(store, bag_folder)
    folder = trusting.install_program(bag.digest)
    for path in (folder / PROGRAM_FILES, folder / "saved_model.pb"):
        with monkeypatch.context() as patched:
            refuse_opening(patched, path, errno.EMFILE)
            with pytest.raises(StoreError, match="cannot read"):
                trusting.install_program(bag.digest)
    store.down = True
    assert trusting.install_program(bag.digest) == folder


def refuse_opening(monkeypatch: pytest.MonkeyPatch, refused: Path, number: int) -> None:
    real_open, real_os_open = Path.open, os.open

    def path_open(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == refused:
            raise OSError(number, os.strerror(number))
        return real_open(path, *args, **kwargs)

    def os_open(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == refused:
            raise OSError(number, os.strerror(number))
        return real_os_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", path_open)
    monkeypatch.setattr(os, "open", os_open)


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


def test_models_of_tenants_that_are_not_kept_go_with_their_names(
    store: Counted, publish: Callable[..., Manifest], tmp_path: Path
) -> None:
    evicted: list[tuple[int, str]] = []
    told = lambda size, cause: evicted.append((size, cause))  # noqa: E731
    with DiskTier(
        tmp_path / "disk", store, trusted=frozenset(), budget_bytes=10**9, keep=lambda *_: True, on_evicted=told
    ) as tier:
        made = [publish(store, tenant, seed=seed) for tenant in ("acme", "globex") for seed in (1, 2)]
        for each in made:
            tier.install_model(each.tenant, each.version, each.digest)
        mapped = tier.open_model("acme", made[0].version, made[0].digest)
        before = tier.installed_bytes()
        assert tier.retain(lambda tenant: tenant == "globex") == 2
        assert os.listdir(tmp_path / "disk" / "models") == ["globex"]
        assert len(os.listdir(tmp_path / "disk" / "models" / "globex")) == 2
        assert list((tmp_path / "disk" / "incoming").iterdir()) == []
        assert tier.installed_bytes() * 2 == before
        assert evicted == [(before // 4, "left_fleet")] * 2
        assert mapped.tensors["kernel"].shape == (64, 16), "what is mapped stays so"
        assert tier.retain(lambda tenant: tenant == "globex") == 0
        tier.install_model("acme", made[0].version, made[0].digest)
        assert tier.has_model("acme", made[0].version), "it may come back"


def test_the_name_of_a_tenant_goes_where_its_models_have_gone(tier: DiskTier, tmp_path: Path) -> None:
    (tmp_path / "disk" / "models" / "acme").mkdir(parents=True)
    assert tier.retain(lambda _: False) == 0
    assert os.listdir(tmp_path / "disk" / "models") == []


def test_a_tier_that_is_not_there_has_nothing_to_remove(tier: DiskTier, tmp_path: Path) -> None:
    assert tier.retain(lambda _: False) == 0
    assert not (tmp_path / "disk").exists()


def test_what_a_killed_process_left_goes_with_the_next_tenant_too(
    tier: DiskTier, published: Manifest, tmp_path: Path
) -> None:
    """A process that runs for weeks sweeps more than once."""
    tier.install_model("acme", published.version, published.digest)
    left = tmp_path / "disk" / "incoming" / "old"
    left.mkdir()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(left, (two_days_ago, two_days_ago))
    tier.retain(lambda _: True)
    assert not left.exists()
    assert tier.has_model("acme", published.version)
