from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.errors import CatalogueUnavailable, StoreUnavailable
from registry.layout import catalogue_key, tenant_settings_key
from registry.model.bundle import Label
from registry.store import StoredObject
from registry.store.local import LocalStore
from registry.tenant_settings import edit_tenant_settings
from serving.suggestions.catalogues import Catalogues
from serving.suggestions.policy import EVERYBODY
from serving.threads import Workers
from tests.serving.helpers import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.anyio


class CountingStore(LocalStore):
    """A local store whose reads are counted, and fail on demand."""

    broken = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str | None] = []
        self.of_settings: list[str | None] = []

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        (self.reads if key.endswith("macros.json") else self.of_settings).append(etag)
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
    workers, again = Workers("test", 2), Workers("again", 1)
    yield Catalogues(store, workers=workers, again=again, refresh_seconds=30, clock=clock, chance=lambda: 0.0)
    workers.close()
    again.close()


async def titles(catalogues: Catalogues, tenant: str = "acme") -> dict[str, str]:
    """What anybody may be shown."""
    policy = await catalogues.policy(tenant)
    labels = [Label(id=name, title="") for name in "abcd"]
    shown = policy.shown("v", labels, EVERYBODY)
    may = [True] * len(labels) if shown.mask is None else shown.mask.tolist()
    return {label.id: shown.titles[label.id] for label, allowed in zip(labels, may, strict=True) if allowed}


def write(store: LocalStore, *macros: Macro, etag: str | None = None) -> str:
    return write_catalogue(store, "acme", make_catalogue(macros), etag=etag)


async def test_only_what_anybody_may_see(store: CountingStore, catalogues: Catalogues) -> None:
    write(
        store,
        Macro(id="a", title="A"),
        Macro(id="b", title="B", active=False),
        Macro(id="c", title="C", restriction={"g": 1}),
    )
    assert await titles(catalogues) == {"a": "A"}


async def again(catalogues: Catalogues, clock: Clock) -> dict[str, str]:
    """What holds after the next reading."""
    clock.now += 31
    await titles(catalogues)
    await eventually(lambda: not catalogues._refreshes)
    return await titles(catalogues)


async def test_rules_are_followed_as_they_change(store: CountingStore, clock: Clock, catalogues: Catalogues) -> None:
    etag = write(store, Macro(id="a", title="A"), Macro(id="b", title="B"))
    assert await titles(catalogues) == {"a": "A", "b": "B"}
    first = (await catalogues.policy("acme")).version
    edit_tenant_settings(store, ["acme"], {"exclude_macros": ["b"]})
    assert await again(catalogues, clock) == {"a": "A"}
    write(store, Macro(id="a", title="A2"), Macro(id="b", title="B"), etag=etag)
    assert await again(catalogues, clock) == {"a": "A2"}
    edit_tenant_settings(store, ["acme"], {"exclude_macros": None})
    assert await again(catalogues, clock) == {"a": "A2", "b": "B"}
    store.delete(tenant_settings_key("acme"))
    assert await again(catalogues, clock) == {"a": "A2", "b": "B"}
    assert (await catalogues.policy("acme")).version != first


