"""Streams on their way to disk: the right bytes or none, whatever the helpers are doing."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.disk import transfer
from registry.disk.transfer import Helpers, receive
from registry.errors import BundleCorrupt
from registry.files import FileDigest, FileState, file_state


class Dripping(io.RawIOBase):
    """A stream that hands out what it has in pieces of its own choosing."""

    def __init__(self, data: bytes, pieces: list[int]) -> None:
        self._data = io.BytesIO(data)
        self._pieces = iter(pieces)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, next(self._pieces, size)))


def expected_of(data: bytes) -> FileDigest:
    return FileDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def receive_from(stream: IO[bytes], path: Path, expected: FileDigest, helpers: Helpers) -> FileState:
    return receive(stream, path, expected, what="it", error=BundleCorrupt, helpers=helpers)


@pytest.mark.parametrize("closed", [False, True])
@given(data=st.binary(max_size=200), pieces=st.lists(st.integers(1, 50), max_size=20), chunk=st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, database=None)
def test_any_stream_arrives_in_order(tmp_path: Path, closed: bool, data: bytes, pieces: list[int], chunk: int) -> None:
    helpers = Helpers(2)
    if closed:
        helpers.close()
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(transfer, "_CHUNK", chunk)
        state = receive_from(Dripping(data, pieces), path, expected_of(data), helpers)  # type: ignore[arg-type]
    helpers.close()
    assert path.read_bytes() == data
    assert state == file_state(path.stat())


@pytest.mark.parametrize("other", [b"", b"conten", b"content.", b"Content", b"content" * 1_000_000])
def test_other_content_is_refused_and_not_written_without_end(tmp_path: Path, other: bytes) -> None:
    helpers = Helpers()
    with pytest.raises(BundleCorrupt, match="it is not what its manifest says"):
        receive_from(io.BytesIO(other), tmp_path / "file", expected_of(b"content"), helpers)
    helpers.close()
    assert (tmp_path / "file").stat().st_size <= len(b"content")


def test_a_stream_that_breaks_leaves_no_helper_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor is closed then, and may be another file's at once."""
    monkeypatch.setattr(transfer, "_CHUNK", 4)
    writing, broken = threading.Event(), threading.Event()
    real = transfer._pass_on
    finished: list[bool] = []

    def slow(*args: object) -> None:
        writing.set()
        broken.wait(60)
        real(*args)  # type: ignore[arg-type]
        finished.append(True)

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                writing.wait(60)
                broken.set()
                raise ConnectionError
            return super().read(size)

    monkeypatch.setattr(transfer, "_pass_on", slow)
    helpers = Helpers()
    with pytest.raises(ConnectionError):
        receive_from(Breaking(b"content"), tmp_path / "file", expected_of(b"content"), helpers)
    assert finished == [True]
    helpers.close()


def test_a_write_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    helpers = Helpers()
    with pytest.raises(OSError, match="No space left"):
        receive_from(io.BytesIO(b"content"), tmp_path / "file", expected_of(b"content"), helpers)
    helpers.close()


def test_a_task_that_no_helper_is_free_for_is_done_by_who_needs_it() -> None:
    helpers = Helpers(1)
    busy = threading.Event()
    blocked = helpers.start(lambda: busy.wait(60))
    assert helpers.start(threading.get_ident).finish() == threading.get_ident()
    busy.set()
    assert blocked.finish() is True
    helpers.close()


def test_what_a_dropped_task_brings_is_disposed_of() -> None:
    helpers = Helpers(1)
    begun, go = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go.wait(60)
        return "result"

    task = helpers.start(work)
    begun.wait(60)
    disposed: list[str] = []
    task.drop(disposed.append)
    assert disposed == []
    go.set()
    assert helpers.start(lambda: None).finish() is None
    helpers._pool.shutdown()
    assert disposed == ["result"]


def test_a_dropped_task_that_was_not_begun_never_is() -> None:
    helpers = Helpers(1)
    go = threading.Event()
    helpers.start(lambda: go.wait(60))
    begun = threading.Event()
    helpers.start(begun.set).drop(lambda _: None)
    go.set()
    helpers._pool.shutdown()
    assert not begun.is_set()
