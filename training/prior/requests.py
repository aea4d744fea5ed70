"""Requests that people make of a company or an assistant, put together from patterns and things: what a prior reads.

The patterns and word lists are the project's own. What is asked need not make sense: the encoder that is distilled says
what a sentence means, and the student has to learn how meaning is put together, of things that rarely stand together too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random

from training.prior import phrases

_PLACE = re.compile(r"\{(\w+)\}")


def requests(number: int, *, seed: int, words: Sequence[str] = ()) -> Iterator[str]:
    """So many requests, repeats left out.

    Args:
        words: further words; one in a few stands where a thing or an action would.
    """
    random = Random(f"{seed} requests")  # noqa: S311  # nothing is secret
    things = [_list(text) for text in phrases.THINGS.values()]
    fillers = {
        "do": _list(phrases.ACTIONS),
        "state": _list(phrases.STATES),
        "where": _list(phrases.PLACES),
        "when": _list(phrases.TIMES),
        "who": _list(phrases.PEOPLE),
        "amount": _list(phrases.AMOUNTS),
    }
    patterns = _list(phrases.PATTERNS)
    seen: set[str] = set()
    while len(seen) < number:
        # Things of one request mostly belong together.
        domain = random.choice(things)

        def fill(place: re.Match[str], domain: list[str] = domain) -> str:
            kind = place.group(1)
            if words and kind in {"thing", "do"} and random.random() < 0.25:
                return random.choice(words)
            if kind == "thing":
                return random.choice(domain if random.random() < 0.85 else random.choice(things))
            return random.choice(fillers[kind])

        request = _PLACE.sub(fill, random.choice(patterns))
        if request not in seen:
            seen.add(request)
            yield request


def _list(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(";")]
