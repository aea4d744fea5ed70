"""`macrofleet` without what `bench warm --guards` measures: no macro is hidden from anybody, and nothing is masked.

A process of its own, for that bench alone; the product has no such switch. Keys it does without by `MACROFLEET_ACCESS=open`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import macrofleet
import registry.ticket
from registry.bundle import Label
from serving.policy import EVERYBODY, Audience, Policy
from serving.suggest import Shown


def _all(policy: Policy, model: str, labels: Sequence[Label], audience: Audience) -> Shown:
    key = (model, audience)
    found = policy._shown.get(key)
    if found is None:
        found = policy._shown[key] = Shown.of(labels, {label.id: label.title for label in labels})
    return found


def main() -> None:
    """See the module."""
    changes: list[tuple[Any, str, Any]] = [
        (registry.ticket, "masked", str),
        (Policy, "shown", _all),
        (Policy, "audience", lambda *_: EVERYBODY),
        (Policy, "is_off", lambda *_: False),
    ]
    for where, name, what in changes:
        setattr(where, name, what)
    macrofleet.main()


if __name__ == "__main__":
    main()
