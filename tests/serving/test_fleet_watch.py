from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from registry.errors import ModelNotFound, NotReady, StoreUnavailable, TenantNotFound
from registry.fleet.state import Fleet, FleetEntry
from serving.fleet_watch import FleetWatch, ModelRef, model_refs
from serving.threads import Workers
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio
SERVES = FleetEntry(version="0" * 16, manifest="0" * 64)


class Source:
    """Hands out what it is given, one answer a call; the last one again and again."""

    def __init__(self, *answers: Fleet | Exception) -> None:
        self.answers = list(answers)

    def refresh(self) -> Fleet:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


MakeWatch = Callable[..., FleetWatch]


@pytest.fixture
def watch() -> Iterator[MakeWatch]:
    workers = Workers("test", 1)

    def make(*answers: Fleet | Exception, clock: Callable[[], float] = lambda: 0.0) -> FleetWatch:
        return FleetWatch(Source(*answers), workers=workers, poll_seconds=0.001, clock=clock)

    yield make
    workers.close()


async def test_before_the_first_reading_nothing_is_known(watch: MakeWatch) -> None:
    made = watch(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await made.refresh()
    with pytest.raises(NotReady):
        made.wanted("acme")
    assert (made.fleet, made.age_seconds) == (None, None)
    assert not made.serves("acme")
    assert not made.is_pinned("acme")


async def test_what_the_fleet_says_of_a_tenant(watch: MakeWatch) -> None:
    made = watch(Fleet(1, {"acme": SERVES, "new": FleetEntry(reason="too few examples"), "bare": FleetEntry()}))
    await made.refresh()
    assert made.wanted("acme") == ModelRef("acme", "0" * 16, "0" * 64)
    assert made.fleet is not None
    assert model_refs(made.fleet) == [made.wanted("acme")]
    assert [name for name in ("acme", "new", "bare", "globex") if made.serves(name)] == ["acme"]
    with pytest.raises(ModelNotFound, match="too few examples"):
        made.wanted("new")
    with pytest.raises(ModelNotFound):
        made.wanted("bare")
    for name in ("globex", "ACME", "", "..", "acme/models"):
        with pytest.raises(TenantNotFound, match=r"^there is no such tenant$"):
            made.wanted(name)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OSError("odd")])
async def test_a_fleet_that_cannot_be_read_leaves_the_last_one_valid(watch: MakeWatch, error: Exception) -> None:
    now = 0.0
    made = watch(Fleet(1, {"acme": SERVES}), error, clock=lambda: now)
    await made.refresh()
    now = 7.0
    with pytest.raises(type(error)):
        await made.refresh()
    assert made.wanted("acme")
    assert made.age_seconds == 7


async def test_who_waits_for_another_fleet_gets_it(watch: MakeWatch) -> None:
    first, second = Fleet(1, {}), Fleet(2, {})
    made = watch(first, first, second)
    waiting = asyncio.create_task(made.next_fleet(None))
    await made.refresh()
    assert await waiting is first
    waiting = asyncio.create_task(made.next_fleet(first))
    await made.refresh()
    await spin()
    assert not waiting.done()
    await made.refresh()
    assert await waiting is second


async def test_polling_goes_on_after_errors(watch: MakeWatch) -> None:
    last = Fleet(2, {})
    made = watch(StoreUnavailable("away"), OSError("odd"), Fleet(1, {}), last)
    polling = asyncio.create_task(made.run())
    fleet = await made.next_fleet(None)
    while fleet is not last:
        fleet = await made.next_fleet(fleet)
    polling.cancel()
