"""Bundles mapped from a folder: every byte verified, no store asked."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.documents import canonical_json
from registry.errors import BundleCorrupt, StoreError
from registry.files import FileDigest, file_digest
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model import mapped, tensors
from registry.model.bundle import Label, Manifest, write_bundle
from registry.model.mapped import map_bundle
from registry.model.tensors import open_tensors

# Larger than what the kernel reads ahead of itself.
KERNEL = np.arange(512 * 1024, dtype=np.float32).reshape(8192, 64)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The folder of a model of the tenant `acme`."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    write(folder)
    return folder


def write(folder: Path, tenant: str = "acme") -> Manifest:
    return write_bundle(
        folder,
        tenant=tenant,
        program="a" * 64,
        tensors={"kernel": KERNEL},
        macros=[Label(id="m0", title="Zero"), Label(id="m1", title="One")],
        data_fingerprint="b" * 64,
        settings={},
        metrics={},
        threshold=0.25,
    )


@pytest.mark.parametrize("tenant", ["acme", None])
def test_a_whole_bundle_is_mapped(bundle: Path, tenant: str | None) -> None:
    found = map_bundle(bundle, tenant=tenant)
    assert found.manifest.tenant == "acme"
    assert [label.id for label in found.labels.macros] == ["m0", "m1"]
    np.testing.assert_array_equal(found.tensors["kernel"], KERNEL)
    assert found.nbytes == (bundle / WEIGHTS).stat().st_size
    assert found.path == bundle / WEIGHTS


def test_another_tenants_bundle_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleCorrupt, match="another tenant"):
        map_bundle(bundle, tenant="globex")


def test_the_manifests_word_on_the_tenant_is_not_taken_for_any_name(bundle: Path) -> None:
    manifest = Manifest.parse((bundle / MANIFEST).read_bytes(), what="manifest", error=BundleCorrupt)
    (bundle / MANIFEST).write_bytes(canonical_json({**manifest.model_dump(mode="json"), "tenant": "../acme"}))
    with pytest.raises(BundleCorrupt, match="not a tenant name"):
        map_bundle(bundle, tenant=None)


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(64))


@pytest.mark.parametrize("name", [WEIGHTS, LABELS, MANIFEST])
@pytest.mark.parametrize("damage", [flip, grow, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damage_is_found(bundle: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(bundle / name)
    with pytest.raises(BundleCorrupt):
        map_bundle(bundle, tenant=None)


@pytest.mark.parametrize("name", [WEIGHTS, LABELS])
def test_a_file_that_is_replaced_after_hashing_is_not_used(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes the place has the right size and shape, so that nothing else would refuse it."""

    def replaced_after_hashing(path: Path) -> FileDigest:
        found = file_digest(path)
        if path.name == name:
            other = path.with_name("other")
            other.write_bytes(path.read_bytes().replace(b"Zero", b"Nill"))
            other.replace(path)
        return found

    monkeypatch.setattr(mapped, "file_digest", replaced_after_hashing)
    with pytest.raises(BundleCorrupt, match="changed while"):
        map_bundle(bundle, tenant=None)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", [WEIGHTS, LABELS, MANIFEST])
def test_what_is_there_and_cannot_be_read_is_not_called_corrupt(
    bundle: Path, number: int, name: str, refusing: Callable[[Callable[[Path], bool], int], None]
) -> None:
    refusing(lambda path: path == bundle / name, number)
    with pytest.raises(StoreError, match="cannot read"):
        map_bundle(bundle, tenant=None)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], bool], int], None]:
    """Has every way of opening certain files fail with an error number."""

    def refuse(which: Callable[[Path], bool], number: int) -> None:
        def fails(path: object) -> bool:
            return isinstance(path, str | Path) and which(Path(path))

        real_open, real_os_open = Path.open, os.open

        def path_open(self: Path, *args: object, **kwargs: object) -> object:
            if fails(self):
                raise OSError(number, os.strerror(number), str(self))
            return real_open(self, *args, **kwargs)  # type: ignore[call-overload]

        def os_open(path: object, *args: object, **kwargs: object) -> int:
            if fails(path):
                raise OSError(number, os.strerror(number), str(path))
            return real_os_open(path, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "open", path_open)
        monkeypatch.setattr(os, "open", os_open)

    return refuse


# Pages


def mapped_pages(path: Path) -> int:
    """How many of a file's pages are in this process's page table, by `/proc/self/smaps`."""
    rss = 0
    counting = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            counting = line.endswith(str(path))
        elif counting and line.startswith("Rss:"):
            rss += int(line.split()[1])
    return rss * 1024 // mmap.PAGESIZE


def cached(path: Path) -> int:
    """How many of a file's pages the page cache holds, by `mincore`."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapping:
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(mapping, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        assert libc.mincore(view.ctypes.data, size, pages.ctypes.data) == 0
        del view
        return int((pages & 1).sum())


def drop_from_cache(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)  # only clean pages can be dropped
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def test_a_model_that_is_not_in_memory_is_read_in_before_the_first_touch(bundle: Path) -> None:
    path = bundle / WEIGHTS
    drop_from_cache(path)
    if cached(path):
        pytest.skip("this file system does not drop pages")
    opened = open_tensors(path)
    assert cached(path) == -(-path.stat().st_size // mmap.PAGESIZE)
    np.testing.assert_array_equal(opened.tensors["kernel"], KERNEL)


def test_a_model_that_is_in_memory_is_not_read_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / WEIGHTS).read_bytes()
    monkeypatch.setattr(tensors, "read_in", lambda _: pytest.fail("it is read again"))
    opened = open_tensors(bundle / WEIGHTS)
    assert mapped_pages(bundle / WEIGHTS) == 0
    np.testing.assert_array_equal(opened.tensors["kernel"], KERNEL)


def test_a_file_that_cannot_be_read_in_is_reported_instead_of_ending_the_process_later(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    drop_from_cache(bundle / WEIGHTS)
    if cached(bundle / WEIGHTS):
        pytest.skip("this file system does not drop pages")
    monkeypatch.setattr(tensors, "read_in", fail)
    with pytest.raises(StoreError, match="cannot read"):
        open_tensors(bundle / WEIGHTS)


def test_a_models_memory_is_given_back_and_it_stays_usable(bundle: Path) -> None:
    drop_from_cache(bundle / WEIGHTS)
    droppable = cached(bundle / WEIGHTS) == 0
    found = map_bundle(bundle, tenant=None)
    np.testing.assert_array_equal(found.tensors["kernel"], KERNEL)
    assert found.path is not None
    assert mapped_pages(found.path) > 0
    found.forget_pages()
    assert mapped_pages(found.path) == 0
    if droppable:
        assert cached(found.path) == 0
    np.testing.assert_array_equal(found.tensors["kernel"], KERNEL)


def test_forgetting_the_pages_of_a_model_that_is_no_longer_on_disk_is_harmless(bundle: Path) -> None:
    found = map_bundle(bundle, tenant=None)
    (bundle / WEIGHTS).unlink()
    found.forget_pages()
    np.testing.assert_array_equal(found.tensors["kernel"], KERNEL)
