"""Whether a new model may take the champion's place: a pure function of what each of them said of the same rows.

A model passes unless there is proof against it. Rows are compared in pairs (McNemar's exact test), so that a difference
counts only where it is more than chance on these rows: a fleet retrained every week must not be held up by noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import SHOWN, Judged
from training.statistics import mcnemar

# A model that is just as good is refused by chance in one of a hundred comparisons.
SIGNIFICANCE = 0.01
# A macro is suggested well where it is shown for half of the tickets it was applied to, and for three of them at least.
LEAST_SUGGESTED, LEAST_RECALL = 3, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the gate says.

    Attributes:
        reasons: against promotion, in words; none for a model that passes.
    """

    reasons: tuple[str, ...]

    @property
    def promote(self) -> bool:
        """Whether the model may serve."""
        return not self.reasons

    @property
    def reason(self) -> str:
        """All reasons in one sentence."""
        return "; ".join(self.reasons)


def decide(
    challenger: Judged,
    *,
    champion: Judged | None = None,
    baselines: Mapping[str, Judged] | None = None,
    retired: frozenset[str] = frozenset(),
    significance: float = SIGNIFICANCE,
) -> Decision:
    """Decide on a new model.

    Args:
        challenger: what it said of the test rows.
        champion: what the model that serves said of the same rows; None where there is none, or it cannot be asked.
        baselines: what methods that any model must beat said of them, by name.
        retired: macros that are not to be suggested any more: rows they were applied to do not count.
        significance: how improbable a difference must be by chance alone to count.

    Raises:
        ValueError: they were not judged on the same rows.
    """
    others = {**({"the champion": champion} if champion is not None else {})}
    others |= {f"the baseline {name}": judged for name, judged in (baselines or {}).items()}
    if any(not np.array_equal(other.targets, challenger.targets) for other in others.values()):
        raise ValueError("models are compared on the same rows only")
    counts = np.array([target is not None and target not in retired for target in challenger.targets], bool)
    new = challenger.of(counts)
    reasons = []
    for name, other in others.items():
        reasons += _worse(new, other.of(counts), name, significance)
    if champion is not None:
        reasons += _lost(new, champion.of(counts))
    return Decision(reasons=tuple(reasons))


def _worse(new: Judged, old: Judged, name: str, significance: float) -> list[str]:
    """Where `new` has fewer rows right than `old`, beyond chance."""
    found = []
    for figure, places in (("top-1", 1), ("top-3", SHOWN)):
        now, before = new.within(places), old.within(places)
        lost, won = int((before & ~now).sum()), int((now & ~before).sum())
        chance = mcnemar(lost, won)
        if lost > won and chance < significance:
            found.append(
                f"{figure} {now.mean():.3f} is worse than {name}'s {before.mean():.3f} on the same {len(now)} rows "
                f"(lost {lost}, won {won}, p = {chance:.2g})"
            )
    return found


def _lost(new: Judged, old: Judged) -> list[str]:
    """Macros that the champion suggests well and the new model never suggests."""
    names = []
    for macro in sorted({target for target in new.targets if target is not None}):
        applied = new.targets == macro
        well = int((_shows(old, macro) & applied).sum())
        if well >= LEAST_SUGGESTED and well >= LEAST_RECALL * applied.sum() and not _shows(new, macro).any():
            names.append(f"{macro!r} ({well} of {int(applied.sum())})")
    if not names:
        return []
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return [f"never suggests what the champion suggests well: {shown}"]


def _shows(judged: Judged, macro: str) -> NDArray[np.bool_]:
    """[rows] whether the macro is among those that an agent sees."""
    shows: NDArray[np.bool_] = (judged.suggested == macro).any(axis=1) & judged.shown
    return shows
