"""What is the local store's own: processes, crashes, links, folders and the entity tags it remembers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import registry
from registry.errors import InvalidInput, ObjectNotFound, StoreUnavailable
from registry.store import ObjectInfo, open_store
from registry.store.local import LocalStore

PROJECT = Path(registry.__file__).parent.parent

COUNT = """
import sys
from pathlib import Path
from registry.errors import PreconditionFailed
from registry.store.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
sys.stdin.read()
counted = 0
while counted < 100:
    seen = store.get("counter")
    try:
        store.put("counter", b"%d" % (int(seen.data) + 1), if_match=seen.etag)
    except PreconditionFailed:
        continue
    counted += 1
"""

DIE = """
import os, sys
from pathlib import Path
from registry.store.local import LocalStore

os.fsync = lambda descriptor: os._exit(9)
LocalStore(Path(sys.argv[1])).put("a/b", b"second")
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_processes_that_race_lose_no_update(store: LocalStore, tmp_path: Path) -> None:
    store.put("counter", b"0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "store")]
    racers = [subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE) for _ in range(3)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()  # go
    assert [racer.wait(60) for racer in racers] == [0, 0, 0]
    assert store.get("counter").data == b"300"


def test_a_crash_while_writing_leaves_the_old_object(store: LocalStore, tmp_path: Path) -> None:
    etag = store.put("a/b", b"first")
    command = [sys.executable, "-c", DIE, str(tmp_path / "store")]
    assert subprocess.run(command, cwd=PROJECT, check=False).returncode == 9
    assert len(list((tmp_path / "store" / ".tmp").iterdir())) == 1
    assert list(store.list()) == [ObjectInfo(key="a/b", size=5, etag=etag)]
    assert store.get("a/b").data == b"first"
    store.put("a/b", b"third", if_match=etag)
    assert store.get("a/b").data == b"third"


def test_a_failed_write_cleans_up_and_leaves_the_old_object(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"first")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.put("a", b"second")
    assert store.get("a").data == b"first"
    assert list((tmp_path / "store" / ".tmp").iterdir()) == []


def no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_nothing_is_made_before_the_first_write(store: LocalStore, tmp_path: Path) -> None:
    assert list(store.list()) == []
    with pytest.raises(ObjectNotFound):
        store.get("a")
    assert not (tmp_path / "store").exists()
    store.put("a/b", b"1")
    assert (tmp_path / "store" / "a" / "b").read_bytes() == b"1"


@pytest.mark.parametrize("place", ["file", "file/store"])
def test_a_root_that_is_no_folder_is_unavailable(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"1")
    store = LocalStore(tmp_path / place)
    calls: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.get_if_changed("a", "0" * 32),
        lambda: store.open("a"),
        lambda: store.head("a"),
        lambda: list(store.list()),
        lambda: list(store.list("a/b")),
        lambda: store.put("a", b""),
        lambda: store.put("a", b"", if_match="0" * 32),
        lambda: store.put_file("a", tmp_path / "file"),
        lambda: store.delete("a"),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match=r"file is not a folder\. .*MACROFLEET_STORE_URL"):
            call()
    assert (tmp_path / "file").read_bytes() == b"1"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc is the folder that refuses root too")
def test_a_root_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = LocalStore(Path("/proc/macrofleet"))
    assert list(store.list()) == []
    calls: list[Callable[[], object]] = [
        lambda: store.put("a", b""),
        lambda: store.put("a", b"", if_absent=True),
        lambda: store.put_file("a", tmp_path / "file"),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="permissions"):
            call()


def test_what_crashed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store").put("a", b"1")
    waiting = tmp_path / "store" / ".tmp"
    now = time.time()
    for name, age in {"old": 25 * 3600, "new": 23 * 3600}.items():
        (waiting / name).touch()
        os.utime(waiting / name, (now - age, now - age))
    again = LocalStore(tmp_path / "store")
    assert list(again.list())
    assert {path.name for path in waiting.iterdir()} == {"old", "new"}, "who only reads removes nothing"
    again.put("b", b"1")
    assert {path.name for path in waiting.iterdir()} == {"new"}


