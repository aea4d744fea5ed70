"""The contract of `ObjectStore`, passed by both adapters, and how `open_store` and the S3 adapter refuse."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, StoreUnavailable
from registry.seaweedfs import LocalS3
from registry.settings import StoreSettings
from registry.store import ObjectInfo, ObjectStore, check_key, open_store
from tests.buckets import s3_client

SEGMENT = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
KEYS = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


def is_no_key(text: str) -> bool:
    with suppress(InvalidInput):
        check_key(text)
        return False
    return True


NO_KEYS = st.one_of(
    st.text(max_size=30),
    st.builds("{}/{}/{}".format, SEGMENT, st.sampled_from(["", ".", "..", ".tmp", "a b", "é", "a\n", "\0"]), SEGMENT),
).filter(is_no_key)


@pytest.fixture(params=["local", "s3", "versioned"])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    if request.param == "local":
        return StoreSettings(url=str(tmp_path / "store"))
    found: StoreSettings = request.getfixturevalue(f"{request.param}_settings")
    return found


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return open_store(store_settings)


class TestContract:
    def test_an_object_goes_through_its_life(self, store: ObjectStore) -> None:
        etag = store.put("a/b.json", b"one")
        assert '"' not in etag
        assert store.get("a/b.json").data == b"one"
        assert store.get("a/b.json").etag == etag
        assert store.head("a/b.json") == ObjectInfo(key="a/b.json", size=3, etag=etag)
        assert list(store.list()) == [ObjectInfo(key="a/b.json", size=3, etag=etag)]

        second = store.put("a/b.json", b"other")
        assert second != etag
        assert store.get("a/b.json").data == b"other"
        assert store.head("a/b.json") == ObjectInfo(key="a/b.json", size=5, etag=second)

        store.delete("a/b.json")
        store.delete("a/b.json")
        assert list(store.list()) == []
        with pytest.raises(ObjectNotFound, match=r"a/b\.json"):
            store.get("a/b.json")

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        store.put("a/b/c", b"")
        for absent in ("a", "a/b", "a/b/d", "a/b/c/d", "b"):
            with pytest.raises(ObjectNotFound):
                store.get(absent)
            with pytest.raises(ObjectNotFound):
                store.get_if_changed(absent, None)
            with pytest.raises(ObjectNotFound):
                store.get_if_changed(absent, "0" * 32)
            with pytest.raises(ObjectNotFound):
                store.head(absent)
            with pytest.raises(ObjectNotFound):
                store.open(absent)
            store.delete(absent)
        assert store.get("a/b/c").data == b""

    def test_an_object_may_be_empty(self, store: ObjectStore, tmp_path: Path) -> None:
        etag = store.put("empty", b"")
        assert store.get("empty", max_bytes=0).data == b""
        assert store.head("empty") == ObjectInfo(key="empty", size=0, etag=etag)
        (tmp_path / "empty").touch()
        assert store.put_file("empty", tmp_path / "empty") == etag
        with store.open("empty") as stream:
            assert stream.read() == b""

    def test_the_same_content_has_the_same_tag(self, store: ObjectStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"content")
        tags = {store.put("a", b"content"), store.put("b", b"content"), store.put_file("c", tmp_path / "file")}
        assert len(tags) == 1

    def test_another_opening_of_the_same_place_sees_the_objects(
        self, store: ObjectStore, store_settings: StoreSettings
    ) -> None:
        store.put("a", b"1")
        again = open_store(store_settings.model_copy(update={"url": store.url}))
        assert again.url == store.url
        assert again.get("a") == store.get("a")

    # Listing

    def test_list_takes_any_string_prefix_and_sorts_by_key(self, store: ObjectStore) -> None:
        keys = ["o/a-b", "o/a.c", "o/a/b", "o/a/b2", "o/a/c/d", "o/a0", "o/ab", "oa", "p/a"]
        for key in reversed(keys):
            store.put(key, key.encode())

        def listed(prefix: str) -> list[str]:
            return [info.key for info in store.list(prefix)]

        assert listed("") == keys == sorted(keys)
        for prefix in ("o", "o/", "o/a", "o/a/", "o/a/b", "o/a/b2", "o/a.", "q", "q/r/", "oa/"):
            assert listed(prefix) == [key for key in keys if key.startswith(prefix)], prefix

    @pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../", ".tmp", "a b"])
    def test_list_refuses_what_no_key_starts_with(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(InvalidInput):
            store.list(prefix)

    def test_names_are_what_comes_next_in_keys_and_nothing_further_below(self, store: ObjectStore) -> None:
        keys = ["o/a-b", "o/a/b", "o/a/b2", "o/a/c/d", "o/a.c/e", "o/a0", "oa", "p/a/b/c"]
        for key in keys:
            store.put(key, key.encode())

        def expected(prefix: str) -> list[str]:
            return sorted({key.removeprefix(prefix).split("/")[0] for key in keys if key.startswith(prefix)})

        for prefix in ("", "o/", "o/a/", "o/a/c/", "p/", "p/a/", "q/", "o/a0/", "oa/"):
            assert list(store.names(prefix)) == expected(prefix), prefix
        assert list(store.names("o/")) == ["a", "a-b", "a.c", "a0"]

    def test_what_was_deleted_has_no_name_but_for_folders_that_a_server_keeps(self, store: ObjectStore) -> None:
        for key in ("a/b/c", "a/d", "e/f/g/h"):
            store.put(key, b"x")
        for key in ("a/b/c", "a/d"):
            store.delete(key)
        kept = {"a"} if store.url.startswith("s3:") else set()
        assert {"e"} <= set(store.names()) <= {"e"} | kept
        assert set(store.names("a/")) <= ({"b"} if kept else set())
        store.put("a/b/c", b"x")
        assert (list(store.names()), list(store.names("a/"))) == (["a", "e"], ["b"])

    @pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "a/../", ".tmp/", "a b/"])
    def test_names_refuses_what_is_no_folder(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(InvalidInput):
            store.names(prefix)

    def test_listing_and_purging_go_past_one_page(self, store: ObjectStore) -> None:
        keys = [f"many/{number:04}" for number in range(1_100)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        assert [info.key for info in store.list("many/")] == keys
        assert [f"many/{name}" for name in store.names("many/")] == keys
        states = list(store.states("many/"))
        assert sorted(state.key for state in states) == keys
        store.purge(iter(states))
        assert list(store.states()) == []

    # Conditions

    def test_create_only_where_nothing_is(self, store: ObjectStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"third")
        etag = store.put("a/b", b"first", if_absent=True)
        with pytest.raises(PreconditionFailed):
            store.put("a/b", b"second", if_absent=True)
        with pytest.raises(PreconditionFailed):
            store.put_file("a/b", tmp_path / "file", if_absent=True)
        assert store.get("a/b").data == b"first"
        assert store.get("a/b").etag == etag
        store.delete("a/b")
        store.put_file("a/b", tmp_path / "file", if_absent=True)
        assert store.get("a/b").data == b"third"

    def test_replace_only_what_one_has_read(self, store: ObjectStore) -> None:
        first = store.put("a/b", b"first")
        second = store.put("a/b", b"second", if_match=first)
        with pytest.raises(PreconditionFailed):
            store.put("a/b", b"third", if_match=first)
        assert store.get("a/b").data == b"second"
        assert store.put("a/b", b"third", if_match=second) == store.head("a/b").etag

    def test_replacing_what_is_not_there_fails_and_writes_nothing(self, store: ObjectStore) -> None:
        etag = store.put("a/b", b"first")
        store.delete("a/b")
        for key in ("a/b", "never/was"):
            with pytest.raises(PreconditionFailed):
                store.put(key, b"second", if_match=etag)
        assert list(store.list()) == []

    def test_a_refusal_says_what_to_do(self, store: ObjectStore) -> None:
        store.put("a", b"12345")
        calls: list[Callable[[], object]] = [
            lambda: store.put("a", b"", if_absent=True),
            lambda: store.put("a", b"", if_match="0" * 32),
            lambda: store.put("b", b"", if_match="0" * 32),
            lambda: store.get("a", max_bytes=4),
        ]
        for call in calls:
            with pytest.raises((PreconditionFailed, InvalidInput)) as caught:
                call()
            assert caught.value.remedy

    def test_two_conditions_at_once_are_refused(self, store: ObjectStore) -> None:
        with pytest.raises(InvalidInput):
            store.put("a", b"", if_match="0" * 32, if_absent=True)

    # Four keys at a time: SeaweedFS keeps some losers waiting for a second, and they may as well wait together.

    def test_one_of_eight_creators_wins_each_round(self, store: ObjectStore) -> None:
        def race_to_create(key: str) -> None:
            winners = race(lambda body: store.put(key, body, if_absent=True))
            assert len(winners) == 1
            assert (store.get(key).data, store.get(key).etag) == winners[0]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(race_to_create, (f"rounds/{number}" for number in range(8))))

    def test_one_of_eight_replacers_wins_each_round(self, store: ObjectStore) -> None:
        def race_to_replace(key: str) -> None:
            for _ in range(2):
                etag = store.put(key, b"start")
                winners = race(lambda body: store.put(key, body, if_match=etag))  # noqa: B023 - called in this round
                assert len(winners) == 1
                assert (store.get(key).data, store.get(key).etag) == winners[0]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(race_to_replace, (f"rounds/{number}" for number in range(4))))

    # Reading

    def test_get_if_changed_reads_only_what_changed(self, store: ObjectStore) -> None:
        first = store.put("a", b"first")
        assert store.get_if_changed("a", None) == store.get("a")
        assert store.get_if_changed("a", first) is None
        store.put("a", b"second")
        changed = store.get_if_changed("a", first)
        assert changed == store.get("a")
        assert store.get_if_changed("a", store.head("a").etag) is None

    def test_a_large_object_is_refused_before_it_is_read(self, store: ObjectStore) -> None:
        etag = store.put("a", b"12345")
        assert store.get("a", max_bytes=5).data == b"12345"
        with pytest.raises(InvalidInput, match=r"5 bytes, more than the 4"):
            store.get("a", max_bytes=4)
        with pytest.raises(InvalidInput):
            store.get_if_changed("a", "0" * 32, max_bytes=4)
        assert store.get_if_changed("a", etag, max_bytes=4) is None

    def test_a_stream_hands_out_the_bytes_in_order(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 12_000
        store.put("a", data)
        with store.open("a") as stream:
            pieces = [stream.read(10), stream.read(0), stream.read(1_000_000), stream.read()]
            assert stream.read(1) == b""
        assert b"".join(pieces) == data
        assert [len(piece) for piece in pieces[:3]] == [10, 0, 1_000_000]

    def test_a_stream_may_be_closed_early(self, store: ObjectStore) -> None:
        store.put("a", b"x" * 3_000_000)
        before = open_files()
        closed = []
        for _ in range(40):
            with store.open("a") as stream:
                assert stream.read(1) == b"x"
            closed.append(stream)
        assert open_files() < before + 10

    def test_a_file_is_stored_as_it_is(self, store: ObjectStore, tmp_path: Path) -> None:
        data = bytes(range(251)) * 20_000
        (tmp_path / "file").write_bytes(data)
        etag = store.put_file("a/file", tmp_path / "file")
        assert store.get("a/file").data == data
        assert store.head("a/file") == ObjectInfo(key="a/file", size=len(data), etag=etag)

    def test_a_file_that_cannot_be_read_is_no_missing_object(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.put_file("a", tmp_path / "absent")

    def test_a_reader_never_sees_a_part_of_a_write(self, store: ObjectStore) -> None:
        bodies = {letter: letter * 600_000 for letter in (b"a", b"b")}
        tags = {letter: store.put("a", body) for letter, body in bodies.items()}
        written = threading.Event()

        def read() -> int:
            reads = 0
            while not written.is_set():
                stored = store.get("a")
                letter = stored.data[:1]
                assert stored.data == bodies[letter]
                assert stored.etag == tags[letter]
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for _ in range(15):
                    for body in bodies.values():
                        store.put("a", body)
            finally:
                written.set()
            assert all(reader.result() for reader in readers)

    # What is kept

    def test_what_is_kept_is_listed_with_its_age(self, store: ObjectStore) -> None:
        before = time.time() - 2  # some stores count whole seconds
        store.put("a/b", b"12")
        store.put("a/c", b"1")
        store.put("b/a", b"")
        found = {state.key: state for state in store.states("a/")}
        assert {key: (state.kind, state.size) for key, state in found.items()} == {
            "a/b": ("current", 2),
            "a/c": ("current", 1),
        }
        assert all(before <= state.modified <= time.time() + 1 for state in found.values())
        assert {state.key for state in store.states()} == {"a/b", "a/c", "b/a"}
        assert list(store.states("a/bc")) == []

    def test_what_is_purged_is_gone_for_good(self, store: ObjectStore, store_settings: StoreSettings) -> None:
        store.put("a/b", b"first")
        store.put("a/b", b"other")
        store.put("a/c", b"1")
        store.delete("a/c")
        store.put("ab", b"1")
        states = list(store.states("a/"))
        kinds = Counter((state.key, state.kind) for state in states)
        if "versioned" in store_settings.url:
            assert kinds == {
                ("a/b", "current"): 1,
                ("a/b", "noncurrent"): 1,
                ("a/c", "noncurrent"): 1,
                ("a/c", "marker"): 1,
            }
        else:
            assert kinds == {("a/b", "current"): 1}
        store.purge(states)
        store.purge(states)
        assert list(store.states("a/")) == []
        with pytest.raises(ObjectNotFound):
            store.get("a/b")
        assert store.get("ab").data == b"1"
        store.put("a/b", b"again", if_absent=True)
        assert store.get("a/b").data == b"again"

    def test_a_purge_leaves_what_was_written_since(self, store: ObjectStore, store_settings: StoreSettings) -> None:
        store.put("a", b"same")
        states = list(store.states())
        store.put("a", b"same")
        store.purge(states)
        if store_settings.url.startswith("s3:") and "versioned" not in store_settings.url:
            assert list(store.states()) == [], "a bucket without versions cannot tell: who purges must know"
        else:
            assert store.get("a").data == b"same"
            assert [state.kind for state in store.states()] == ["current"]

    @pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../", ".tmp", "a b"])
    def test_states_refuses_what_no_key_starts_with(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(InvalidInput):
            store.states(prefix)

    # Keys

    @given(bad=NO_KEYS)
    @example(bad="")
    @example(bad="..")
    @example(bad="a/../../b")
    @example(bad="/etc/passwd")
    @example(bad=".tmp/a")
    @example(bad=".locks/00")
    @example(bad="a/")
    @example(bad="a\n")
    @example(bad="a" * 513)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, database=None)
    def test_no_method_takes_what_is_no_key(self, store: ObjectStore, tmp_path: Path, bad: str) -> None:
        (tmp_path / "file").touch()
        calls: list[Callable[[], object]] = [
            lambda: store.get(bad),
            lambda: store.get_if_changed(bad, None),
            lambda: store.open(bad),
            lambda: store.head(bad),
            lambda: store.put(bad, b""),
            lambda: store.put_file(bad, tmp_path / "file"),
            lambda: store.delete(bad),
        ]
        for call in calls:
            with pytest.raises(InvalidInput):
                call()

    @given(key=KEYS, data=st.binary(max_size=64))
    @example(key="a" * 200 + "/" + "b" * 200, data=b"long")
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, database=None, max_examples=25
    )
    def test_every_key_holds_every_content(self, store: ObjectStore, key: str, data: bytes) -> None:
        etag = store.put(key, data)
        assert store.get(key).data == data
        assert list(store.list()) == list(store.list(key)) == [ObjectInfo(key=key, size=len(data), etag=etag)]
        store.delete(key)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def race(write: Callable[[bytes], str]) -> list[tuple[bytes, str]]:
    """Let eight threads write at once; the body and the tag of each that was not refused."""
    barrier = threading.Barrier(8)

    def attempt(number: int) -> tuple[bytes, str] | None:
        body = f"writer {number}".encode()
        barrier.wait()
        try:
            return body, write(body)
        except PreconditionFailed:
            return None

    with ThreadPoolExecutor(8) as pool:
        return [outcome for outcome in pool.map(attempt, range(8)) if outcome is not None]


class TestOpening:
    def test_a_path_and_a_file_url_name_the_same_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "a folder"
        open_store(StoreSettings(url=str(folder))).put("a", b"1")
        assert open_store(StoreSettings(url=folder.as_uri())).get("a").data == b"1"

    def test_prefixes_of_one_bucket_are_apart(self, s3_settings: StoreSettings) -> None:
        below = open_store(s3_settings.model_copy(update={"url": f"{s3_settings.url}/below/"}))
        below.put("a", b"1")
        assert [info.key for info in open_store(s3_settings).list()] == ["below/a"]
        assert [info.key for info in below.list()] == ["a"]
        assert below.url == f"{s3_settings.url}/below"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            " ",
            "http://bucket/prefix",
            "gs://bucket",
            "s3://",
            "s3:///prefix",
            "s3://Bucket/prefix",
            "s3://bucket/../prefix",
            "s3://bucket/a//b",
            "s3://bucket/prefix?x=1",
            "s3://key:hunter2@bucket/prefix",
            "s3://[bucket/prefix",
            "file://",
            "file:///",
            "file://elsewhere/folder",
        ],
    )
    def test_a_url_that_names_no_store_is_refused_with_a_remedy(self, url: str) -> None:
        with pytest.raises(InvalidInput, match="MACROFLEET_STORE_URL") as caught:
            open_store(StoreSettings(url=url))
        assert "hunter2" not in everything_said(caught.value)

    @pytest.mark.parametrize("endpoint", ["", "localhost:8333", "ftp://host", "http://", "http://key:hunter2@host"])
    def test_an_endpoint_is_a_plain_http_address(self, endpoint: str) -> None:
        with pytest.raises(InvalidInput, match="MACROFLEET_STORE_ENDPOINT_URL") as caught:
            open_store(StoreSettings(url="s3://bucket", endpoint_url=endpoint))
        assert "hunter2" not in everything_said(caught.value)

    def test_one_key_without_the_other_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="MACROFLEET_STORE_SECRET_KEY"):
            open_store(StoreSettings(url="s3://bucket", access_key="key"))
        with pytest.raises(InvalidInput, match="MACROFLEET_STORE_ACCESS_KEY"):
            open_store(StoreSettings(url="s3://bucket", secret_key=SecretStr("hunter2")))

    def test_settings_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MACROFLEET_STORE_URL", "s3://bucket/prefix")
        monkeypatch.setenv("MACROFLEET_STORE_SECRET_KEY", "hunter2")
        found = StoreSettings()
        assert found.url == "s3://bucket/prefix"
        assert "hunter2" not in repr(found)

    def test_boto3_is_imported_for_s3_only(self) -> None:
        code = (
            "import sys, types; from registry.store import open_store;"
            "open_store(types.SimpleNamespace(url='somewhere'));"
            "sys.exit('boto3' in sys.modules or 'pydantic' in sys.modules)"
        )
        root = Path(sys.modules["registry"].__file__ or "").parent.parent
        assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


class TestUnfinished:
    """Writes that were given up: nobody reads them, and they take room."""

    def test_in_a_folder(self, tmp_path: Path) -> None:
        store = open_store(StoreSettings(url=str(tmp_path / "store")))
        store.put("a/b", b"1")
        waiting = tmp_path / "store" / ".tmp"
        long = "a/" + "b" * 200 + "/c"
        for key in ("a/b", "c", long):
            (waiting / f"{key.replace('/', '+')[:180]}+{'0' * 32}").write_bytes(b"123")
        (waiting / ("1" * 32)).touch()  # of a release that did not say whose it is
        found = [state for state in store.states() if state.kind == "unfinished"]
        assert sorted((state.key, state.size) for state in found) == [("", 0), ("a/b", 3), (long[:180], 3), ("c", 3)]
        for prefix in ("a/b", f"a/{'b' * 190}"):
            assert any(state.kind == "unfinished" for state in store.states(prefix)), prefix
        store.purge(state for state in store.states("a/") if state.kind == "unfinished")
        assert sorted(path.name[:2] for path in waiting.iterdir()) == ["11", "c+"]
        assert store.get("a/b").data == b"1"

    def test_in_a_bucket(self, s3_settings: StoreSettings) -> None:
        store = open_store(s3_settings)
        store.put("a/b", b"1")
        bucket, _, prefix = s3_settings.url.removeprefix("s3://").partition("/")
        with s3_client(s3_settings) as client:
            for key in ("a/b", "c"):
                client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{key}")
        found = [state for state in store.states() if state.kind == "unfinished"]
        assert sorted(state.key for state in found) == ["a/b", "c"]
        assert all(time.time() - 60 < state.modified < time.time() + 2 for state in found)
        unfinished = [state for state in store.states("a/") if state.kind == "unfinished"]
        assert [state.key for state in unfinished] == ["a/b"]
        store.purge(unfinished)
        store.purge(unfinished)
        assert sorted((state.key, state.kind) for state in store.states()) == [("a/b", "current"), ("c", "unfinished")]


class TestOthers:
    """What somebody else keeps in the same bucket."""

    def test_is_passed_over(self, s3_settings: StoreSettings) -> None:
        store = open_store(s3_settings)
        store.put("a/b", b"1")
        bucket, _, prefix = s3_settings.url.removeprefix("s3://").partition("/")
        with s3_client(s3_settings) as client:
            for key in ("a/day=1/x y.json", ".hidden", "a/é"):
                client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"theirs")
        assert [info.key for info in store.list()] == ["a/b"]
        assert len(list(store.states())) == 4
        store.purge(store.states())
        assert list(store.states()) == []


class TestRefusals:
    """What the S3 adapter makes of servers that refuse, fail or are not there."""

    def test_an_identity_that_may_only_read(self, s3_server: LocalS3, s3_settings: StoreSettings) -> None:
        etag = open_store(s3_settings).put("a", b"1")
        reader_settings = s3_server.reader_settings.model_copy(update={"url": s3_settings.url})
        reader = open_store(reader_settings)
        assert reader.get("a").data == b"1"
        assert [info.key for info in reader.list()] == ["a"]
        for call in (
            lambda: reader.put("a", b"2", if_match=etag),
            lambda: reader.delete("a"),
        ):
            with pytest.raises(StoreUnavailable, match="refuses these credentials") as caught:
                call()
            assert_no_secret(caught.value, reader_settings)
        with pytest.raises(StoreUnavailable, match=r"refuses these credentials|did not delete 1 of 1") as caught:
            reader.purge(reader.states())
        assert_no_secret(caught.value, reader_settings)
        assert reader.get("a").data == b"1"

    def test_a_wrong_secret(self, s3_settings: StoreSettings) -> None:
        wrong_settings = s3_settings.model_copy(update={"secret_key": SecretStr("hunter2hunter2")})
        wrong = open_store(wrong_settings)
        calls: list[Callable[[], object]] = [
            lambda: wrong.get("a"),
            lambda: wrong.head("a"),
            lambda: wrong.put("a", b"", if_absent=True),
            lambda: list(wrong.list()),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="MACROFLEET_STORE_SECRET_KEY") as caught:
                call()
            assert wrong.url in str(caught.value)
            assert str(s3_settings.endpoint_url) in str(caught.value)
            assert_no_secret(caught.value, wrong_settings)

    def test_a_bucket_that_is_not_there(self, s3_settings: StoreSettings) -> None:
        elsewhere = open_store(s3_settings.model_copy(update={"url": "s3://no-such-bucket"}))
        for call in (lambda: elsewhere.get("a"), lambda: elsewhere.put("a", b"")):
            with pytest.raises(StoreUnavailable, match="no such bucket"):
                call()

    def test_a_server_that_is_not_there_is_noticed_soon(
        self, s3_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=waits.append))
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{unused.getsockname()[1]}"
            nobody = open_store(s3_settings.model_copy(update={"endpoint_url": address}))
            with pytest.raises(StoreUnavailable, match=address) as caught:
                nobody.get("a")
        assert len(waits) == 3
        assert sum(waits) < 10
        assert_no_secret(caught.value, s3_settings)

    def test_amazons_404_to_if_match_on_a_missing_key(self, answering: Answering) -> None:
        store = answering(404, error_body("NoSuchKey"))
        with pytest.raises(PreconditionFailed):
            store.put("a", b"", if_match="0" * 32)
        with pytest.raises(ObjectNotFound):
            store.get("a")

    def test_amazons_409_when_two_conditional_writes_meet(
        self, answering: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one may come to nothing, so that nobody's is there: it is known once both are over."""
        monkeypatch.setattr("registry.store.s3._CONFLICT_WAIT_SECONDS", 0.001)
        (tmp_path / "content").write_bytes(b"content")
        conflict = error_body("ConditionalRequestConflict")
        store = answering(409, conflict)
        answering.then = [(200, b"")]
        assert store.put_file("a", tmp_path / "content", if_absent=True) == "0123"
        assert answering.bodies == [b"content", b"content"]
        store = answering(409, conflict)
        answering.then = [(412, error_body("PreconditionFailed"))]
        with pytest.raises(PreconditionFailed):
            store.put("a", b"", if_absent=True)
        with pytest.raises(PreconditionFailed):
            answering(409, conflict).put("a", b"", if_absent=True)
        assert answering.requests == Counter({"PUT": 2 + 2 + 4})

    @pytest.mark.parametrize("code", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
    def test_a_wrong_region_is_named(self, answering: Answering, code: str) -> None:
        with pytest.raises(StoreUnavailable, match="MACROFLEET_STORE_REGION"):
            answering(400, error_body(code)).put("a", b"")

    def test_a_missing_bucket_is_never_a_failed_condition(self, answering: Answering) -> None:
        with pytest.raises(StoreUnavailable, match="no such bucket"):
            answering(404, error_body("NoSuchBucket")).put("a", b"", if_match="0" * 32)

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_server_that_fails_is_asked_four_times(self, answering: Answering, status: int) -> None:
        store = answering(status, error_body("SlowDown"))
        with pytest.raises(StoreUnavailable, match=f"{status} SlowDown"):
            store.put("a", b"content")
        assert answering.requests == Counter({"PUT": 4})

    def test_an_answer_that_breaks_off_is_not_content(self, answering: Answering) -> None:
        store = answering(200, b"ten bytes.", claimed=1_000_000)
        with pytest.raises(StoreUnavailable):
            store.get("a")
        with store.open("a") as stream, pytest.raises(StoreUnavailable):
            stream.read()
        with store.open("a") as stream, pytest.raises(StoreUnavailable):
            list(iter(lambda: stream.read(4), b""))


class Answering:
    """A server that gives every request one answer; calling it sets the answer and returns a store there.

    Attributes:
        then: answers to the requests after the first.
        bodies: of requests, as they came in.
    """

    def __init__(self, port: int) -> None:
        self.requests: Counter[str] = Counter()
        self.status = 200
        self.body = b""
        self.claimed = 0
        self.then: list[tuple[int, bytes]] = []
        self.bodies: list[bytes] = []
        self._port = port

    def __call__(self, status: int, body: bytes, *, claimed: int | None = None) -> ObjectStore:
        self.status, self.body, self.claimed = status, body, len(body) if claimed is None else claimed
        return open_store(
            StoreSettings(
                url="s3://bucket/prefix",
                endpoint_url=f"http://127.0.0.1:{self._port}",
                region="us-east-1",
                access_key="key",
                secret_key=SecretStr("hunter2"),
            )
        )


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # or a PUT waits a second for "100 Continue"

        def answer(self) -> None:
            state.requests[self.command] += 1
            state.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, body, claimed = state.status, state.body, state.claimed
            if state.then:  # before it is answered: the next request may follow at once
                state.status, state.body = state.then.pop(0)
                state.claimed = len(state.body)
            self.send_response(status)
            self.send_header("ETag", '"0123"')
            self.send_header("Content-Length", str(claimed))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = Answering(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>hunter2</Message></Error>".encode()


def everything_said(error: BaseException) -> str:
    """The message and the chain of causes, as a log would have them."""
    return "".join(traceback.format_exception(error))


def assert_no_secret(error: BaseException, used: StoreSettings) -> None:
    assert used.secret_key is not None
    assert used.secret_key.get_secret_value() not in everything_said(error)
