"""The journal on a real disk: what is in it after each way to fail, and who may have it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import registry
from registry.errors import FeedbackUnavailable
from serving.feedback import journal as module
from serving.feedback.journal import LONGEST_SECONDS, Journal, LeftJournal, Segment, claim_left, line_of

PROJECT = Path(registry.__file__).parent.parent


def make(root: Path, **changes: object) -> Journal:
    values: dict[str, object] = {"max_bytes": 1 << 20, "segment_bytes": 1 << 16, "segment_seconds": 3600.0}
    return Journal(root, **{**values, **changes})  # type: ignore[arg-type]


def append(journal: Journal, records: Sequence[bytes], **how: Any) -> None:
    journal.append([line_of(record) for record in records], **how)


def lines(segments: list[Segment]) -> list[bytes]:
    return [record for segment in segments for _, record in segment.records()]


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.journal"))


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes of this process beyond so many bytes of a file fail, the one across it in the middle: a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_records_come_back_in_order(tmp_path: Path) -> None:
    journal = make(tmp_path)
    append(journal, [b'{"a":1}', b'{"b":2}'], sync=True)
    append(journal, [b'{"c":3}'], sync=False)
    assert journal.sealed() == []
    journal.rotate(force=True)
    (segment,) = journal.sealed()
    assert lines([segment]) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']
    assert segment.number == 1
    assert journal.nbytes == segment.path.stat().st_size
    journal.remove(segment)
    assert journal.nbytes == 0
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_segment_is_sealed_by_size_and_by_age(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    journal = make(tmp_path, segment_bytes=100, segment_seconds=60.0, wall=lambda: now[0])
    append(journal, [b"x" * 100], sync=True)
    journal.rotate()
    assert len(journal.sealed()) == 1
    append(journal, [b"y"], sync=True)
    journal.rotate()
    assert len(journal.sealed()) == 1
    now[0] += 60
    journal.rotate()
    assert [segment.number for segment in journal.sealed()] == [1, 2]
    assert journal.sealed()[1].day == "2023-11-14"
    assert journal.oldest() == 1_700_000_000.0


def test_a_segment_of_many_tenants_waits_longer_up_to_a_bound(tmp_path: Path) -> None:
    now = [1e9]
    sizes = {"segment_bytes": 1 << 24, "max_bytes": 1 << 26}
    journal = make(tmp_path, segment_seconds=900.0, tenant_seconds=0.36, wall=lambda: now[0], **sizes)

    def age_of(tenants: int) -> float:
        """After how many seconds it is sealed, by the minute."""
        before = len(journal.sealed())
        began = now[0]
        append(journal, [b"{}"] * tenants, sync=False, tenants=[f"tenant-{n}" for n in range(tenants)])
        append(journal, [b"{}"], sync=False, tenants=["tenant-0"])
        while len(journal.sealed()) == before:
            now[0] += 60
            journal.rotate()
        return now[0] - began

    assert [age_of(1), age_of(2500), age_of(10_000)] == [900.0, 900.0, 3600.0]
    assert age_of(15_000) == 5400.0, "each segment counts its own"
    journal._tenant_seconds = 36.0
    assert age_of(10_000) == LONGEST_SECONDS


def test_a_segment_at_its_size_waits_for_its_tenants_time_unless_it_is_an_eighth_of_all(tmp_path: Path) -> None:
    now = [1e9]
    sizes = {"segment_bytes": 100, "max_bytes": 8 * 1000}
    journal = make(tmp_path, segment_seconds=900.0, tenant_seconds=36.0, wall=lambda: now[0], **sizes)
    append(journal, [b"x" * 200], sync=True, tenants=["acme", "globex"])
    now[0] += 71
    journal.rotate()
    assert journal.sealed() == []
    now[0] += 1
    journal.rotate()
    assert len(journal.sealed()) == 1
    append(journal, [b"x" * 990], sync=True, tenants=["acme", "globex"])
    journal.rotate()
    assert len(journal.sealed()) == 2


def test_records_are_where_they_are_said_to_be(tmp_path: Path) -> None:
    journal = make(tmp_path)
    append(journal, [b"whole", b"damaged", b"behind it"], sync=True)
    journal.rotate(force=True)
    (segment,) = journal.sealed()
    segment.path.write_bytes(segment.path.read_bytes().replace(b"damaged", b"dam\xffged"))
    data = segment.path.read_bytes()
    places = list(segment.records())
    assert [record for _, record in places] == [b"whole", b"behind it"]
    assert all(data[begin : begin + len(record)] == record for begin, record in places)


def test_what_waits_is_bounded_and_nothing_of_what_is_refused_is_written(tmp_path: Path) -> None:
    journal = make(tmp_path, max_bytes=100)
    append(journal, [b"x" * 60], sync=True)
    with pytest.raises(FeedbackUnavailable) as refused:
        append(journal, [b"y" * 60], sync=True)
    assert refused.value.retry_after_seconds == 30
    journal.rotate(force=True)
    assert lines(journal.sealed()) == [b"x" * 60]
    with pytest.raises(FeedbackUnavailable):
        append(journal, [b"y" * 60], sync=True)
    journal.remove(journal.sealed()[0])
    append(journal, [b"y" * 60], sync=True)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    journal = make(tmp_path)
    append(journal, [b"before"], sync=True)
    whole = files(tmp_path)[0].read_bytes()
    with file_size_limit(len(whole) + 50), pytest.raises(FeedbackUnavailable, match="cannot be written"):
        append(journal, [b"z" * 40, b"z" * 40], sync=True)  # the first fits, the second is cut
    assert files(tmp_path)[0].read_bytes() == whole
    append(journal, [b"after"], sync=True)
    journal.rotate(force=True)
    assert lines(journal.sealed()) == [b"before", b"after"]


def test_a_segment_that_could_not_be_synced_gets_no_more_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(tmp_path)
    append(journal, [b"before"], sync=True)
    with monkeypatch.context() as patch:

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(FeedbackUnavailable):
            append(journal, [b"lost"], sync=True)
    append(journal, [b"after"], sync=True)
    journal.rotate(force=True)
    assert [lines([segment]) for segment in journal.sealed()] == [[b"before"], [b"after"]]


@pytest.mark.parametrize("kept", range(1, 20))
def test_a_torn_record_is_not_read_and_those_before_it_are(tmp_path: Path, kept: int) -> None:
    journal = make(tmp_path)
    append(journal, [b"whole"], sync=True)
    before = files(tmp_path)[0].stat().st_size
    append(journal, [b"torn-record!"], sync=True)
    os.truncate(files(tmp_path)[0], before + kept)
    journal.rotate(force=True)
    assert lines(journal.sealed()) == [b"whole"]


def test_damage_costs_the_records_that_it_hits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = make(tmp_path)
    append(journal, [b"first", b"second", b"third"], sync=True)
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"second", b"se\0ond") + b"\0" * 100)
    journal.rotate(force=True)
    assert lines(journal.sealed()) == [b"first", b"third"]
    assert "lines of a journal are no records" in caplog.text


def test_a_journal_is_left_to_others_only_by_its_end(tmp_path: Path) -> None:
    journal = make(tmp_path)
    append(journal, [b"mine"], sync=True)
    assert claim_left(tmp_path) == []
    journal.close()
    (left,) = claim_left(tmp_path)
    assert claim_left(tmp_path) == []  # it is taken
    assert lines(left.segments) == [b"mine"]
    left.close()
    (left,) = claim_left(tmp_path)  # nothing was shipped, so it is there for the next one
    for segment in list(left.segments):
        left.remove(segment)
    left.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_synced_is_claimed(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from serving.feedback.journal import Journal, line_of
journal = Journal(Path({str(tmp_path)!r}), max_bytes=1 << 20, segment_bytes=1 << 16, segment_seconds=3600)
journal.append([line_of(b"kept")], sync=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = claim_left(tmp_path)
    assert lines(left.segments) == [b"kept"]
    left.close()


def test_a_folder_that_somebody_takes_as_it_is_made_is_left_to_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[LeftJournal] = []
    mkdir = Path.mkdir

    def make_and_lose(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        mkdir(self, mode, parents, exist_ok)
        if self.parent == tmp_path and not taken:
            taken.extend(claim_left(tmp_path))
            taken[0].close()

    monkeypatch.setattr(Path, "mkdir", make_and_lose)
    journal = make(tmp_path)
    append(journal, [b"mine"], sync=True)
    assert len(taken) == 1
    assert len(list(tmp_path.iterdir())) == 1
    journal.rotate(force=True)
    assert lines(journal.sealed()) == [b"mine"]


def test_other_things_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / ("0" * 16)).mkdir()
    (tmp_path / ("0" * 16) / "readme").write_text("hello")
    (left,) = claim_left(tmp_path)
    assert left.segments == []
    left.close()
    assert (tmp_path / ("0" * 16) / "readme").exists()


def test_no_record_is_added_before_the_file_has_a_name_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    journal = make(tmp_path / "feedback")
    append(journal, [b"x"], sync=True)
    (folder,) = (tmp_path / "feedback").iterdir()
    assert synced == [str(tmp_path / "feedback"), str(tmp_path), str(tmp_path.parent), str(folder)]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_journal_that_cannot_begin_keeps_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EMFILE, f"no descriptor is left for {path}")

    journal = Journal(tmp_path, max_bytes=1 << 20, segment_bytes=1 << 16, segment_seconds=3600)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_sync_folder", refuse)
        for _ in range(3):
            with pytest.raises(FeedbackUnavailable):
                append(journal, [b"{}"], sync=True)
    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []
    append(journal, [b"{}"], sync=True)
    journal.close()


def test_what_cannot_be_listed_is_left_for_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, max_bytes=1 << 20, segment_bytes=1 << 16, segment_seconds=3600)
    append(journal, [b"{}"], sync=True)
    journal.close()

    def refuse(path: Path) -> None:
        raise OSError(errno.EMFILE, f"no descriptor is left for {path}")

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        assert claim_left(tmp_path) == []
    assert descriptors() == before
    (left,) = claim_left(tmp_path)
    assert len(left.segments) == 1
    left.close()
