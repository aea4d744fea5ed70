"""When a tenant's tickets come and which macros are in fashion then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate

from training.synthetic.draws import Draws

PERIOD = timedelta(days=274)
NEW_SINCE = timedelta(days=61)
# Nothing is created in the last day, so that everything is also answered before the end.
ANSWERED_WITHIN = timedelta(days=1)
AT_LEAST = 3

_WEEKDAYS = (1.25, 1.1, 1.0, 1.0, 0.9, 0.35, 0.3)
_HOURS = (1, 1, 0, 0, 0, 1, 3, 8, 18, 28, 30, 26, 20, 22, 26, 25, 22, 17, 13, 11, 10, 8, 5, 2)
# Quantiles of the time to an answer, in minutes: chats are answered at once, the rest within the day.
_CHAT_DELAY = (1.0, 1.5, 2.0, 3.0, 5.0, 9.0, 30.0)
_DELAY = (3.0, 12.0, 25.0, 50.0, 95.0, 180.0, 360.0, 840.0, 1439.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fashion:
    """How much a macro is used, and when.

    Attributes:
        weight: relative to other macros; 0 for a macro that is used only a few times in all.
        start: factor on the weight when the period starts.
        finish: the same when it ends; in between the factor goes in a straight line.
        since: share of the period before which the macro does not exist.
        until: share of the period after which it is retired.
        peak: share of the period around which there is an incident, or a negative number.
    """

    weight: float
    start: float
    finish: float
    since: float = 0.0
    until: float = 1.0
    peak: float = -1.0

    def at(self, share: float) -> float:
        """The weight at some share of the period."""
        if not self.since <= share < self.until:
            return 0.0
        factor = self.start + (self.finish - self.start) * share
        if abs(share - self.peak) < 0.03:
            factor *= 5.0
        return self.weight * factor


def fashions(count: int, tickets: int, draws: Draws) -> list[Fashion]:
    """Fashions for a catalogue, by macro.

    Args:
        count: how many macros.
        tickets: how many tickets they are for; a small number leaves no room for special cases.
        draws: decides the order of popularity and who is new, retired or rare.
    """
    order = draws.shuffled(range(count))
    rank = {macro: at for at, macro in enumerate(order)}
    roomy = count >= 8 and tickets >= 10 * count
    rare = set(order[-max(2, count // 8) :]) if roomy else set()
    middle = order[count // 5 : count // 2] if roomy else []
    retired = draws.pick(middle) if middle else None
    rest = [macro for macro in middle if macro != retired]
    new = draws.pick(rest) if rest else None
    struck = draws.pick(order[: max(1, count // 3)])
    since = 1.0 - NEW_SINCE / PERIOD
    made = []
    for macro in range(count):
        start, finish = (draws.quantile((0.3, 0.8, 1.2, 2.0)) for _ in range(2))
        peak = 0.15 + 0.7 * draws.uniform()
        if macro == new:
            # Agents try a new macro a lot at first.
            start, finish, peak = 1.2, 1.2, since + 0.03
        elif macro != struck or macro == retired:
            peak = -1.0
        made.append(
            Fashion(
                weight=0.0 if macro in rare else 1.0 / (rank[macro] + 2.2),
                start=start,
                finish=finish,
                since=since if macro == new else 0.0,
                until=0.5 if macro == retired else 1.0,
                peak=peak,
            )
        )
    return made


def times(count: int, end: datetime, offset: int, draws: Draws) -> list[datetime]:
    """Sorted times of creation in the period before `end`, to the second, in the shape of business hours.

    Args:
        count: how many.
        end: in UTC.
        offset: hours that the customers' time is ahead of UTC.
        draws: decides them.
    """
    start = end - PERIOD
    span = int((PERIOD - ANSWERED_WITHIN).total_seconds())
    local = start + timedelta(hours=offset)
    hours = span // 3600
    weights = []
    for hour in range(hours):
        # Whole hours after the start in local time; the clock's minutes at the start hardly matter.
        at = local.hour + hour
        weights.append(_HOURS[at % 24] * _WEEKDAYS[(local.weekday() + at // 24) % 7] * (0.8 + 0.4 * hour / hours))
    running = list(accumulate(weights))
    seconds = sorted(draws.weighted(running) * 3600 + draws.below(3600) for _ in range(count))
    return [start + timedelta(seconds=second) for second in seconds]


def delay(channel: str, draws: Draws) -> timedelta:
    """Time from a ticket to its answer: minutes to a day."""
    minutes = draws.quantile(_CHAT_DELAY if channel == "chat" else _DELAY)
    return timedelta(seconds=int(minutes * 60))


def assign(shares: Sequence[float], kinds: Sequence[Fashion], draws: Draws) -> list[int]:
    """A macro for each ticket: by fashion, every macro a few times where there are enough tickets.

    Args:
        shares: by ticket, the share of the period at which it is created.
        kinds: fashions by macro.
        draws: decides.
    """
    steps = 40
    running = [list(accumulate(kind.at((step + 0.5) / steps) for kind in kinds)) for step in range(steps)]
    macros: list[int] = []
    for share in shares:
        macro = draws.weighted(running[int(share * steps)])
        # A step is coarse: a new or retired macro may have to be drawn again.
        while not kinds[macro].since <= share < kinds[macro].until:
            macro = draws.weighted(running[int(share * steps)])
        macros.append(macro)
    counts = [0] * len(kinds)
    for macro in macros:
        counts[macro] += 1
    floor = min(AT_LEAST, len(shares) // len(kinds))
    # Those with the least time come first, while there are tickets to take from others.
    for macro in sorted(range(len(kinds)), key=lambda macro: kinds[macro].until - kinds[macro].since):
        kind = kinds[macro]
        wanted = floor + (draws.below(2) if kind.weight == 0.0 and floor == AT_LEAST else 0)
        fitting = [at for at, share in enumerate(shares) if kind.since <= share < kind.until]
        for at in draws.shuffled(fitting):
            if counts[macro] >= wanted:
                break
            if counts[macros[at]] > floor and kinds[macros[at]].weight > 0.0:
                counts[macros[at]] -= 1
                macros[at] = macro
                counts[macro] += 1
    return macros
