import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from registry.errors import BundleCorrupt
from registry.model.tensors import ALIGNMENT, MAX_HEADER_BYTES, map_tensors, open_tensors, parse_header, write_tensors

TENSORS: dict[str, NDArray[Any]] = {
    "bias": np.arange(5, dtype=np.float32),
    "kernel": np.arange(15, dtype=np.float32).reshape(3, 5),
    "half": np.arange(7, dtype=np.float16),
    "bytes": np.arange(3, dtype=np.int8),
}


def raw(path: Path, header: dict[str, Any], data: bytes, *, pad: bool = True) -> Path:
    text = json.dumps(header).encode()
    if pad:
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_every_tensor_starts_on_a_boundary_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, TENSORS)
    infos = parse_header(path.read_bytes(), path.stat().st_size, what="w")
    assert {info.offset % ALIGNMENT for info in infos.values()} == {0}
    mapped = map_tensors(path)
    assert mapped.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].ctypes.data % ALIGNMENT == 0


def test_the_public_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, TENSORS)
    theirs = safetensors.numpy.load_file(path)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(theirs[name], array)


def test_equal_tensors_give_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", TENSORS)
    write_tensors(tmp_path / "b", {name: TENSORS[name] for name in reversed(list(TENSORS))})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(
    st.dictionaries(
        st.text("abcdefgh_", min_size=1, max_size=8),
        st.tuples(st.sampled_from(["f4", "f2", "i1", "u1", "i4"]), st.lists(st.integers(0, 9), max_size=3)),
        max_size=6,
    )
)
def test_any_tensors_round_trip(tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("any") / "w"
    tensors = {name: np.ones(shape, dtype) for name, (dtype, shape) in kinds.items()}
    write_tensors(path, tensors)
    mapped = map_tensors(path)
    assert {n: (t.dtype, t.shape) for n, t in mapped.items()} == {n: (t.dtype, t.shape) for n, t in tensors.items()}


def test_a_file_of_the_public_library_is_refused_because_it_is_not_aligned(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32), "b": np.zeros(4, np.float32)}, path)
    with pytest.raises(BundleCorrupt, match="64-byte boundary"):
        map_tensors(path)


@pytest.mark.parametrize("cut", [0, 4, 7, 8, 40, 200, -1])
def test_a_truncated_file_is_refused_before_it_is_mapped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "w"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BundleCorrupt):
        map_tensors(path)


def test_a_file_of_another_size_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"
    write_tensors(path, TENSORS)
    with pytest.raises(BundleCorrupt, match="bytes, expected"):
        open_tensors(path, expected_size=path.stat().st_size + 64)


F4 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {**F4, "data_offsets": [64, 80]}}, bytes(80)),
        ({"a": F4, "b": {**F4, "data_offsets": [8, 24]}}, bytes(24)),
        # Lengths that add up to the file's, over the same bytes: only the order of offsets gives it away.
        (
            {"a": {**F4, "shape": [16], "data_offsets": [0, 64]}, "b": {**F4, "shape": [16], "data_offsets": [0, 64]}},
            bytes(128),
        ),
        ({"a": F4}, bytes(20)),
        ({"a": {**F4, "shape": [5]}}, bytes(16)),
        ({"a": {**F4, "shape": [-4]}}, bytes(16)),
        ({"a": {**F4, "shape": [True, 4]}}, bytes(16)),
        ({"a": {**F4, "shape": [2**40, 2**40]}}, bytes(16)),
        ({"a": {**F4, "shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}}, b""),
        ({"a": {**F4, "shape": [4] + [1] * 64}}, bytes(16)),
        ({"a" * 1000: F4}, bytes(16)),
        ({"a": {**F4, "dtype": "F128"}}, bytes(16)),
        ({"a": {**F4, "data_offsets": [16, 0]}}, bytes(16)),
        ({"a": {**F4, "data_offsets": [0, 16, 32]}}, bytes(16)),
        ({"a": {"dtype": "F32"}}, bytes(16)),
        ({"a": []}, bytes(16)),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    with pytest.raises(BundleCorrupt):
        map_tensors(raw(tmp_path / "w", header, data))


@pytest.mark.parametrize(
    "start",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", MAX_HEADER_BYTES + 1) + b" " * (MAX_HEADER_BYTES + 1),
        struct.pack("<Q", 4) + b"\xff\xfe\x00\x00",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60000) + b"[" * 60000,
        struct.pack("<Q", 28) + b'{"a":{"dtype":1},"a":{"b":2}}'[:28],
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "w").write_bytes(start)
    with pytest.raises(BundleCorrupt):
        map_tensors(tmp_path / "w")


@given(st.binary(max_size=300))
def test_noise_is_refused_or_read_never_worse(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "w"
    path.write_bytes(struct.pack("<Q", max(0, len(noise) - 8)) + noise)
    with contextlib.suppress(BundleCorrupt):
        map_tensors(path)


def test_a_missing_file_is_a_corrupt_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match="cannot be opened"):
        map_tensors(tmp_path / "none")


def test_a_long_header_is_read_whole(tmp_path: Path) -> None:
    tensors = {f"tensor-{number:03}": np.full(16, number, np.float32) for number in range(200)}
    write_tensors(tmp_path / "w", tensors)
    mapped = map_tensors(tmp_path / "w")
    assert mapped.keys() == tensors.keys()
    assert mapped["tensor-199"][0] == 199
