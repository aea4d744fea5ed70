"""Models by alias: a table that somebody else fills and empties, one call at a time, under a byte budget.

`serving.engine.cache` decides itself what stays in memory; here a platform does. So nothing is evicted: a model that does not
fit is refused, and the platform unloads others and asks again.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from registry.errors import ModelAlreadyLoaded, ModelNotFound, OutOfResources

# A model that is still there then may hang on a reference cycle: that of a failed request's error and its frames, say.
_COLLECT_SECONDS = 0.25


class Unloadable(Protocol):
    """What the table asks of a model."""

    @property
    def nbytes(self) -> int:
        """What it counts against the budget."""
        ...

    @property
    def memory(self) -> object:
        """The object whose end gives the memory back; takes weak references. Whoever uses the model keeps it alive."""
        ...

    def forget_pages(self) -> None:
        """Let the kernel have the memory back that the model could read again. Must not raise."""


M = TypeVar("M", bound=Unloadable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[M]):
    """A model under its alias.

    Attributes:
        url: where it was loaded from, as it was given.
        target: what the platform's callers call it; None where they did not say.
    """

    alias: str
    url: str
    target: str | None
    model: M


class LocalModels(Generic[M]):
    """Loads, finds and unloads models by alias. Owned by one event loop.

    Loads and unloads of one alias happen one after the other, in the order in which they were asked for, each judged by
    what the one before it left. So a second load waits for the first and is then refused, and an unload that comes while
    a load is under way waits for it and unloads. Different aliases do not wait for each other. A caller that goes away
    changes nothing: what it asked for is done.

    Whoever holds a model keeps it in memory, and `unload` waits until the last one has let go.

    Args:
        weigh: the bytes that a model will count, cheaply; its errors reach the caller of `load`.
        load: makes a model that counts as many bytes as it is told, or raises.
        budget_bytes: what all models together may count, those included that are being loaded and unloaded.
    """

    def __init__(
        self,
        *,
        weigh: Callable[[str], Awaitable[int]],
        load: Callable[[str, int], Awaitable[M]],
        budget_bytes: int,
    ) -> None:
        self._weigh = weigh
        self._make = load
        self._budget = budget_bytes
        self._nbytes = 0
        self._models: dict[str, Loaded[M]] = {}
        self._turns: dict[str, asyncio.Task[None]] = {}

    @property
    def nbytes(self) -> int:
        """What counts against the budget now."""
        return self._nbytes

    def __len__(self) -> int:
        """How many models are loaded."""
        return len(self._models)

    async def load(self, alias: str, url: str, *, target: str | None = None) -> None:
        """Have a model in memory under `alias`.

        Raises:
            ModelAlreadyLoaded: there is one, from this URL or another.
            OutOfResources: it does not fit into what is left of the budget.
            MacrofleetError: what `weigh` or `load` raised; nothing is kept of it.
        """
        await self._in_turn(alias, lambda: self._load(alias, url, target))

    async def unload(self, alias: str) -> None:
        """Take a model out of memory: found no longer at once, and gone when this returns.

        Raises:
            ModelNotFound: no model is loaded under `alias`.
        """
        await self._in_turn(alias, lambda: self._unload(alias))

    def find(self, alias: str) -> Loaded[M]:
        """The model under `alias`. Raises ModelNotFound."""
        try:
            return self._models[alias]
        except KeyError:
            raise not_loaded() from None

    def find_by_target(self, target: str | None) -> Loaded[M]:
        """The model that a caller of the platform means.

        Args:
            target: an alias, or what was said with the load; None means the only one there is.

        Raises:
            ModelNotFound: no model fits, or several do.
        """
        if target is not None and target in self._models:
            return self._models[target]
        return the_only(self.meant(None, target))

    def meant(self, alias: str | None, target: str | None) -> list[Loaded[M]]:
        """What `find`, and without an alias `find_by_target`, choose from; found in as many steps as nothing is."""
        fitting = [] if alias is not None else [one for one in self._models.values() if target in (None, one.target)]
        name = target if alias is None else alias
        named = None if name is None else self._models.get(name)
        return fitting if named is None else [named]

    def page(self, *, after: str | None, limit: int) -> tuple[list[Loaded[M]], bool]:
        """Models in the order of their aliases, from the first one after `after`, and whether there are more."""
        aliases = sorted(self._models)
        start = 0 if after is None else bisect_right(aliases, after)
        end = start + limit
        return [self._models[alias] for alias in aliases[start:end]], end < len(aliases)

    async def close(self) -> None:
        """Give up what is under way; whoever waits for it is cancelled."""
        turns = list(self._turns.values())
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)
        self._models.clear()

    async def _in_turn(self, alias: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        before = self._turns.get(alias)

        async def turn() -> None:
            if before is not None:
                await asyncio.wait([before])
            await work()

        task = self._turns[alias] = asyncio.create_task(turn())
        task.add_done_callback(lambda done: self._end_turn(alias, done))
        try:
            await asyncio.shield(task)
        finally:
            del task  # its error remembers this frame, and frames of the load that hold the mapping

    def _end_turn(self, alias: str, done: asyncio.Task[None]) -> None:
        if self._turns[alias] is done:
            del self._turns[alias]
        if not done.cancelled():
            done.exception()  # seen: where the caller has gone, nobody else looks

    async def _load(self, alias: str, url: str, target: str | None) -> None:
        if alias in self._models:
            raise ModelAlreadyLoaded("a model is loaded under that name", remedy="Unload it first.")
        nbytes = await self._weigh(url)
        left = self._budget - self._nbytes
        if nbytes > left:
            raise OutOfResources(
                f"the model counts {nbytes} bytes and {max(0, left)} of {self._budget} are left",
                remedy="Unload another model, or raise MACROFLEET_MEMORY_BYTES.",
            )
        self._nbytes += nbytes
        try:
            model = await self._make(url, nbytes)
        except BaseException:
            self._nbytes -= nbytes
            raise
        self._models[alias] = Loaded(alias, url, target, model)

    async def _unload(self, alias: str) -> None:
        loaded = self._models.pop(alias, None)
        if loaded is None:
            raise not_loaded()
        nbytes = loaded.model.nbytes
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        # Watched itself, and not the leases on it: a batch in another thread lets go a moment after its requests do.
        memory = weakref.ref(loaded.model.memory, lambda _: loop.call_soon_threadsafe(gone.set))
        loaded.model.forget_pages()
        del loaded
        while memory() is not None:
            try:
                async with asyncio.timeout(_COLLECT_SECONDS):
                    await gone.wait()
            except TimeoutError:
                gc.collect()
        self._nbytes -= nbytes


def the_only(fitting: Sequence[T]) -> T:
    """The model that fits. Raises ModelNotFound where none does, or several do."""
    if len(fitting) > 1:
        raise ModelNotFound(
            f"{len(fitting)} models are loaded that this could mean", remedy="Ask for one by the name it was given."
        )
    if not fitting:
        raise not_loaded()
    return fitting[0]


def not_loaded() -> ModelNotFound:
    return ModelNotFound("no model is loaded under that name", remedy="Load it first.")
