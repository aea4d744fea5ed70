import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.fleets import publish_tenants
from registry.bundle import Manifest
from registry.disk_tier import DiskTier
from registry.errors import BundleCorrupt, ModelNotFound, ProgramCorrupt, ProgramUntrusted, StoreUnavailable
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
        tier.install_model("acme", "0" * 16, published.digest)


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