def test_links_inside_the_store_are_refused_and_not_listed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("inside", b"1")
    (tmp_path / "store" / "folder").symlink_to(outside)
    (tmp_path / "store" / "file").symlink_to(outside / "secret")
    (tmp_path / "store" / "dangling").symlink_to(outside / "new")
    for key in ("folder/secret", "folder/new", "file", "dangling"):
        for call in (
            lambda key=key: store.get(key),
            lambda key=key: store.open(key),
            lambda key=key: store.head(key),
            lambda key=key: store.put(key, b"2"),
            lambda key=key: store.put(key, b"2", if_absent=True),
            lambda key=key: store.delete(key),
        ):
            with pytest.raises(InvalidInput, match="symbolic link"):
                call()
    with pytest.raises(InvalidInput):
        store.list("folder/")
    assert [info.key for info in store.list()] == ["inside"]
    assert files(outside) == {"secret"}
    assert (outside / "secret").read_bytes() == b"secret"


def test_what_others_have_put_there_is_passed_over_and_can_be_removed(store: LocalStore, tmp_path: Path) -> None:
    store.put("a/b", b"1")
    theirs = tmp_path / "store" / "a" / "my notes.txt"
    theirs.write_text("what to buy")
    assert [info.key for info in store.list()] == ["a/b"]
    (found,) = (state for state in store.states() if state.key != "a/b")
    store.purge([found])
    assert not theirs.exists()
    with pytest.raises(InvalidInput):
        store.purge([replace(found, key="a/../../b")])


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    LocalStore(tmp_path / "link").put("a/b", b"1")
    assert LocalStore(tmp_path / "real").get("a/b").data == b"1"


def test_an_object_and_a_folder_cannot_share_a_name(store: LocalStore) -> None:
    store.put("a/b", b"1")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(InvalidInput, match="both an object and a folder"):
            store.put(key, b"2")
    assert [info.key for info in store.list()] == ["a/b"]


def test_delete_takes_emptied_folders_along(store: LocalStore, tmp_path: Path) -> None:
    store.put("a/b/c/d", b"1")
    store.put("a/e", b"2")
    store.delete("a/b/c/d")
    assert not (tmp_path / "store" / "a" / "b").exists()
    store.delete("a/e")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {".tmp", ".locks"}


def test_writing_into_a_folder_that_is_being_pruned(store: LocalStore) -> None:
    def put_and_delete(name: str) -> None:
        for _ in range(150):
            store.put(f"a/b/{name}", b"1")
            assert store.get(f"a/b/{name}").data == b"1"
            store.delete(f"a/b/{name}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put_and_delete, "wxyz"))
    assert list(store.list()) == []


def test_a_change_within_one_tick_of_the_clock_is_seen(store: LocalStore, tmp_path: Path) -> None:
    """An inode that is used again within a tick, with a body of the same size, is what this stands for."""
    store.put("a", b"first")
    path = tmp_path / "store" / "a"
    before = path.stat()
    first = store.head("a").etag
    path.write_bytes(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_ino == before.st_ino
    assert store.head("a").etag != first
    assert store.head("a").etag == store.get("a").etag


def test_a_settled_object_is_hashed_once(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", b"first")
    path = tmp_path / "store" / "a"
    an_hour_ago = path.stat().st_mtime_ns - 3_600_000_000_000
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    etag = store.head("a").etag
    path.write_bytes(b"other")  # behind the store's back: only who reads again can know
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    assert store.head("a").etag == etag
    assert [info.etag for info in store.list()] == [etag]
    assert store.get_if_changed("a", etag) is None
    store.put("a", b"third")
    assert store.head("a").etag not in (etag, LocalStore(tmp_path / "none").put("a", b"other"))


def test_objects_have_the_permissions_of_any_new_file(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", b"1")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "store" / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_url_survives_blanks_and_percent_signs(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "a 50% folder")
    store.put("a", b"1")
    settings = type("Settings", (), {"url": store.url})()
    assert open_store(settings).get("a").data == b"1"
