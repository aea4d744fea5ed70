from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.errors import DeadlineExceeded, Overloaded
from registry.model.runtime import Features
from serving.suggestions.explanations import Explanations

pytestmark = pytest.mark.anyio


class Model:
    """Says 0.9 to texts with "refund" in them; each text takes a while."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.go_on = threading.Event()
        self.go_on.set()

    def featurise(self, texts: Sequence[str]) -> Features:
        self.threads.add(threading.get_ident())
        self.batches.append(len(texts))
        self.go_on.wait(10)
        end = time.monotonic() + self.seconds * len(texts)
        while time.monotonic() < end:
            pass
        return Features({"found": np.array(["refund" in text for text in texts])}, len(texts))

    def score(self, features: Features) -> NDArray[np.float64]:
        found = features.tensors["found"]
        return np.stack([np.where(found, 0.9, 0.1), np.where(found, 0.1, 0.9)], axis=1)


def soon() -> float:
    return time.monotonic() + 10


async def test_it_works_in_a_thread_of_its_own_and_in_turns() -> None:
    explanations, model = Explanations(), Model(seconds=0.001)
    (found,) = await explanations.explain(model, "one two refund four five six seven", [0], deadline=soon())
    assert [one.text for one in found] == ["refund"]
    assert threading.get_ident() not in model.threads
    assert model.batches[0] == 1
    assert max(model.batches) <= 6  # two milliseconds' worth, or a little more where the clock is coarse
    explanations.close()


async def test_more_than_a_few_are_refused() -> None:
    explanations, model = Explanations(most_under_way=2), Model()
    model.go_on.clear()
    running = [asyncio.create_task(explanations.explain(model, "refund", [0], deadline=soon())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 explanations are under way"):
        await explanations.explain(model, "refund", [0], deadline=soon())
    model.go_on.set()
    assert [len(found) for found in await asyncio.gather(*running)] == [1, 1]
    assert await explanations.explain(model, "refund", [0], deadline=soon())
    explanations.close()


async def test_who_waits_behind_others_waits_no_longer_than_its_deadline() -> None:
    explanations, model = Explanations(most_under_way=2), Model()
    model.go_on.clear()
    running = asyncio.create_task(explanations.explain(model, "refund", [0], deadline=soon()))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await explanations.explain(model, "refund", [0], deadline=time.monotonic() + 0.01)
    with pytest.raises(Overloaded):  # what nobody waits for any more is under way until the thread has seen it
        await explanations.explain(model, "refund", [0], deadline=soon())
    model.go_on.set()
    assert await running
    explanations.close()


async def test_the_deadline_ends_it_between_two_turns() -> None:
    explanations, model = Explanations(), Model(seconds=0.02)
    with pytest.raises(DeadlineExceeded):
        await explanations.explain(model, "one two three four", [0], deadline=time.monotonic() + 0.03)
    assert sum(model.batches) < 5
    explanations.close()
