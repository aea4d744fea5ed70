"""What becomes of an answer before somebody sees it: some views are held back, and all are told to the observer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from serving.observing import Observer
from serving.suggestions.asking import Answer

_RANGE = 2**64


class Views:
    """Decides which views show nothing, so that reports and training can tell what agents do unprompted.

    It depends on the ticket alone: whoever opens it, however often and at whichever replica, sees suggestions or none. So
    an agent learns of none by opening it again, and a ticket is never half prompted.

    Args:
        observer: told of every view.
        share_of: the share of views to hold back, by tenant.
        salt: of the choice; the same at all replicas, and for as long as choices shall stay.
    """

    def __init__(self, observer: Observer, *, share_of: Callable[[str], float], salt: str) -> None:
        self._observer = observer
        self._share_of = share_of
        self._salt = salt

    def see(self, tenant: str, ticket: str | None, answer: Answer, *, eligible: bool = True) -> bool:
        """Note a view of an answer.

        Args:
            ticket: its id; without one a view is no agent's work either.
            eligible: False for a view that is no agent's work, and is neither held back nor noted.

        Returns:
            Whether it is held back: nothing may be shown.
        """
        if not eligible or ticket is None:
            return False
        macros = answer.suggestions.macros
        held_back = bool(macros) and is_held_back(self._salt, tenant, ticket, self._share_of(tenant))
        self._observer.shown(
            tenant,
            suggestion_id=answer.suggestion_id,
            model_version=answer.model_version,
            macro_ids=[macro.id for macro in macros],
            abstained=not macros,
            ticket_id=ticket,
            held_back=held_back,
        )
        return held_back


def is_held_back(salt: str, tenant: str, ticket: str, share: float) -> bool:
    """Whether a ticket is among a share of all, chosen by a digest.

    A ticket that is among a share is among every greater one.
    """
    if share <= 0:
        return False
    said = "\0".join((salt, tenant, ticket)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest()) < share * _RANGE
