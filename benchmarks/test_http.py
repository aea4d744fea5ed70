"""Answers over HTTP by a real server process, warm and cold, and a change of version; run with `make bench`."""

from __future__ import annotations

from benchmarks.interleaving import Interleaved
from benchmarks.served import COLD, COLD_ON_S3, SWAPS, ServedFleet

# Reading the server's metrics in between leaves its processor's caches full of something else.
_WARM_CALLS = 20


def test_http_warm(compared: Interleaved, from_folder: ServedFleet) -> None:
    """One tenant whose model is in memory, tickets in turn."""
    compared(from_folder.ask_warm, beside="echo", least_calls=_WARM_CALLS, phases=from_folder.parts)


def test_cold_from_disk(compared: Interleaved, from_folder: ServedFleet) -> None:
    """Each round asks a tenant whose model is on local disk, in the page cache, and was never mapped."""
    compared(from_folder.ask_cold, beside="echo", rounds=COLD, phases=from_folder.parts)


def test_cold_from_s3(compared: Interleaved, from_s3: ServedFleet) -> None:
    """Each round downloads, verifies, maps and answers."""
    compared(from_s3.ask_cold, beside="fetch", rounds=COLD_ON_S3, phases=from_s3.parts)


def test_swap(compared: Interleaved, from_folder: ServedFleet) -> None:
    """From being told of a new version, which lies in the store, to the first answer by it."""
    compared(
        from_folder.swap,
        beside="copy",
        rounds=SWAPS,
        prepare=from_folder.publish_next,
        phases=from_folder.parts_of_swap,
    )
