"""What a bench is compared with: work of the same kind that is none of ours, measured in the same run.

Machines differ, and one machine differs from hour to hour. So a bench's figure is its median divided by that of a
calibration, which a slower machine slows down as well, and a change of our code does not. Each bench is beside the
calibration that uses what the bench uses: an interpreter's speed says little of a memory's.

- `loop`: JSON written, read and hashed. For what is Python over small objects: keys, policies, leases, documents.
- `gather`: NumPy arithmetic, and rows gathered out of a mapped file of ten megabytes. For the program `bag`, and for scoring.
- `product`: products of matrices in NumPy, forty megabytes of them. For the program `encoder`.
- `map`: a file of a model's size opened, mapped, looked at in a few places and closed. For mapping and binding.
- `digest`: such a file read and hashed. For verifying.
- `sync`: a small file written beside, synced and renamed. For small writes to a store that is a folder.
- `echo`: a bare FastAPI application under the server's settings that answers each body with itself. For answers over HTTP.
- `fetch`: such a file got from the same S3 server without any of our code, hashed, and written to disk. For a download.
- `copy`: such a file read, hashed and written to disk. For a download whose store is a folder.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.client import Client

FILE_BYTES = 10_400_000
_PIECE_BYTES = 1 << 20
_ROWS, _ROW_BYTES, _GATHERED = 40_000, 256, 1_000
_TOKENS, _WIDTH, _MATRICES = 40, 384, 24
_PLACES = 16
_MAPS = 8
_DOCUMENTS = 20
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one sample does: the same work each time, `units` of it."""

    sample: Callable[[], object]
    units: int = 1


def loop() -> Calibration:
    """Small documents written, read back and hashed."""
    documents = [
        {
            "tenant": f"tenant-{number:05d}",
            "files": {"weights": number, "labels": [number] * 8},
            "metrics": {"top_3": 0.8},
        }
        for number in range(_DOCUMENTS)
    ]

    def sample() -> None:
        for document in documents:
            text = json.dumps(document, sort_keys=True)
            json.loads(text)
            hashlib.sha256(text.encode()).hexdigest()

    return Calibration(sample, _DOCUMENTS)


def gather(path: Path) -> Calibration:
    """Elementwise arithmetic of 32-bit integers, and a weighted sum of rows from all over a table that is a mapped file."""
    rng = np.random.default_rng(0)
    # Pages of a file, as weights are: how memory is laid out decides what reading here and there in it takes.
    table = np.memmap(path, np.uint8, "r")[: _ROWS * _ROW_BYTES].reshape(_ROWS, _ROW_BYTES)
    rows = rng.integers(0, _ROWS, (_PLACES, _GATHERED))
    weights = rng.random(_GATHERED, np.float32)
    numbers = rng.integers(0, 1 << 31, _GATHERED, np.int32)

    def sample() -> None:
        for some in rows:
            hashed = numbers
            for step in range(8):
                hashed = hashed * np.int32(0x2545F491) + np.roll(numbers, step)
            np.dot(weights, table.take(some, axis=0).view(np.float32))

    return Calibration(sample, _PLACES)


def product() -> Calibration:
    """Some forty rows multiplied by one matrix after the other, together more than a processor keeps at hand."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((_TOKENS, _WIDTH), np.float32)
    matrices = [rng.standard_normal((_WIDTH, 3 * _WIDTH), np.float32) for _ in range(_MATRICES)]

    def sample() -> None:
        for matrix in matrices:
            np.dot(rows, matrix)

    return Calibration(sample)


def file_map(path: Path) -> Calibration:
    """A file opened, mapped, touched in a few places and closed."""
    size = path.stat().st_size

    def sample() -> None:
        for _ in range(_MAPS):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fstat(descriptor)
                mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
            finally:
                os.close(descriptor)
            for place in range(_PLACES):
                mapped[place * size // _PLACES]
            mapped.close()

    return Calibration(sample, _MAPS)


def digest(path: Path) -> Calibration:
    """A file read and hashed."""
    return Calibration(lambda: _digest(path))


def copy(path: Path, folder: Path) -> Calibration:
    """A file read, hashed, and written beside."""
    target = folder / "copy"

    def sample() -> None:
        with path.open("rb", buffering=0) as source:
            _receive(source.readinto, target)

    return Calibration(sample)


def sync(folder: Path) -> Calibration:
    """A small file written, synced, and given another's name; its folder synced, too."""
    beside, target = folder / "small.new", folder / "small"
    data = b"x" * 300

    def sample() -> None:
        with beside.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        beside.replace(target)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    return Calibration(sample)


def echo(client: Client, body: bytes, *, requests: int = 10) -> Calibration:
    """Requests that are answered with their own bodies, one after the other."""

    def sample() -> None:
        for _ in range(requests):
            client.suggest("echo", body)

    return Calibration(sample, requests)


def fetch(url: str, folder: Path) -> Calibration:
    """An object got by its presigned URL, hashed, and written to disk."""
    target = folder / "fetched"

    def sample() -> None:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            _receive(answer.readinto, target)

    return Calibration(sample)


def make_file(path: Path) -> Path:
    """A file of a model's size, as incompressible as one: float32."""
    path.write_bytes(np.random.default_rng(0).standard_normal(FILE_BYTES // 4, np.float32).tobytes())
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receive(read_into: Callable[[memoryview], int | None], target: Path) -> None:
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with target.open("wb", buffering=0) as file:
        while count := read_into(buffer):
            hasher.update(buffer[:count])
            file.write(buffer[:count])
    hasher.hexdigest()
