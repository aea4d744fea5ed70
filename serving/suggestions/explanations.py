"""Explanations beside the answers: few at a time, behind everything that answers requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.errors import DeadlineExceeded, Overloaded
from registry.model.explain import Contribution, explain
from registry.model.runtime import Features
from serving.threads import Workers

MOST_UNDER_WAY = 4
MOST_SPANS = 64
# How long a request that arrives meanwhile may find the program at work on an explanation.
_SECONDS_AT_ONCE = 0.002
_MOST_AT_ONCE = 16


class Scorer(Protocol):
    """What an explanation asks of a model."""

    def featurise(self, texts: Sequence[str]) -> Features:
        """Features of texts, by the model's program."""
        ...

    def score(self, features: Features) -> NDArray[Any]:
        """Probabilities [texts, macros]."""
        ...


class Explanations:
    """Explains one after the other, in a thread that stands back. Owned by one event loop.

    A program works on a few texts at once, so many that it takes about two milliseconds, and then rests as long: threads that
    stand back still take the interpreter and TensorFlow's only thread in turn with those that answer.

    Args:
        most_under_way: how many may wait and be worked on; more are refused.
        most_spans: pieces of a ticket that are left out in turn.
    """

    def __init__(self, *, most_under_way: int = MOST_UNDER_WAY, most_spans: int = MOST_SPANS) -> None:
        self._workers = Workers("explain", 1, nice=15)
        self._most_under_way = most_under_way
        self._most_spans = most_spans
        self._under_way = 0

    async def explain(
        self, model: Scorer, text: str, macros: Sequence[int], *, deadline: float
    ) -> list[list[Contribution]]:
        """What drove the scores of some macros; see `registry.model.explain`.

        Args:
            model: leased until this returns.
            text: that was scored.
            macros: their positions in the scores.
            deadline: by `time.monotonic`.

        Raises:
            Overloaded: enough explanations are under way.
            DeadlineExceeded: there was no time left.
        """
        if self._under_way >= self._most_under_way:
            raise Overloaded(f"{self._under_way} explanations are under way", remedy="Try again in a second.")
        self._under_way += 1
        working = asyncio.ensure_future(self._workers.run(self._explained, model, text, macros, deadline))
        # It is under way until the thread is done with it, whoever still waits; that is soon after the deadline.
        working.add_done_callback(self._done)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(working)
        except TimeoutError:
            raise DeadlineExceeded("there was no time left to explain the answer") from None

    def close(self) -> None:
        """Let go of the thread."""
        self._workers.close()

    def _done(self, working: asyncio.Future[list[list[Contribution]]]) -> None:
        self._under_way -= 1
        if not working.cancelled():
            working.exception()  # seen: whoever asked may have gone

    def _explained(self, model: Scorer, text: str, macros: Sequence[int], deadline: float) -> list[list[Contribution]]:
        """Runs in the thread."""

        def score(texts: Sequence[str]) -> NDArray[Any]:
            return _score_in_turns(model, texts, deadline)

        return explain(text, macros, score, most_spans=self._most_spans)


def _score_in_turns(model: Scorer, texts: Sequence[str], deadline: float) -> NDArray[Any]:
    """The scores of all texts, worked out a few at a time."""
    scores: list[NDArray[Any]] = []
    done, count = 0, 1
    while done < len(texts):
        began = time.monotonic()
        if began > deadline:
            raise DeadlineExceeded("there was no time left to explain the answer")
        scores.append(model.score(model.featurise(texts[done : done + count])))
        done += count
        took = max(time.monotonic() - began, 1e-6)
        time.sleep(took)
        count = min(max(int(count * _SECONDS_AT_ONCE / took), 1), 2 * count, _MOST_AT_ONCE)
    return np.concatenate(scores)
