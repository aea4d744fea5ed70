"""What it costs to know a caller by its API key; run with `make bench`. A whole answer takes some hundred microseconds."""

from __future__ import annotations

import asyncio
from itertools import cycle
from pathlib import Path

import pytest

from benchmarks.interleaving import Interleaved
from registry.errors import NotAuthenticated
from registry.keys.published import PublishedKey, PublishedKeys, key_digest, make_key
from registry.layout import ACCESS_KEYS
from registry.store.local import LocalStore
from serving.access import PublishedAccess

KEYS = 30_000
_CALLS = 1000


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[PublishedAccess, list[tuple[str, bytes]]]:
    """30,000 keys that were read, and a thousand of them with their tenants."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    made = [make_key() for _ in range(KEYS)]
    keys = tuple(
        PublishedKey(prefix=prefix, digest=key_digest(key.encode()), tenant=f"t{place}", scopes=("suggest", "feedback"))
        for place, (key, prefix) in enumerate(made)
    )
    store.put(ACCESS_KEYS, PublishedKeys(source="0" * 32, generation=1, keys=keys).to_bytes())
    access = PublishedAccess(store, poll_seconds=3600, stale_seconds=3600)

    async def read() -> None:
        async with access.running():
            await access.refresh()

    asyncio.run(read())
    return access, [(f"t{place}", b"Bearer " + key.encode()) for place, (key, _) in enumerate(made[:_CALLS])]


def test_a_thousand_known_callers(
    compared: Interleaved, known: tuple[PublishedAccess, list[tuple[str, bytes]]]
) -> None:
    """Who asks, and whether it may: what is done for every suggestion."""
    access, callers = known

    def ask() -> None:
        for tenant, header in callers:
            access.grant(header).check("suggest", tenant)

    compared(ask, beside="loop")


def test_an_unknown_caller(compared: Interleaved, known: tuple[PublishedAccess, list[tuple[str, bytes]]]) -> None:
    """A key that is none, which anybody can send as often as the network lets it."""
    access, strangers = known[0], cycle([b"Bearer " + make_key()[0].encode() for _ in range(_CALLS)])

    def ask() -> None:
        with pytest.raises(NotAuthenticated):
            access.grant(next(strangers))

    compared(ask, beside="loop")


def test_reading_changed_keys(compared: Interleaved, tmp_path: Path) -> None:
    """30,000 keys, of which one changed: what a thread of a server does then."""
    store = LocalStore(tmp_path)
    made = [make_key() for _ in range(KEYS)]
    keys = tuple(
        PublishedKey(prefix=prefix, digest=key_digest(key.encode()), tenant=f"t{place}", scopes=("suggest", "feedback"))
        for place, (key, prefix) in enumerate(made)
    )
    store.put(ACCESS_KEYS, PublishedKeys(source="0" * 32, generation=1, keys=keys).to_bytes())

    def read() -> None:
        PublishedAccess(store, poll_seconds=1, stale_seconds=1)._reader.refresh()  # one that knows none yet

    compared(read, beside="loop", rounds=6)
