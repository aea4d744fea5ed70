"""`macrofleet` without what `bench warm --guards` measures: no macro is hidden from anybody, and nothing is masked.

A process of its own, for that bench alone; the product has no such switch. Keys it does without by `MACROFLEET_ACCESS=open`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import macrofleet
import registry.text.ticket
from registry.model.bundle import Label
from registry.text.steps import Steps
from serving.suggestions.choice import Shown
from serving.suggestions.policy import EVERYBODY, Audience, Policy


def _all(policy: Policy, model: str, labels: Sequence[Label], audience: Audience) -> Shown:
    key = (model, audience)
    found = policy._shown.get(key)
    if found is None:
        found = policy._shown[key] = Shown.of(labels, {label.id: label.title for label in labels})
    return found


def _as_it_is(text: str) -> Steps[str]:
    yield from ()
    return text


def main(*, masks: bool = False) -> None:
    """See the module.

    Args:
        masks: mask tickets all the same.
    """
    changes: list[tuple[Any, str, Any]] = [
        (Policy, "shown", _all),
        (Policy, "audience", lambda *_: EVERYBODY),
        (Policy, "is_off", lambda *_: False),
    ]
    if not masks:
        changes.append((registry.text.ticket, "masked_in_steps", _as_it_is))
    for where, name, what in changes:
        setattr(where, name, what)
    macrofleet.main()


if __name__ == "__main__":
    main()
