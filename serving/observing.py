"""Whom the data plane tells what it showed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Observer(Protocol):
    """Told of every view. A call must return at once, and may forget what it was told: no answer waits for it."""

    def shown(
        self,
        tenant: str,
        *,
        suggestion_id: str,
        model_version: str,
        macro_ids: Sequence[str],
        abstained: bool,
        ticket_id: str | None = None,
        held_back: bool = False,
    ) -> None:
        """A ticket was viewed.

        Args:
            macro_ids: best first; those that would have been shown, where the view was held back.
            abstained: no macro was good enough.
            ticket_id: which ticket; never anything that it says.
            held_back: nothing was shown although there was something to show.
        """
        ...
