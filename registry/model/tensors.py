"""Tensors at rest: safetensors files whose every tensor starts on a 64-byte boundary, written and mapped.

The format is the public one (https://huggingface.co/docs/safetensors); the library's own reader and writer are not
used because it aligns to 8 bytes, and TensorFlow aborts the whole process when it gathers from a tensor that was
bound at less than 64. Padding is written as extra `U8` tensors named `pad.N`, so any safetensors reader accepts a file.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.disk.pages import is_cached, read_in
from registry.errors import BundleCorrupt
from registry.files import read_failure

ALIGNMENT = 64
MAX_HEADER_BYTES = 64 * 1024
_USUAL_HEADER_BYTES = 4096
_PADDING = "pad."
# Far above any of ours, and below what NumPy can hold.
_MAX_DIMENSIONS = 8
_MAX_NAME = 200
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Type, shape and place (absolute byte offset, length) of one tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write `tensors` in name order as an aligned safetensors file; the same tensors give the same bytes.

    Raises:
        ValueError: a type this format does not carry, or a name reserved for padding.
    """
    header: dict[str, dict[str, object]] = {}
    parts: list[bytes | memoryview] = []
    position = 0
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        if array.dtype not in _NAMES or name.startswith(_PADDING):
            raise ValueError(f"cannot write tensor {name!r} of type {array.dtype}")
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": _span(position, array),
        }
        parts.append(array.reshape(-1).view(np.uint8).data)
        position += array.nbytes
        gap = -position % ALIGNMENT
        if gap:
            header[f"{_PADDING}{len(parts)}"] = {
                "dtype": "U8",
                "shape": [gap],
                "data_offsets": [position, position + gap],
            }
            parts.append(bytes(gap))
            position += gap
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for part in parts:
            file.write(part)


def _span(position: int, array: NDArray[Any]) -> list[int]:
    return [position, position + array.nbytes]


def parse_header(start: bytes, file_size: int, *, what: str) -> dict[str, TensorInfo]:
    """Read and check the header of an aligned safetensors file.

    Args:
        start: the file's first bytes, at least the whole header (8 + its length).
        file_size: length of the file in bytes.
        what: the file, for messages.

    Returns:
        The tensors by name, padding left out.

    Raises:
        BundleCorrupt: not safetensors, a tensor that is misaligned, overlaps, leaves a hole or ends outside the file.
    """

    def corrupt(problem: str) -> BundleCorrupt:
        return BundleCorrupt(f"{what} is not a usable tensor file: {problem}")

    if len(start) < 8:
        raise corrupt("it is shorter than a header")
    (length,) = struct.unpack_from("<Q", start)
    if length > MAX_HEADER_BYTES or 8 + length > min(file_size, len(start)):
        raise corrupt(f"its header claims {length} bytes")
    try:
        header = json.loads(start[8 : 8 + length], object_pairs_hook=_no_duplicates)
        spans = sorted(_tensors(header), key=lambda item: (item[1].offset, item[1].nbytes))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as problem:
        raise corrupt(f"its header cannot be read ({type(problem).__name__})") from None
    position = 0
    found: dict[str, TensorInfo] = {}
    for name, info in spans:
        if info.offset != position:
            raise corrupt(f"tensor {name!r} overlaps another or leaves a hole")
        position += info.nbytes
        if not name.startswith(_PADDING):
            absolute = 8 + length + info.offset
            if absolute % ALIGNMENT:
                raise corrupt(f"tensor {name!r} does not start on a {ALIGNMENT}-byte boundary")
            found[name] = TensorInfo(dtype=info.dtype, shape=info.shape, offset=absolute, nbytes=info.nbytes)
    if 8 + length + position != file_size:
        raise corrupt(f"it has {file_size} bytes, its header describes {8 + length + position}")
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate name")
    return made


def _tensors(header: dict[str, Any]) -> list[tuple[str, TensorInfo]]:
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if len(shape) > _MAX_DIMENSIONS or len(name) > _MAX_NAME:
            raise ValueError("more dimensions, or a longer name, than any tensor has")
        numbers = [begin, end, *shape]
        if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
            raise ValueError("not a size")
        if math.prod(shape) * _DTYPES[dtype].itemsize != end - begin:
            raise ValueError("shape and length differ")
        # NumPy multiplies them before it looks for the zero.
        if math.prod(filter(None, shape)) >= 2**48:
            raise ValueError("not a size")
        found.append((name, TensorInfo(dtype=dtype, shape=tuple(shape), offset=begin, nbytes=end - begin)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedTensors:
    """Tensors over one mapping of their file.

    Attributes:
        tensors: by name; they keep the mapping alive, and nothing closes it by hand.
        mapping: private and writable, because NumPy exports no read-only array through DLPack. Nobody writes to it, so
            its pages stay shared with the page cache.
    """

    tensors: dict[str, NDArray[Any]]
    mapping: mmap.mmap


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of `open_tensors`, by name."""
    return open_tensors(path).tensors


def open_tensors(path: Path, *, expected_size: int | None = None) -> MappedTensors:
    """Map a tensor file, read into memory if it was not there, with its tensors as arrays over the mapping, nothing copied.

    Raises:
        BundleCorrupt: the file is missing, does not have `expected_size`, or `parse_header` refuses it. All is checked
            before a byte is bound: a misaligned tensor or a file that shrinks would end the process.
        StoreError: the file is there and cannot be read or mapped.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size < 8 or (expected_size is not None and size != expected_size):
                raise BundleCorrupt(
                    f"{path} has {size} bytes, expected {'a header' if expected_size is None else expected_size}"
                )
            if not is_cached(descriptor, size):
                read_in(descriptor)
            start = os.pread(descriptor, _USUAL_HEADER_BYTES, 0)
            if 8 <= len(start) < min(size, 8 + struct.unpack_from("<Q", start)[0]):
                start = os.pread(descriptor, 8 + MAX_HEADER_BYTES, 0)
            infos = parse_header(start, size, what=str(path))
            mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise read_failure(path, problem, missing=BundleCorrupt) from None
    tensors = {
        name: np.frombuffer(
            mapping, dtype=_DTYPES[info.dtype], count=math.prod(info.shape), offset=info.offset
        ).reshape(info.shape)
        for name, info in infos.items()
    }
    return MappedTensors(tensors=tensors, mapping=mapping)
