"""What a run says of itself to people: one sentence, a table, a line a tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flows.outcome import Outcome
from flows.runs import UNDONE, counts_text

# A page of so many rows still opens; `macrofleet flows status --run` has them all.
MAX_ROWS = 1000
# What a person is to look at comes first.
_ORDER = {state: place for place, state in enumerate((*UNDONE, "fenced", "not_promoted", "held", "unknown", "trained"))}


def sentence(flow: str, state: str, counts: Mapping[str, int], seconds: float) -> str:
    """A run in one sentence, for logs and chats."""
    what = counts_text(counts)
    return f"{flow} {state} in {seconds:.0f} s" + (f": {what}" if what else "")


def tenant_line(run: str, outcome: Mapping[str, object]) -> str:
    """What became of a tenant, for the log."""
    said = outcome["reason"] or outcome["why"]
    reason = f": {said}" if said else ""
    return f"run {run} tenant {outcome['tenant']} {outcome['state']} in {outcome['seconds']:.1f} s{reason}"


def markdown(outcomes: Sequence[Outcome], warnings: Iterable[str] = ()) -> str:
    """A run as a page: how many ended how, then a row a tenant, first those that a person is to look at."""
    head = "| tenant | state | examples | macros | top-1 | top-3 | fit s | all s | version | reason |"
    rule = "|---|---|--:|--:|--:|--:|--:|--:|---|---|"
    shown = sorted(outcomes, key=lambda one: _ORDER.get(one.state, len(_ORDER)))[:MAX_ROWS]
    rows = [
        f"| {o.tenant} | {o.state} | {o.examples} | {o.macros} | {_fraction(o.top1)} | {_fraction(o.top3)} "
        f"| {o.fit_seconds:.1f} | {o.seconds:.1f} | {o.version} | {(o.reason or o.why).replace('|', ' ')} |"
        for o in shown
    ]
    more = [f"\nand {len(outcomes) - len(shown)} more"] if len(outcomes) > len(shown) else []
    return "\n".join(
        [
            f"{counts_text(Counter(one.state for one in outcomes))}\n",
            head,
            rule,
            *rows,
            *more,
            *(f"\n{warning}" for warning in warnings),
        ]
    )


def _fraction(value: float | None) -> str:
    """A figure for a table."""
    return "-" if value is None else f"{value:.3f}"
