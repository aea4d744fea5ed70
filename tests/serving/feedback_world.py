"""A log of feedback over a store in memory and a real disk, and a hand that holds its syncs."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from registry.feedback.records import Feedback, Shown, read_feedback
from serving.feedback.log import FeedbackLog
from serving.feedback.shipping import Shipper
from tests.registry.memory_store import MemoryStore

# A tick that never comes: tests say when.
NEVER = 3600.0


def record(number: int, *, tenant: str = "acme", **more: Any) -> dict[str, Any]:
    """What the route keeps."""
    return {
        "tenant": tenant,
        "kind": "feedback",
        "at": 1_700_000_000.0 + number,
        "id": f"{number:032x}",
        "suggestion_id": f"s{number}",
        "model_version": None,
        "ticket_id": f"t{number}",
        "shown": ["m1", "m2"],
        "applied": "m1",
        **more,
    }


def make_log(root: Path, store: Any, **changes: Any) -> FeedbackLog:
    shipper = changes.pop("shipper", None) or Shipper(store)
    values = {"max_bytes": 1 << 20, "segment_bytes": 1 << 16, "segment_seconds": NEVER, "tick_seconds": NEVER}
    return FeedbackLog(root, shipper, **{**values, **changes})


@asynccontextmanager
async def running(root: Path, store: MemoryStore, **changes: Any) -> AsyncIterator[FeedbackLog]:
    log = make_log(root, store, **changes)
    async with log.running():
        yield log


def stored(store: Any, tenant: str = "acme") -> list[Feedback | Shown]:
    return list(read_feedback(store, tenant))


class HeldSync:
    """Stands in for `os.fdatasync`: counts, and lets nobody through until told."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun = threading.Event()
        self.gate = threading.Event()

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        self.begun.set()
        assert self.gate.wait(60)
