from __future__ import annotations

import io
import random

import polars as pl
import pytest

from registry.errors import InvalidInput
from training.examples import Example
from training.lake import decode, encode, frame_of

ROWS = [Example(ticket_id=str(n), body=f"Where is parcel {n}? " * 3, macro_id=f"m{n % 4}") for n in range(300)]


def test_no_damaged_byte_is_read_as_if_it_were_none() -> None:
    whole = encode(frame_of(ROWS))
    frame = decode(whole, what="the lake")
    for seed in range(400):
        rng = random.Random(seed)
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        try:
            assert decode(bytes(damaged), what="the lake").equals(frame), seed
        except InvalidInput:
            continue


@pytest.mark.parametrize("length", [0, 1, 8, 40, 400, -1, -9])
def test_a_part_of_a_file_is_none(length: int) -> None:
    with pytest.raises(InvalidInput, match="the lake is"):
        decode(encode(frame_of(ROWS))[:length], what="the lake")


def test_files_of_earlier_releases_are_read() -> None:
    buffer = io.BytesIO()
    frame_of(ROWS).write_parquet(buffer, compression="zstd")
    assert decode(buffer.getvalue(), what="the lake").equals(frame_of(ROWS))


def test_others_read_the_file() -> None:
    found = pl.scan_parquet(io.BytesIO(encode(frame_of(ROWS)))).filter(pl.col("ticket_id") == "7").collect()
    assert found["body"].to_list() == [ROWS[7].body]
