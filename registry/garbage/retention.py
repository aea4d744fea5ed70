"""Which of a tenant's versions stay, and why; a pure function of what the store keeps and the fleet names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from registry.errors import InvalidInput
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.store import ObjectState

DAY = 86_400.0
OLD = "no fleet names it"
PARTIAL = "not whole: its publisher did not finish"
YOUNG = "young"
_WHOLE = frozenset({WEIGHTS, LABELS, MANIFEST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept.

    Attributes:
        keep: so many of a tenant's versions, the last published, whether or not a fleet names them.
        young_seconds: nothing younger is touched.
        fleet_seconds: what a fleet named so lately stays.

    Raises:
        InvalidInput: not even the last version would be kept.
    """

    keep: int = 5
    young_seconds: float = DAY
    fleet_seconds: float = 7 * DAY

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise InvalidInput("at least one version of a tenant is kept", remedy="Give --keep 1 or more.")


@dataclass(frozen=True, slots=True)
class Garbage:
    """A version that may go: why, and everything that the store keeps of it."""

    why: str
    states: tuple[ObjectState, ...]


def divide(
    states: Mapping[str, Sequence[ObjectState]], *, named: Mapping[str, str], retention: Retention, now: float
) -> tuple[dict[str, tuple[str, ...]], dict[str, Garbage]]:
    """A tenant's versions: those that stay, with every reason, and those that may go.

    Args:
        states: everything that the store keeps of each version.
        named: the versions that a fleet of the window names, and why.
        now: by the store's clock.
    """
    published = {version: _published(found) for version, found in states.items()}
    whole = sorted((when, version) for version, when in published.items() if when is not None)
    last = {version for _, version in whole[-retention.keep :]}
    kept: dict[str, tuple[str, ...]] = {}
    garbage: dict[str, Garbage] = {}
    for version, found in sorted(states.items()):
        reasons = [named[version]] if version in named else []
        if version in last:
            reasons.append(f"one of the last {retention.keep}")
        if any(is_young(state, retention, now) for state in found):
            reasons.append(YOUNG)
        if reasons:
            kept[version] = tuple(reasons)
        else:
            garbage[version] = Garbage(PARTIAL if published[version] is None else OLD, tuple(found))
    return kept, garbage


def is_young(state: ObjectState, retention: Retention, now: float) -> bool:
    """Whether something is too young to be touched."""
    return now - state.modified <= retention.young_seconds


def _published(states: Iterable[ObjectState]) -> float | None:
    """When a version was last published; None where it is not whole."""
    current = {state.key.rpartition("/")[2]: state.modified for state in states if state.kind == "current"}
    return current[MANIFEST] if current.keys() >= _WHOLE else None
