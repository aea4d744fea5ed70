"""What it costs to suggest only what an agent may use; run with `make bench`. A whole answer takes some 300 microseconds.

`test_choosing_with_a_policy` against `test_choosing_alone` is what filtering adds to every request; the other parts are
done once for a catalogue, or once for an audience of it.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.interleaving import Interleaved
from registry.catalogue import Macro
from registry.model.bundle import Label
from registry.suggestion_rules import SuggestionRules
from serving.suggestions.answers import Answers, answer_key
from serving.suggestions.choice import Shown, choose
from serving.suggestions.policy import EVERYBODY, Policy
from serving.suggestions.suggestion_id import suggestion_id

MACROS = 1_000
_CALLS = 100
LABELS = [Label(id=f"{10_000 + number}", title=f"Macro {number}") for number in range(MACROS)]
TITLES = {label.id: label.title for label in LABELS}
SCORES = np.random.default_rng(0).dirichlet(np.ones(MACROS), _CALLS).astype(np.float32)
AGENT = ["100", "200", "support", "7", "42"]
TEXT = "My parcel should have arrived on Monday, and it did not. " * 5


def macros() -> list[Macro]:
    """A third for everybody, a third of groups, a tenth retired, a few personal, in three languages."""
    made = []
    for number, label in enumerate(LABELS):
        group = {"type": "Group", "ids": [number % 50]} if number % 3 == 0 else None
        made.append(
            Macro(
                id=label.id,
                title=label.title,
                active=number % 10 != 0,
                restriction={"type": "User", "id": 1} if number % 37 == 0 else group,
                locale=[None, "en", "de", "fr"][number % 4],
            )
        )
    return made


RULES = SuggestionRules(exclude_macros=tuple(label.id for label in LABELS[::90]), off_groups=("trainees",))


@pytest.fixture(scope="module")
def policy() -> Policy:
    """Of a thousand macros."""
    return Policy(macros(), RULES)


def test_choosing_alone(compared: Interleaved) -> None:
    """A hundred times the best three of all."""
    shown = Shown.of(LABELS, TITLES)
    compared(lambda: [choose(scores, shown, exclude=(), limit=3, threshold=0.0) for scores in SCORES], beside="loop")


def test_choosing_with_a_policy(compared: Interleaved, policy: Policy) -> None:
    """A hundred times the best three of what an agent in five groups may use, for a ticket in English."""

    def ask() -> None:
        for scores in SCORES:
            if not policy.is_off(AGENT):
                shown = policy.shown("v", LABELS, policy.audience(AGENT, "en-GB"))
                choose(scores, shown, exclude=(), limit=3, threshold=0.0)

    compared(ask, beside="loop")


def test_naming_a_request_and_its_answer(compared: Interleaved, policy: Policy) -> None:
    """A hundred times the key of a request that is not remembered, and the id of its answer."""
    answers: Answers[str] = Answers(budget_bytes=1 << 20, tenant_share=0.5)

    def ask() -> None:
        for number in range(_CALLS):
            key = answer_key(
                tenant="acme",
                ticket=str(number),
                revision=0,
                text=TEXT,
                groups=("7", "42"),
                language="en",
                limit=3,
                exclude=(),
            )
            answers.find(key, ("v", policy.version))
            suggestion_id(
                b"0123456789abcdef",
                tenant="acme",
                ticket=str(number),
                text=TEXT,
                revision=0,
                version="v",
                policy=policy.version,
                macros=["1", "2", "3"],
            )

    compared(ask, beside="loop")


def test_a_mask(compared: Interleaved, policy: Policy) -> None:
    """Once for an audience: in the event loop."""

    def make() -> None:
        policy._shown.clear()
        policy.shown("v", LABELS, EVERYBODY)

    compared(make, beside="loop")


def test_a_policy(compared: Interleaved) -> None:
    """Once for a catalogue that changed: in a thread."""
    made = macros()
    compared(lambda: Policy(made, RULES), beside="loop")
