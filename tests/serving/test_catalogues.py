from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.errors import CatalogueUnavailable, StoreUnavailable
from registry.layout import catalogue_key
from registry.store import StoredObject
from registry.store.local import LocalStore
from serving.catalogues import Catalogues
from serving.threads import Workers
from tests.serving.helpers import eventually

pytestmark = pytest.mark.anyio


class CountingStore(LocalStore):
    """A local store whose reads are counted, and fail on demand."""

    broken = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str | None] = []

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        self.reads.append(etag)
        if self.broken:
            raise StoreUnavailable("the store is away")
        return super().get_if_changed(key, etag, max_bytes=max_bytes)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogues(store: CountingStore, clock: Clock) -> Iterator[Catalogues]:
    workers = Workers("test", 2)
    yield Catalogues(store, workers=workers, refresh_seconds=30, clock=clock, chance=lambda: 0.0)
    workers.close()


def write(store: LocalStore, *macros: Macro, etag: str | None = None) -> str:
    return write_catalogue(store, "acme", make_catalogue(macros), etag=etag)


async def test_only_what_anybody_may_see(store: CountingStore, catalogues: Catalogues) -> None:
    write(
        store,
        Macro(id="a", title="A"),
        Macro(id="b", title="B", active=False),
        Macro(id="c", title="C", restriction={"g": 1}),
    )
    assert await catalogues.titles("acme") == {"a": "A"}


async def test_first_readers_share_one_read(store: CountingStore, catalogues: Catalogues) -> None:
    write(store, Macro(id="a", title="A"))
    first, *others = await asyncio.gather(*(catalogues.titles("acme") for _ in range(5)))
    assert all(other is first for other in others)
    assert store.reads == [None]


async def test_an_old_one_is_handed_out_while_it_is_read_again(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    etag = write(store, Macro(id="a", title="A"))
    await catalogues.titles("acme")
    write(store, Macro(id="a", title="Renamed"), etag=etag)
    clock.now = 29
    assert await catalogues.titles("acme") == {"a": "A"}
    assert store.reads == [None]
    clock.now = 31
    for _ in range(3):
        assert await catalogues.titles("acme") == {"a": "A"}
    await eventually(lambda: not catalogues._refreshes)
    assert await catalogues.titles("acme") == {"a": "Renamed"}
    assert store.reads == [None, etag]


async def test_one_that_did_not_change_is_left_alone_for_as_long_again(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    etag = write(store, Macro(id="a", title="A"))
    await catalogues.titles("acme")
    for now in (31, 60, 62):
        clock.now = now
        await catalogues.titles("acme")
        await eventually(lambda: not catalogues._refreshes)
    assert store.reads == [None, etag, etag]


@pytest.mark.parametrize("damage", ["away", "deleted", "rubbish"])
async def test_one_that_cannot_be_read_again_stays(
    store: CountingStore, clock: Clock, catalogues: Catalogues, damage: str
) -> None:
    write(store, Macro(id="a", title="A"))
    await catalogues.titles("acme")
    if damage == "away":
        store.broken = True
    elif damage == "deleted":
        store.delete(catalogue_key("acme"))
    else:
        store.put(catalogue_key("acme"), b"{")
    clock.now = 31
    await catalogues.titles("acme")
    await eventually(lambda: not catalogues._refreshes)
    assert await catalogues.titles("acme") == {"a": "A"}
    assert len(store.reads) == 2


async def test_one_that_was_never_read_is_unavailable_and_tried_again(
    store: CountingStore, catalogues: Catalogues
) -> None:
    with pytest.raises(CatalogueUnavailable):
        await catalogues.titles("acme")
    write(store, Macro(id="a", title="A"))
    assert await catalogues.titles("acme") == {"a": "A"}


async def test_closing_ends_readings(store: CountingStore, clock: Clock, catalogues: Catalogues) -> None:
    write(store, Macro(id="a", title="A"))
    await catalogues.titles("acme")
    clock.now = 31
    await catalogues.titles("acme")
    await catalogues.close()
    assert not catalogues._refreshes


async def test_the_age_is_that_of_the_oldest_in_use(catalogues: Catalogues, store: CountingStore, clock: Clock) -> None:
    async def ask_busy() -> None:
        await catalogues.titles("busy")
        await eventually(lambda: not catalogues._refreshes)

    assert catalogues.oldest_seconds() == 0
    for tenant in ("busy", "quiet"):
        write_catalogue(store, tenant, make_catalogue([Macro(id="a", title="A")]), etag=None)
        await catalogues.titles(tenant)
    for _ in range(10):
        clock.now += 31
        await ask_busy()
    assert catalogues.oldest_seconds() == 0  # and not that of "quiet", which nobody asks for
    store.broken = True
    clock.now += 40
    await ask_busy()
    assert catalogues.oldest_seconds() == 40
