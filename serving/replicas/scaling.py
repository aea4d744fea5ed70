"""How many replicas there shall be: a decision on what they have to do, without I/O.

The load is counted in replicas: 1.5 is what keeps one and a half of them busy. There are two marks with room between them,
so that one load never asks for more and for fewer in turn:

- while each is busy for `high` of its time or more, there shall be so many that each is busy for `target` of it;
- while one fewer would be busy for `low` of theirs or less, there shall be one fewer.

Either must last: more come within seconds, since callers wait; one leaves after a minute of quiet, since tenants move with
it. `high > target >= low` is what keeps one from undoing the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from registry.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlan:
    """Between which numbers, at which marks, and how long each must last (seconds).

    Raises:
        InvalidInput: the numbers or the marks are not in order.
    """

    least: int
    most: int
    high: float = 0.75
    target: float = 0.5
    low: float = 0.4
    grow_seconds: float = 5.0
    shrink_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or not 0 < self.low <= self.target < self.high <= 1:
            raise InvalidInput(
                "a range of replicas has its least number first, and at least 1", remedy="Write it like 2..6."
            )


@dataclass(frozen=True, slots=True)
class ScaleState:
    """Since when the load has been above the high mark, or below the low one; None while it is not."""

    busy_since: float | None = None
    quiet_since: float | None = None


def next_count(plan: ScalePlan, state: ScaleState, *, count: int, load: float, now: float) -> tuple[ScaleState, int]:
    """How many replicas there shall be.

    Args:
        plan: see there.
        state: as this function made it; `ScaleState()` at the beginning, and again after each change of the number.
        count: how many there are, all of them ready.
        load: in replicas; what more than `count` could do is not known and counts as `count`.
        now: seconds of a clock that never goes back.
    """
    load = min(max(load, 0.0), float(count))
    busy = load >= plan.high * count
    quiet = count > 1 and load <= plan.low * (count - 1)
    state = ScaleState(
        busy_since=(now if state.busy_since is None else state.busy_since) if busy else None,
        quiet_since=(now if state.quiet_since is None else state.quiet_since) if quiet else None,
    )
    wanted = count
    if state.busy_since is not None and now - state.busy_since >= plan.grow_seconds:
        wanted = max(count + 1, math.ceil(load / plan.target))
    elif state.quiet_since is not None and now - state.quiet_since >= plan.shrink_seconds:
        wanted = count - 1
    wanted = min(max(wanted, plan.least), plan.most)
    return (ScaleState() if wanted != count else state), wanted


def parse_range(text: str) -> tuple[int, int]:
    """`3` is from three to three, `2..6` from two to six. Raises InvalidInput."""
    least, dots, most = text.strip().partition("..")
    if not dots:
        most = least
    if not all(part.isascii() and part.isdecimal() and len(part) <= 4 for part in (least, most)):
        raise InvalidInput(f"{text[:20]!r} is no number of replicas", remedy="Write it like 3, or 2..6.")
    if not 1 <= int(least) <= int(most):
        raise InvalidInput(f"there is no number of replicas in {text[:20]}", remedy="Write the least first: 2..6.")
    return int(least), int(most)
