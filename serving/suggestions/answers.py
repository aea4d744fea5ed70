"""Answers that are remembered: an agent opens one ticket many times, and the model would say the same again. No I/O."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic_core import to_json

A = TypeVar("A")

_KEY_BYTES = 16
# What an entry costs beside its answer: two dictionaries' places, the key, the record of it.
_OVERHEAD_BYTES = 500


def answer_key(
    *,
    tenant: str,
    ticket: str,
    revision: int,
    text: str,
    groups: Iterable[str],
    language: str | None,
    limit: int,
    exclude: Collection[str],
) -> bytes:
    """What makes two requests one.

    The text is part of it: a ticket that changed under one revision (or whose caller never counts revisions) is another
    request, and never gets what was said to its older words.
    """
    said = to_json([tenant, ticket, revision, sorted(groups), language, limit, sorted(set(exclude)) if exclude else ()])
    digest = hashlib.blake2b(said, digest_size=_KEY_BYTES)
    digest.update(b"\0")  # JSON has none, so what belongs to which half is never in doubt
    digest.update(text.encode())
    return digest.digest()


@dataclass(slots=True)
class _Kept(Generic[A]):
    tenant: str
    made_of: tuple[str, ...]
    answer: A
    nbytes: int


class Answers(Generic[A]):
    """The answers given last, within a budget of bytes. Owned by one event loop.

    An answer holds for as long as it would be given again: it is kept with what it was made of, and found only by who names
    the very same. The answer used longest ago goes first, the tenant's own where the tenant is over its share; so whatever
    one tenant asks, it takes no more than its share from the others.

    Args:
        budget_bytes: of all of them together, by estimate; 0 remembers nothing.
        tenant_share: of that, how much one tenant may have at most.
    """

    def __init__(self, *, budget_bytes: int, tenant_share: float) -> None:
        self._budget = budget_bytes
        self._share = int(budget_bytes * tenant_share)
        self._kept: OrderedDict[bytes, _Kept[A]] = OrderedDict()
        self._of_tenants: dict[str, OrderedDict[bytes, None]] = {}
        self._tenant_bytes: dict[str, int] = {}
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def on(self) -> bool:
        """Whether anything is remembered at all."""
        return self._budget > 0

    def bytes_of(self, tenant: str) -> int:
        """What a tenant's answers count."""
        return self._tenant_bytes.get(tenant, 0)

    def find(self, key: bytes, made_of: tuple[str, ...]) -> A | None:
        """What was answered to a request, if it would be made of the same today.

        Args:
            key: of `answer_key`.
            made_of: the versions of everything that an answer depends on beside the request.
        """
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.made_of != made_of:
            self._drop(key)
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        self._of_tenants[kept.tenant].move_to_end(key)
        return kept.answer

    def keep(self, tenant: str, key: bytes, made_of: tuple[str, ...], answer: A, *, nbytes: int) -> None:
        """Remember an answer that had to be made: a miss. One that no share has room for is left out."""
        self.misses += 1
        nbytes += _OVERHEAD_BYTES
        if nbytes > self._share:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(tenant, made_of, answer, nbytes)
        self._of_tenants.setdefault(tenant, OrderedDict())[key] = None
        self._tenant_bytes[tenant] = self._tenant_bytes.get(tenant, 0) + nbytes
        self.nbytes += nbytes
        while self._tenant_bytes[tenant] > self._share:
            self._drop(next(iter(self._of_tenants[tenant])))
        while self.nbytes > self._budget:
            self._drop(next(iter(self._kept)))

    def forget_all_but(self, tenants: Container[str]) -> None:
        """Drop the answers of tenants that are not in the fleet any more."""
        for tenant in [tenant for tenant in self._of_tenants if tenant not in tenants]:
            for key in list(self._of_tenants[tenant]):
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key)
        self.nbytes -= kept.nbytes
        own = self._of_tenants[kept.tenant]
        del own[key]
        if own:
            self._tenant_bytes[kept.tenant] -= kept.nbytes
        else:
            del self._of_tenants[kept.tenant], self._tenant_bytes[kept.tenant]
