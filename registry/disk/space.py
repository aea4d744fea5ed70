"""What the models on disk take, which of them was used least recently, and which must stay.

Several processes may share the folder. What they have in common is on disk: a model is there or not, and the time of
its manifest's last change says when it was last used. Everything else is this process's idea of it: exact for what
it did itself, looked up again when a model is about to be evicted (was it used elsewhere?) and, now and then, for what
others installed and evicted. So processes that install at once may exceed the budget together, until the next look.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from registry.errors import OutOfResources
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.mapped import MappedModel

# How long a use of a model that was noted on disk is good for: a fleet in use must not keep the disk busy with notes.
_NOTE_SECONDS = 60.0
# How old the idea of what others installed and evicted may be.
_LOOK_SECONDS = 30.0
_REMEDY = "Give the disk tier more room (MACROFLEET_DISK_BYTES), or pin fewer models."


class ModelName(NamedTuple):
    """A model version of a tenant."""

    tenant: str
    version: str


class _Model:
    """Size in bytes, and when it was last used as far as this process knows."""

    __slots__ = ("size", "used")

    def __init__(self, size: int, used: float) -> None:
        self.size = size
        self.used = used


class DiskSpace:
    """Accounts for the models below a folder and evicts the least recently used. Safe to use from several threads.

    Args:
        folder: holds `tenant/version/`; may be missing.
        budget: the bytes that weights and label tables may take; None for no bound.
        keep: says of a model whether it must stay; called from any thread, must be quick and not call back.
        remove: takes a model's folder out of the way at once, or raises; returns what clears it up, or None where
            another process was quicker.
        on_evicted: told the bytes and the cause of every eviction, from any thread.
        later: runs a job in the background.
        clock: the time as files have it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        budget: int | None,
        keep: Callable[[str, str], bool] | None,
        remove: Callable[[Path], Callable[[], object] | None],
        on_evicted: Callable[[int, str], None] | None,
        later: Callable[[Callable[[], object]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._budget = budget
        self._keep = keep
        self._remove = remove
        self._on_evicted = on_evicted
        self._later = later
        self._clock = clock
        self._lock = threading.RLock()
        self._models: dict[ModelName, _Model] = {}
        self._bytes = 0
        self._reserved = 0
        # One entry a model, with a time of use that may be out of date; set right when it comes out.
        self._queue: list[tuple[float, int, ModelName, _Model]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._holds: Counter[ModelName] = Counter()
        self._mapped: WeakValueDictionary[ModelName, MappedModel] = WeakValueDictionary()
        self._noted: dict[ModelName, float] = {}
        self._looked: float | None = None
        self._look_waits = False
        self._looking = threading.Lock()
        # What changed while somebody looks, and so is known better than what he saw.
        self._changed: set[ModelName] | None = None

    # What is there

    def installed_bytes(self) -> int:
        """What the models take. Only the first call looks at the disk itself."""
        self._know()
        return self._bytes

    def gone(self, name: ModelName) -> None:
        """A model is not, or no longer, on disk."""
        with self._lock:
            self._note_change(name)
            self._drop(name)

    def remove(self, name: ModelName, cause: str) -> bool:
        """Take a model away, held, kept or not; False where it was gone. Raises what `remove` of the constructor does."""
        with self._evicting() as evicted:
            size = self._size(name)
            clear_up = self._remove(self._folder / name.tenant / name.version)
            self.gone(name)
            if clear_up is not None:
                evicted.append((clear_up, size, cause))
        return clear_up is not None

    def look(self) -> None:
        """Find out what other processes installed and evicted, and evict what is then too much."""
        with self._looking:
            self._look()
        with suppress(OutOfResources), self.room(0):
            pass

    # What is used

    @contextmanager
    def hold(self, name: ModelName) -> Iterator[None]:
        """Have a model neither evicted nor about to be, by this process, for as long as the context lasts."""
        with self._lock:
            self._holds[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._holds[name] -= 1
                if not self._holds[name]:
                    del self._holds[name]

    def used(self, name: ModelName) -> None:
        """A model was used. Takes no lock, and notes it on disk once a minute."""
        now = self._tick()
        model = self._models.get(name)
        if model is not None:
            model.used = now
        if now - self._noted.get(name, 0.0) >= _NOTE_SECONDS:
            # A tier that cannot be written serves what it holds; another process may have evicted it.
            with suppress(OSError):
                os.utime(self._manifest(name), (now, now))
            self._noted[name] = now

    def mapped(self, name: ModelName, model: MappedModel) -> None:
        """A model was mapped. While it lives, evicting it gives no space back, so others go first."""
        with self._lock:
            self._mapped[name] = model

    # Room

    @contextmanager
    def room(self, size: int, *, evict: bool = True) -> Iterator[Callable[[ModelName], None]]:
        """Have room for `size` bytes while the context lasts; whoever fills it calls what the context gives.

        Args:
            evict: make it, if need be.

        Raises:
            OutOfResources: there is none, and none to be made: the rest is held or kept, or `evict` is False.
        """
        left = 0
        if self._budget is not None:
            self._make_room(size, self._budget, evict=evict)
            left = size

        def fill(name: ModelName) -> None:
            nonlocal left
            with self._lock:
                self._reserved -= left
                left = 0
                self._note_change(name)
                self._add(name, size, self._tick())

        try:
            yield fill
        finally:
            with self._lock:
                self._reserved -= left

    def _make_room(self, size: int, budget: int, *, evict: bool) -> None:
        if size > budget:
            raise OutOfResources(f"a model of {size} bytes does not fit into a disk tier of {budget}", remedy=_REMEDY)
        self._know()
        with self._evicting() as evicted:
            while (missing := self._bytes + self._reserved + size - budget) > 0:
                if not evict or not self._evict("budget", evicted):
                    raise OutOfResources(
                        f"a disk tier of {budget} bytes lacks {missing} for a model of {size}", remedy=_REMEDY
                    )
            self._reserved += size

    def free(self, size: int, cause: str) -> bool:
        """Evict models of so many bytes in all; False when there were not so many."""
        self._know()
        with self._evicting() as evicted:
            freed = 0
            while freed < size:
                found = self._evict(cause, evicted)
                if not found:
                    return False
                freed += found
        return True

    @contextmanager
    def _evicting(self) -> Iterator[list[tuple[Callable[[], object], int, str]]]:
        """The lock, and what is to be done about the evicted once it is given back."""
        evicted: list[tuple[Callable[[], object], int, str]] = []
        try:
            with self._lock:
                yield evicted
        finally:
            for clear_up, size, cause in evicted:
                clear_up()
                if self._on_evicted is not None:
                    self._on_evicted(size, cause)

    def _evict(self, cause: str, evicted: list[tuple[Callable[[], object], int, str]]) -> int:
        """Take the least recently used model that may go out of the way; its bytes, 0 where there is none."""
        spared: list[ModelName] = []
        mapped: list[ModelName] = []
        victim = None
        while self._queue and victim is None:
            queued, _, name, model = heapq.heappop(self._queue)
            if self._models.get(name) is not model:
                continue  # gone since
            if self._holds[name] or (self._keep is not None and self._keep(*name)):
                spared.append(name)
            elif model.used > queued:
                self._enqueue(name, model)
            elif name in self._mapped:
                mapped.append(name)
            elif (elsewhere := self._used_elsewhere(name)) > model.used:
                model.used = elsewhere
                self._enqueue(name, model)
            else:
                victim = name
        if victim is None and mapped:
            victim = mapped.pop(0)
        # What stays because it is in use counts as used: it does not come first again the next time, nor elsewhere.
        for name in (*mapped, *spared):
            self.used(name)
            self._enqueue(name, self._models[name])
        if victim is None:
            return 0
        model = self._models[victim]
        try:
            clear_up = self._remove(self._folder / victim.tenant / victim.version)
        except BaseException:
            self._enqueue(victim, model)
            raise
        self._note_change(victim)
        self._drop(victim)
        if clear_up is not None:
            evicted.append((clear_up, model.size, cause))
        return max(model.size, 1)

    # The idea of what is there

    def _know(self) -> None:
        """See to it that there is an idea of what is on disk that is not too old, or soon will be."""
        if self._looked is None:
            with self._looking:
                if self._looked is None:
                    self._look()
        elif self._clock() - self._looked > _LOOK_SECONDS and not self._look_waits:
            self._look_waits = True
            self._later(self.look)

    def _look(self) -> None:
        self._look_waits = False
        with self._lock:
            self._changed = set()
            started = self._clock()
        found: dict[ModelName, tuple[int, float]] = {}
        try:
            for name in self._names():
                known = self._models.get(name)
                size = self._size(name) if known is None else known.size
                found[name] = (size, self._used_elsewhere(name))
        finally:
            with self._lock:
                changed, self._changed = self._changed or set(), None
        with self._lock:
            for name in self._models.keys() - found.keys() - changed:
                self._drop(name)
            for name, (size, used) in found.items():
                if name not in changed and name not in self._models:
                    self._add(name, size, used)
            self._looked = started

    def _names(self) -> Iterator[ModelName]:
        for tenant in folders(self._folder):
            for version in folders(self._folder / tenant):
                yield ModelName(tenant, version)

    def _size(self, name: ModelName) -> int:
        size = 0
        for file in (WEIGHTS, LABELS):
            with suppress(OSError):
                size += os.stat(self._folder / name.tenant / name.version / file).st_size
        return size

    def _used_elsewhere(self, name: ModelName) -> float:
        try:
            return os.stat(self._manifest(name)).st_mtime
        except OSError:
            return 0.0

    def _manifest(self, name: ModelName) -> str:
        return os.path.join(self._folder, name.tenant, name.version, MANIFEST)

    def _add(self, name: ModelName, size: int, used: float) -> None:
        if name in self._models:
            self._bytes -= self._models[name].size
            self._models[name].size = size
            self._models[name].used = max(self._models[name].used, used)
        else:
            self._models[name] = _Model(size, used)
            self._enqueue(name, self._models[name])
        self._bytes += size

    def _drop(self, name: ModelName) -> None:
        model = self._models.pop(name, None)
        if model is not None:
            self._bytes -= model.size
        self._noted.pop(name, None)

    def _enqueue(self, name: ModelName, model: _Model) -> None:
        heapq.heappush(self._queue, (model.used, next(self._order), name, model))

    def _note_change(self, name: ModelName) -> None:
        if self._changed is not None:
            self._changed.add(name)

    def _tick(self) -> float:
        """The time, later at every call: the order of uses must not hang on how finely a clock ticks."""
        self._now = max(self._clock(), self._now + 1e-5)
        return self._now


def folders(path: Path) -> list[str]:
    """The names of the folders in a folder; none where it cannot be read."""
    with contextlib.suppress(OSError), os.scandir(path) as scan:
        return [entry.name for entry in scan if entry.is_dir(follow_symlinks=False)]
    return []
