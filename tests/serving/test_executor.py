"""Batching: a fake program that works when the test lets it, and the outcomes of single tickets."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from registry.errors import BundleCorrupt, DeadlineExceeded, NotReady, Overloaded, TenantThrottled
from registry.model.runtime import Features
from serving.engine.executor import Executor, Scores, Spare
from serving.stacks import stack_of
from tests.serving.helpers import eventually, spin

pytestmark = pytest.mark.anyio
SOON = 60.0


@dataclass
class FakeProgram:
    """Features of a text: its length. Batches wait at the gate."""

    batches: list[list[str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    raises: bool = False

    def featurise(self, texts: Sequence[str]) -> Features:
        self.batches.append(list(texts))
        assert self.gate.wait(SOON)
        if self.error is not None:
            raise self.error
        assert not self.raises or 1 // 0
        return Features({"length": np.array([len(text) for text in texts], np.float32)}, len(texts))


@dataclass
class FakeModel:
    factor: float = 1.0
    error: Exception | None = None
    raises: bool = False

    def score_ticket(self, features: Features, index: int) -> Scores:
        if self.error is not None:
            raise self.error
        assert not self.raises or 1 // 0
        scores: Scores = features.tensors["length"][index] * np.array([self.factor], np.float32)
        return scores


@dataclass
class Observed:
    batches: list[int] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def batch(self, size: int) -> None:
        self.batches.append(size)

    def phase(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.phases.append(name)


OBSERVED = Observed()


@pytest.fixture
def program() -> FakeProgram:
    return FakeProgram()


@pytest.fixture
async def make(program: FakeProgram) -> AsyncIterator[Callable[..., Executor]]:
    made: list[Executor] = []

    def make(max_queue: int = 100, *, in_thread: bool = True, **bounds: int) -> Executor:
        made.append(Executor(program, max_queue=max_queue, observer=OBSERVED, in_thread=in_thread, **bounds))
        return made[-1]

    yield make
    program.gate.set()
    for executor in made:
        executor.close()


def ask(
    executor: Executor, text: str, model: FakeModel | None = None, *, tenant: str = "a", seconds: float = SOON
) -> asyncio.Task[Scores]:
    async def scores() -> Scores:
        deadline = time.monotonic() + seconds
        return (await executor.score(model or FakeModel(), text, tenant=tenant, deadline=deadline))[0]

    return asyncio.create_task(scores())


async def busy(executor: Executor, program: FakeProgram) -> asyncio.Task[Scores]:
    """The executor at work on a ticket, so that what comes next queues up."""
    task = ask(executor, "first")
    await eventually(lambda: len(program.batches) == 1)
    return task


async def test_an_idle_executor_starts_at_once(program: FakeProgram, make: Callable[..., Executor]) -> None:
    program.gate.set()
    assert await ask(make(), "four", FakeModel(2)) == [8]
    assert program.batches == [["four"]]


async def test_what_queues_up_is_one_batch_of_all_tenants(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make()
    first = await busy(executor, program)
    tasks = [ask(executor, "x" * n, FakeModel(factor)) for n, factor in [(1, 10), (2, 100), (3, 1000)]]
    await spin()
    program.gate.set()
    assert [float(scores[0]) for scores in await asyncio.gather(first, *tasks)] == [5, 10, 200, 3000]
    assert program.batches[1:] == [["x", "xx", "xxx"]]


async def test_a_batch_is_bounded_by_count(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make(max_tickets=2)
    await busy(executor, program)
    tasks = [ask(executor, text) for text in "abcde"]
    await spin()
    program.gate.set()
    await asyncio.gather(*tasks)
    assert program.batches[1:] == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_long_ticket_makes_up_a_batch_of_its_own(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make(max_code_points=10)
    await busy(executor, program)
    texts = ["short", "x" * 50, "brief", "small"]
    tasks = [ask(executor, text) for text in texts]
    await spin()
    program.gate.set()
    await asyncio.gather(*tasks)
    assert program.batches[1:] == [["short"], ["x" * 50], ["brief", "small"]]


async def test_a_full_queue_refuses(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make(max_queue=2)
    await busy(executor, program)
    tasks = [ask(executor, text, tenant=text) for text in "ab"]
    await spin()
    assert executor.waiting == 2
    with pytest.raises(Overloaded):
        await ask(executor, "c", tenant="c")
    program.gate.set()
    await asyncio.gather(*tasks)


async def test_expired_and_cancelled_requests_are_dropped_before_work(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    executor = make()
    await busy(executor, program)
    expired, cancelled, alive = ask(executor, "expired", seconds=0), ask(executor, "cancelled"), ask(executor, "alive")
    await spin()
    cancelled.cancel()
    await spin()
    program.gate.set()
    with pytest.raises(DeadlineExceeded):
        await expired
    assert await alive == [5]
    assert program.batches[1:] == [["alive"]]


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_who_waits_no_more_leaves_the_queue(
    program: FakeProgram, make: Callable[..., Executor], how: str
) -> None:
    executor = make(max_queue=4, max_tickets=1)
    await busy(executor, program)
    model = FakeModel()
    kept = weakref.ref(model)
    gone = [ask(executor, text, model, tenant=text, seconds=0 if how == "expired" else SOON) for text in "abcd"]
    await spin()
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    assert executor.waiting == 0
    del model, gone, task
    await spin()
    assert kept() is None
    alive = ask(executor, "alive")
    program.gate.set()
    assert await alive == [5]
    assert program.batches[1:] == [["alive"]]


async def test_an_executor_whose_queue_held_only_dead_requests_goes_on(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    executor = make()
    first = await busy(executor, program)
    expired = ask(executor, "expired", seconds=0)
    await spin()
    program.gate.set()
    await first
    with pytest.raises(DeadlineExceeded):
        await expired
    assert await ask(executor, "next") == [4]


async def test_one_ticket_that_fails_fails_alone(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make()
    await busy(executor, program)
    models = [
        FakeModel(1),
        FakeModel(error=ValueError("odd")),
        FakeModel(float("nan")),
        FakeModel(float("inf")),
        FakeModel(2),
    ]
    tasks = [ask(executor, "word", model) for model in models]
    await spin()
    program.gate.set()
    fine, odd, nan, inf, fine_too = await asyncio.gather(*tasks, return_exceptions=True)
    assert fine == [4]
    assert fine_too == [8]
    assert isinstance(odd, ValueError)
    assert isinstance(nan, BundleCorrupt)
    assert isinstance(inf, BundleCorrupt)


async def test_a_batch_that_cannot_be_featurised_fails_alone(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    executor = make()
    program.error = RuntimeError("broken")
    first = await busy(executor, program)
    program.gate.set()
    with pytest.raises(RuntimeError, match="broken"):
        await first
    program.error = None
    assert await ask(executor, "next") == [4]


async def test_a_closed_executor_refuses_what_waits_and_what_comes(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    executor = make()
    first = await busy(executor, program)
    waiting = ask(executor, "waiting")
    await spin()
    program.gate.set()
    executor.close()
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await ask(executor, "late")
    assert await first == [5]


async def test_tenants_take_turns(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make(max_tickets=3)
    await busy(executor, program)
    flood = [ask(executor, f"a{number}", tenant="a") for number in range(5)]
    others = [ask(executor, "b0", tenant="b"), ask(executor, "c0", tenant="c")]
    await spin()
    program.gate.set()
    await asyncio.gather(*flood, *others)
    assert program.batches[1:] == [["a0", "b0", "c0"], ["a1", "a2", "a3"], ["a4"]]


async def test_a_tenant_may_not_fill_the_queue(program: FakeProgram, make: Callable[..., Executor]) -> None:
    executor = make(max_queue=8)
    await busy(executor, program)
    flood = [ask(executor, "x", tenant="a") for _ in range(2)]
    await spin()
    with pytest.raises(TenantThrottled) as refused:
        await ask(executor, "x", tenant="a")
    assert refused.value.bound == "tenant_queue"
    other = ask(executor, "y", tenant="b")
    await spin()
    program.gate.set()
    await asyncio.gather(*flood, other)


async def test_each_ticket_knows_when_what_was_done(program: FakeProgram, make: Callable[..., Executor]) -> None:
    program.gate.set()
    OBSERVED.phases.clear()
    _, job = await make().score(FakeModel(), "x", tenant="a", deadline=time.monotonic() + SOON)
    assert job.queued <= job.began <= job.featurised <= job.scored
    assert sorted(OBSERVED.phases) == ["featurise", "queue", "score"]


async def test_a_model_is_let_go_of_when_its_batch_is_done(program: FakeProgram, make: Callable[..., Executor]) -> None:
    program.gate.set()
    executor, model = make(), FakeModel()
    seen = weakref.ref(model)
    await ask(executor, "x", model)
    del model
    await eventually(lambda: seen() is None)


@pytest.mark.parametrize("in_thread", [True, False])
@pytest.mark.parametrize("fails", ["the model", "the program"])
async def test_a_model_whose_scoring_raises_is_let_go_of_without_a_collection(
    program: FakeProgram, make: Callable[..., Executor], in_thread: bool, fails: str
) -> None:
    program.gate.set()
    executor, model = make(in_thread=in_thread), FakeModel()
    seen = weakref.ref(model)
    if fails == "the model":
        model.raises = True
    else:
        program.raises = True
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError) as raised:
            await ask(executor, "x", model)
        # The log still says where.
        assert "1 // 0" in stack_of(raised.value)
        del raised, model
        await eventually(lambda: seen() is None)
    finally:
        gc.enable()


async def test_in_the_loop_what_came_together_is_one_batch(program: FakeProgram, make: Callable[..., Executor]) -> None:
    program.gate.set()
    before = threading.active_count()
    executor = make(in_thread=False)
    tasks = [ask(executor, "x" * n, FakeModel(n)) for n in (1, 2, 3)]
    assert [float(scores[0]) for scores in await asyncio.gather(*tasks)] == [1, 4, 9]
    assert program.batches == [["x", "xx", "xxx"]]
    assert threading.active_count() == before


async def test_in_the_loop_what_comes_in_the_turns_after_is_in_the_same_batch(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    program.gate.set()
    executor = make(in_thread=False, max_tickets=3)
    tasks = []
    for n in (1, 2, 3, 4):  # sockets are read one after the other: each request is there a turn later
        tasks.append(ask(executor, "x" * n))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert program.batches == [["x", "xx", "xxx"], ["xxxx"]]
    await ask(executor, "alone")
    assert program.batches[2:] == [["alone"]]


async def test_in_the_loop_a_batch_is_answered_before_the_next_one_begins(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    program.gate.set()
    executor = make(in_thread=False, max_tickets=1)

    async def begun_when_answered(text: str) -> int:
        await executor.score(FakeModel(), text, tenant="a", deadline=time.monotonic() + SOON)
        return len(program.batches)

    assert await asyncio.gather(*(begun_when_answered("x" * n) for n in (1, 2, 3))) == [1, 2, 3]
    assert executor.waiting == 0


async def test_in_the_loop_what_expired_during_a_batch_is_dropped_before_the_next(
    program: FakeProgram, make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop did nothing else meanwhile: no timer has said so."""
    program.gate.set()
    executor = make(in_thread=False, max_tickets=1)
    featurise, later = program.featurise, time.monotonic() + SOON / 2

    def slow(texts: Sequence[str]) -> Features:
        monkeypatch.setattr("serving.engine.executor.time", SimpleNamespace(monotonic=lambda: later))
        return featurise(texts)

    monkeypatch.setattr(program, "featurise", slow)
    first, second = ask(executor, "first"), ask(executor, "second", seconds=SOON / 3)
    assert (await first)[0] == 5
    with pytest.raises(DeadlineExceeded):
        await second
    assert program.batches == [["first"]]