async def test_a_tenant_without_settings_costs_no_whole_reading(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    etag = write(store, Macro(id="a", title="A"))
    before = await catalogues.policy("acme")
    await again(catalogues, clock)
    assert (store.reads, store.of_settings) == ([None, etag], [None, None])
    assert await catalogues.policy("acme") is before


async def test_what_nobody_asked_for_for_long_is_read_before_it_is_handed_out(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    etag = write(store, Macro(id="a", title="A"), Macro(id="b", title="B"))
    await titles(catalogues)
    write(store, Macro(id="a", title="A"), Macro(id="b", title="B", active=False), etag=etag)
    clock.now = 301
    assert await titles(catalogues) == {"a": "A"}
    store.broken = True
    clock.now = 700
    assert await titles(catalogues) == {"a": "A"}
    assert catalogues.known("acme") is not None  # it was tried, and is left alone for its pause


async def test_a_store_that_does_not_answer_is_not_waited_for(
    store: CountingStore, clock: Clock, catalogues: Catalogues, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, Macro(id="a", title="A"))
    await titles(catalogues)
    answers = threading.Event()
    monkeypatch.setattr(store, "get_if_changed", lambda *_, **__: answers.wait(60))
    clock.now = 301
    assert catalogues.known("acme") is None
    assert await titles(catalogues) == {"a": "A"}
    clock.now += 1
    assert catalogues.known("acme") is not None
    answers.set()
    await eventually(lambda: not catalogues._refreshes)


async def test_a_first_reading_waits_for_none_that_nobody_waits_for(
    store: CountingStore, clock: Clock, catalogues: Catalogues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand tenants in use are read again thirty times a second; a store may need a tenth of a second for each."""
    known = [f"known-{number}" for number in range(8)]
    for tenant in (*known, "new"):
        write_catalogue(store, tenant, make_catalogue([Macro(id="a", title="A")]), etag=None)
    for tenant in known:
        await titles(catalogues, tenant)
    answers, read = threading.Event(), store.get_if_changed

    def slow_again(key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        if etag is not None:
            assert answers.wait(PATIENCE_SECONDS)
        return read(key, etag, max_bytes=max_bytes)

    monkeypatch.setattr(store, "get_if_changed", slow_again)
    clock.now = 31
    for tenant in known:
        assert await titles(catalogues, tenant) == {"a": "A"}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            assert await titles(catalogues, "new") == {"a": "A"}
        assert len(catalogues._refreshes) == len(known)
    finally:
        answers.set()
    await eventually(lambda: not catalogues._refreshes)


async def test_rules_that_cannot_be_read_stay_or_stop_everything(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    write(store, Macro(id="a", title="A"), Macro(id="b", title="B"))
    store.put(tenant_settings_key("acme"), b'{"exclude_macros": "b"}')
    with pytest.raises(CatalogueUnavailable, match=r"settings\.json is not valid: exclude_macros"):
        await titles(catalogues)
    store.put(tenant_settings_key("acme"), b'{"exclude_macros": ["b"], "setting_of_a_later_release": 1}')
    assert await titles(catalogues) == {"a": "A"}
    store.put(tenant_settings_key("acme"), b"{")
    assert await again(catalogues, clock) == {"a": "A"}


async def test_a_first_reading_reads_both_beside_each_other(
    store: CountingStore, catalogues: Catalogues, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, Macro(id="a", title="A"), Macro(id="b", title="B"))
    edit_tenant_settings(store, ["acme"], {"exclude_macros": ["b"]})
    both, read = threading.Barrier(2), store.get_if_changed

    def meeting(key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        both.wait(PATIENCE_SECONDS)
        return read(key, etag, max_bytes=max_bytes)

    monkeypatch.setattr(store, "get_if_changed", meeting)
    assert await titles(catalogues) == {"a": "A"}


async def test_a_first_reading_needs_no_second_thread(store: CountingStore, clock: Clock) -> None:
    write(store, Macro(id="a", title="A"))
    workers = Workers("test", 1)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await titles(Catalogues(store, workers=workers, again=workers, refresh_seconds=30, clock=clock)) == {
                "a": "A"
            }
    finally:
        workers.close()


@pytest.mark.parametrize("object_", ["macros.json", "settings.json"])
async def test_a_first_reading_that_is_told_of_no_change_fails(
    store: CountingStore, catalogues: Catalogues, monkeypatch: pytest.MonkeyPatch, object_: str
) -> None:
    write(store, Macro(id="a", title="A"))
    edit_tenant_settings(store, ["acme"], {"exclude_macros": ["b"]})
    read = store.get_if_changed
    monkeypatch.setattr(
        store, "get_if_changed", lambda key, *_, **__: None if key.endswith(object_) else read(key, None)
    )
    with pytest.raises(CatalogueUnavailable, match="not changed"):
        await titles(catalogues)


async def test_first_readers_share_one_read(store: CountingStore, catalogues: Catalogues) -> None:
    write(store, Macro(id="a", title="A"))
    first, *others = await asyncio.gather(*(catalogues.policy("acme") for _ in range(5)))
    assert all(other is first for other in others)
    assert store.reads == [None]


async def test_an_old_one_is_handed_out_while_it_is_read_again(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    etag = write(store, Macro(id="a", title="A"))
    await titles(catalogues)
    write(store, Macro(id="a", title="Renamed"), etag=etag)
    clock.now = 29
    assert await titles(catalogues) == {"a": "A"}
    assert store.reads == [None]
    clock.now = 31
    for _ in range(3):
        assert await titles(catalogues) == {"a": "A"}
    await eventually(lambda: not catalogues._refreshes)
    assert await titles(catalogues) == {"a": "Renamed"}
    assert store.reads == [None, etag]


async def test_one_that_did_not_change_is_left_alone_for_as_long_again(
    store: CountingStore, clock: Clock, catalogues: Catalogues
) -> None:
    etag = write(store, Macro(id="a", title="A"))
    await titles(catalogues)
    for now in (31, 60, 62):
        clock.now = now
        await titles(catalogues)
        await eventually(lambda: not catalogues._refreshes)
    assert store.reads == [None, etag, etag]


@pytest.mark.parametrize("damage", ["away", "deleted", "rubbish"])
async def test_one_that_cannot_be_read_again_stays(
    store: CountingStore, clock: Clock, catalogues: Catalogues, damage: str
) -> None:
    write(store, Macro(id="a", title="A"))
    await titles(catalogues)
    if damage == "away":
        store.broken = True
    elif damage == "deleted":
        store.delete(catalogue_key("acme"))
    else:
        store.put(catalogue_key("acme"), b"{")
    clock.now = 31
    await titles(catalogues)
    await eventually(lambda: not catalogues._refreshes)
    assert await titles(catalogues) == {"a": "A"}
    assert len(store.reads) == 2


async def test_one_that_was_never_read_is_unavailable_and_tried_again(
    store: CountingStore, catalogues: Catalogues
) -> None:
    with pytest.raises(CatalogueUnavailable):
        await titles(catalogues)
    write(store, Macro(id="a", title="A"))
    assert await titles(catalogues) == {"a": "A"}


async def test_closing_ends_readings(store: CountingStore, clock: Clock, catalogues: Catalogues) -> None:
    write(store, Macro(id="a", title="A"))
    await titles(catalogues)
    clock.now = 31
    await titles(catalogues)
    await catalogues.close()
    assert not catalogues._refreshes


async def test_the_age_is_that_of_the_oldest_in_use(catalogues: Catalogues, store: CountingStore, clock: Clock) -> None:
    async def ask_busy() -> None:
        await titles(catalogues, "busy")
        await eventually(lambda: not catalogues._refreshes)

    assert catalogues.oldest_seconds() == 0
    for tenant in ("busy", "quiet"):
        write_catalogue(store, tenant, make_catalogue([Macro(id="a", title="A")]), etag=None)
        await titles(catalogues, tenant)
    for _ in range(10):
        clock.now += 31
        await ask_busy()
    assert catalogues.oldest_seconds() == 0  # and not that of "quiet", which nobody asks for
    store.broken = True
    clock.now += 40
    await ask_busy()
    assert catalogues.oldest_seconds() == 40
