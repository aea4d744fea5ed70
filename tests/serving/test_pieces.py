"""Long work in pieces: under a clock that steps move, so that a test says what took how long."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import DeadlineExceeded, Overloaded, TenantThrottled
from registry.text.steps import Steps, finished
from serving.engine.pieces import Pieces
from tests.serving.helpers import spin

pytestmark = pytest.mark.anyio
PIECE = 1.0
FAR = 1e6


@dataclass
class Clock:
    """Seconds that pass when somebody works."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """Work, and what was done in which order."""

    clock: Clock = field(default_factory=Clock)
    done: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def pieces(self, *, ahead_seconds: float = FAR, max_waiting: int = 64) -> Pieces:
        return Pieces(
            piece_seconds=PIECE,
            ahead_seconds=ahead_seconds,
            max_waiting=max_waiting,
            refused=self.refused.append,
            clock=self.clock,
        )

    def work(self, name: str, steps: int, *, seconds: float = PIECE) -> Steps[str]:
        try:
            for _ in range(steps):
                self.clock.now += seconds
                self.done.append(name)
                yield
        except GeneratorExit:
            self.done.append(f"{name} closed")
            raise
        return name


@pytest.fixture
def world() -> World:
    return World()


async def test_what_is_less_than_a_piece_is_done_at_once(world: World) -> None:
    run = world.pieces().run(world.work("a", 9, seconds=PIECE / 10), tenant="acme", deadline=FAR)
    with pytest.raises(StopIteration) as end:
        run.send(None)  # without a turn of any loop
    assert end.value.value == "a"


async def test_others_have_a_turn_after_every_piece(world: World) -> None:
    pieces = world.pieces()
    task = asyncio.create_task(pieces.run(world.work("a", 4), tenant="acme", deadline=FAR))
    while not task.done():
        before = world.done.count("a")
        await asyncio.sleep(0)
        world.done.append("loop")
        assert world.done.count("a") <= before + 1
    assert await task == "a"
    assert world.done.count("a") == 4
    assert pieces.waiting == 0


async def test_tenants_take_turns_and_each_has_its_own_in_order(world: World) -> None:
    pieces = world.pieces()
    names = [("acme", "a1"), ("acme", "a2"), ("bolt", "b1")]
    tasks = [
        asyncio.create_task(pieces.run(world.work(name, 3), tenant=tenant, deadline=FAR)) for tenant, name in names
    ]
    assert await asyncio.gather(*tasks) == ["a1", "a2", "b1"]
    assert world.done == ["a1", "a1", "b1", "a1", "b1", "b1", "a2", "a2", "a2"]


async def test_it_rests_for_three_times_as_long_as_it_worked(world: World) -> None:
    pieces = world.pieces(ahead_seconds=0)
    await asyncio.create_task(pieces.run(world.work("a", 1, seconds=PIECE / 2), tenant="acme", deadline=FAR))
    task = asyncio.create_task(pieces.run(world.work("b", 1, seconds=PIECE / 2), tenant="bolt", deadline=FAR))
    await spin()
    assert (world.done, pieces.waiting) == (["a"], 1)
    world.clock.now += 3 * PIECE / 2
    assert pieces._resting_seconds() == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await pieces.run(world.work("c", 0), tenant="bolt", deadline=FAR) == "c"


async def test_on_a_busy_loop_it_rests_longer_and_longer(world: World) -> None:
    pieces = world.pieces()
    task = asyncio.create_task(pieces.run(world.work("a", 100), tenant="acme", deadline=FAR))
    rests = []
    for turn in range(20):
        await asyncio.sleep(0)
        rests.append(pieces._rest)
        if turn < 10:
            world.clock.now += PIECE  # as if others had worked
    assert rests[:2] == [3, 6]
    assert max(rests) == rests[9] == 31
    assert rests[-1] == 3, "idle again"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("at", [0, 1, 3])
async def test_an_error_is_whose_work_it_was(world: World, at: int) -> None:
    def failing() -> Steps[str]:
        yield from world.work("bad", at)
        raise ValueError("of this ticket")

    pieces = world.pieces()
    good = asyncio.create_task(pieces.run(world.work("good", 3), tenant="bolt", deadline=FAR))
    with pytest.raises(ValueError, match="of this ticket"):
        await pieces.run(failing(), tenant="acme", deadline=FAR)
    assert await good == "good"
    assert pieces.waiting == 0


async def test_what_nobody_waits_for_is_not_gone_on_with(world: World) -> None:
    pieces = world.pieces()
    gone = asyncio.create_task(pieces.run(world.work("gone", 1000), tenant="acme", deadline=FAR))
    here = asyncio.create_task(pieces.run(world.work("here", 6), tenant="acme", deadline=FAR))
    await asyncio.sleep(0)
    gone.cancel()
    assert await here == "here"
    assert world.done.count("gone") < 10
    assert "gone closed" in world.done
    assert pieces.waiting == 0


async def test_late_work_is_refused_where_it_stands(world: World) -> None:
    pieces = world.pieces()
    with pytest.raises(DeadlineExceeded):
        await pieces.run(world.work("late", 100_000), tenant="acme", deadline=5.0)
    assert "late closed" in world.done
    assert world.refused == ["deadline"]
    assert pieces.waiting == 0


async def test_how_much_may_wait(world: World) -> None:
    pieces = world.pieces(max_waiting=8)

    def begin(tenant: str) -> asyncio.Task[str]:
        return asyncio.create_task(pieces.run(world.work(tenant, 1000), tenant=tenant, deadline=FAR))

    tasks = [begin("acme") for _ in range(3)]
    await spin()
    outcomes = [type(task.exception()) for task in tasks if task.done()]
    assert outcomes == [TenantThrottled]
    tasks += [begin(f"t{number}") for number in range(7)]
    await spin()
    assert [type(task.exception()) for task in tasks[3:] if task.done()] == [Overloaded]
    assert world.refused == ["tenant_queue", "queue_full"]
    assert pieces.waiting == 8
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert pieces.waiting == 0


@pytest.mark.parametrize("late", [True, False])
async def test_nothing_is_kept_of_what_failed(world: World, *, late: bool) -> None:
    class Text:
        pass

    def failing() -> Generator[None, None, str]:
        text = Text()
        yield from world.work("a", 3)
        raise ValueError(type(text).__name__)

    pieces = world.pieces()
    gc.collect()
    gc.disable()  # what is part of a cycle would stay until it looks
    kind: type[Exception] | None = None
    try:
        try:
            await pieces.run(failing(), tenant="acme", deadline=2.0 if late else FAR)
        except (DeadlineExceeded, ValueError) as error:  # `pytest.raises` keeps it
            kind = type(error)
        await spin()
        assert kind is (DeadlineExceeded if late else ValueError)
        assert not any(isinstance(each, Text) for each in gc.get_objects())
    finally:
        gc.enable()


WORK = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(WORK)
def test_everybody_gets_what_is_theirs(work: list[tuple[str, int]]) -> None:
    async def run() -> list[str]:
        world = World()
        pieces = world.pieces()
        made = await asyncio.gather(
            *(
                pieces.run(world.work(f"{tenant}{place}", steps), tenant=tenant, deadline=FAR)
                for place, (tenant, steps) in enumerate(work)
            )
        )
        assert pieces.waiting == 0
        return made

    assert asyncio.run(run()) == [f"{tenant}{place}" for place, (tenant, _) in enumerate(work)]


def test_work_can_be_done_without_pieces(world: World) -> None:
    assert finished(world.work("a", 3)) == "a"
