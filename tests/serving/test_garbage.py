from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from serving.garbage import settle_garbage_collector


@pytest.fixture
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_collector_as_before")
def test_what_exists_is_left_alone_and_what_a_batch_makes_is_not_looked_through() -> None:
    settle_garbage_collector()
    assert gc.get_freeze_count() > 10_000
    assert gc.isenabled()
    collections = gc.get_stats()[0]["collections"]
    batch: list[list[list[int]]] = [[[] for _ in range(100)] for _ in range(64)]
    assert gc.get_stats()[0]["collections"] == collections
    assert len(batch) == 64
