"""What the memory tier tells of itself, as metrics and as pages that are given back."""

from __future__ import annotations

from collections.abc import Callable

from serving.engine.models import ServedModel
from serving.metrics import Metrics


class CacheEvents:
    """The cache's observer: counts what it hears; evicted models also lose their pages.

    Args:
        forget_pages: gives a model's pages back to the kernel, some time.
    """

    def __init__(self, metrics: Metrics, forget_pages: Callable[[ServedModel], None]) -> None:
        self._metrics = metrics
        self._forget_pages = forget_pages

    def hit(self) -> None:
        self._metrics.cache_hit("memory")

    def waited(self, seconds: float) -> None:
        self._metrics.phase("load_wait", seconds)

    def loaded(self, seconds: float) -> None:  # noqa: ARG002  # the phases of a load are measured where they happen
        self._metrics.loaded()

    def load_failed(self, error: BaseException) -> None:
        self._metrics.load_failed(type(error).__name__)

    def swapped(self, outcome: str) -> None:
        self._metrics.swapped("done" if outcome == "done" else "failed")

    def evicted(self, model: ServedModel, cause: str) -> None:
        self._metrics.evicted("memory", cause)
        self._forget_pages(model)