async def test_in_the_loop_a_failed_batch_fails_its_tickets_alone(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    program.gate.set()
    executor = make(in_thread=False)
    program.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        await ask(executor, "first")
    program.error = None
    assert await ask(executor, "four") == [4]


async def test_in_the_loop_what_is_queued_at_the_end_is_refused(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    executor = make(in_thread=False)
    task = ask(executor, "four")
    await asyncio.sleep(0)
    assert executor.waiting == 1
    executor.close()
    with pytest.raises(NotReady):
        await task
    assert program.batches == []


# What nobody waits for


def spare(told: list[Scores | Exception], text: str, *, features: Features | None = None, index: int = 0) -> Spare:
    return Spare(FakeModel(), text, features, index, told.append)


IN_BOTH = pytest.mark.parametrize("in_thread", [True, False], ids=["thread", "loop"])


@IN_BOTH
async def test_what_nobody_waits_for_is_worked_on_when_no_request_waits(
    program: FakeProgram, make: Callable[..., Executor], in_thread: bool
) -> None:
    program.gate.set()
    executor, told = make(in_thread=in_thread, max_tickets=2), list[Scores | Exception]()
    for text in ("s1", "s22"):
        executor.when_free(spare(told, text))
    tasks = [ask(executor, text) for text in ("a", "b", "c")]
    await asyncio.gather(*tasks)
    await eventually(lambda: len(told) == 2)
    assert [list(np.asarray(scores)) for scores in told] == [[2], [3]]
    assert [batch for batch in program.batches if not batch[0].startswith("s")] == [["a", "b"], ["c"]]
    assert await ask(executor, "later") == [5]


async def test_a_request_waits_for_one_spare_ticket_at_most(
    program: FakeProgram, make: Callable[..., Executor]
) -> None:
    executor, told = make(), list[Scores | Exception]()
    for text in ("s1", "s2", "s3"):
        executor.when_free(spare(told, text))
    await eventually(lambda: len(program.batches) == 1)
    task = ask(executor, "request")
    await spin()
    program.gate.set()
    await task
    await eventually(lambda: len(told) == 3)
    assert program.batches == [["s1"], ["request"], ["s2"], ["s3"]]


@IN_BOTH
async def test_features_that_are_there_are_not_made_again(
    program: FakeProgram, make: Callable[..., Executor], in_thread: bool
) -> None:
    program.gate.set()
    executor, told = make(in_thread=in_thread), list[Scores | Exception]()
    deadline = time.monotonic() + SOON
    _, job = await executor.score(FakeModel(), "four", tenant="a", deadline=deadline)
    executor.when_free(spare(told, "other", features=job.features, index=job.index))
    await eventually(lambda: bool(told))
    assert (list(np.asarray(told[0])), program.batches) == ([4], [["four"]])


@IN_BOTH
async def test_a_spare_ticket_that_fails_is_told_and_no_more(
    program: FakeProgram, make: Callable[..., Executor], in_thread: bool
) -> None:
    program.gate.set()
    executor, told = make(in_thread=in_thread), list[Scores | Exception]()
    program.error = RuntimeError("no features")
    executor.when_free(spare(told, "a"))
    await eventually(lambda: len(told) == 1)
    program.error = None
    for model in (FakeModel(error=RuntimeError("no scores")), FakeModel(float("nan"))):
        executor.when_free(Spare(model, "b", None, 0, told.append))
    await eventually(lambda: len(told) == 3)
    assert [type(outcome) for outcome in told] == [RuntimeError, RuntimeError, BundleCorrupt]
    assert await ask(executor, "four") == [4]


async def test_what_is_spare_is_refused_at_the_end(program: FakeProgram, make: Callable[..., Executor]) -> None:
    program.gate.set()
    executor, told = make(in_thread=False), list[Scores | Exception]()
    executor.when_free(spare(told, "a"))
    executor.close()
    executor.when_free(spare(told, "b"))
    await spin()
    assert [type(outcome) for outcome in told] == [NotReady, NotReady]
