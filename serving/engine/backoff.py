"""Versions whose load failed, and until when they are left alone. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from registry.errors import LoadBackingOff, MacrofleetError, NotReady, Overloaded, StoreError
from serving.fleet_watch import ModelRef

# What a load may fail of without anything being wrong with the model.
_NOT_THE_MODELS_FAULT = (Overloaded, NotReady, StoreError)


@dataclass(slots=True)
class _Failure:
    ref: ModelRef
    error: str
    retry_at: float
    pause: float


class LoadBackoff:
    """Remembers of each tenant the version whose load failed last. Owned by one event loop.

    Its pause doubles with every failure in a row. What is not the model's fault (an outage of the store, an overload)
    causes none.

    Args:
        pause_seconds: after the first failure of a version, and the longest.
        clock: seconds, never backwards.
    """

    def __init__(self, pause_seconds: tuple[float, float], *, clock: Callable[[], float]) -> None:
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failures: dict[str, _Failure] = {}

    def check(self, ref: ModelRef) -> None:
        """Whether a version may be loaded now.

        Raises:
            LoadBackingOff: its load failed a moment ago; says when to come back.
        """
        failure = self._failures.get(ref.tenant)
        if failure is None or failure.ref != ref:
            return
        left = failure.retry_at - self._clock()
        if left > 0:
            raise LoadBackingOff(
                f"the model of tenant {ref.tenant} failed to load a moment ago: {failure.error}",
                retry_after_seconds=left,
            )

    def note(self, ref: ModelRef, error: Exception) -> None:
        """The load of a version failed."""
        if isinstance(error, _NOT_THE_MODELS_FAULT):
            return
        before = self._failures.get(ref.tenant)
        shortest, longest = self._pause_seconds
        pause = shortest if before is None or before.ref != ref else min(before.pause * 2, longest)
        # The text of what is not the domain's may quote anything.
        said = str(error) if isinstance(error, MacrofleetError) else type(error).__name__
        self._failures[ref.tenant] = _Failure(ref, said, self._clock() + pause, pause)

    def error_of(self, ref: ModelRef) -> str | None:
        """Why the last load of a version failed, where it did."""
        failure = self._failures.get(ref.tenant)
        return failure.error if failure is not None and failure.ref == ref else None

    def forget(self, tenant: str) -> None:
        """A load of the tenant's succeeded."""
        self._failures.pop(tenant, None)

    def retain(self, keep: Callable[[str], bool]) -> None:
        """Forget the tenants that `keep` denies."""
        self._failures = {tenant: failure for tenant, failure in self._failures.items() if keep(tenant)}
