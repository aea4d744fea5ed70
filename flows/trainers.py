"""The programs of a process that trains, and what trains with each; both opened when first asked for."""

from __future__ import annotations

from collections.abc import Iterable

from flows.need import fit_settings
from flows.settings import FlowSettings
from registry.disk.tier import DiskTier
from registry.errors import ProgramCorrupt
from registry.model.program import RELEASED_PROGRAMS
from registry.model.runtime import Program
from registry.store import ObjectStore
from registry.tenant_settings import Weights
from training.choosing import ChoosingTrainer, TenantTrainer, programs_of
from training.programs.release import build_and_publish
from training.settings import TrainingSettings
from training.trainer import Trainer


class Trainers:
    """What trains tenants, by program and type of weights. One thread's own.

    Args:
        settings: where programs go on this machine, and what a ticket may cost.

    Attributes:
        trusted: the digests of the programs there are.
    """

    def __init__(self, store: ObjectStore, settings: FlowSettings) -> None:
        self._store = store
        self._settings = settings
        self.trusted = frozenset(RELEASED_PROGRAMS.values())
        self._programs: dict[str, Program] = {}
        self._trainers: dict[tuple[str, Weights], Trainer] = {}

    def install(self, names: Iterable[str]) -> None:
        """Have programs on this machine's disk, built and published where the store lacks one; none is loaded."""
        tier = DiskTier(self._settings.disk_folder, self._store, trusted=self.trusted)
        for name in names:
            try:
                tier.install_program(RELEASED_PROGRAMS[name])
            except ProgramCorrupt:
                build_and_publish(name, self._store)

    def released(self, name: str) -> Program:
        """A program by name; built and published where the store lacks it."""
        digest = RELEASED_PROGRAMS[name]
        try:
            return self.program(digest)
        except ProgramCorrupt:
            build_and_publish(name, self._store)
            return self.program(digest)

    def program(self, digest: str) -> Program:
        """A released program, loaded once. Raises ProgramCorrupt and ProgramUntrusted."""
        if digest not in self._programs:
            tier = DiskTier(self._settings.disk_folder, self._store, trusted=self.trusted)
            self._programs[digest] = Program(tier.install_program(digest), trusted=self.trusted)
        return self._programs[digest]

    def of(self, settings: TrainingSettings) -> TenantTrainer:
        """What trains a tenant of these settings."""
        names = programs_of(settings.program)
        if len(names) == 1:
            return self._trainer(names[0], settings)
        budget = self._settings.latency_budget_milliseconds
        return ChoosingTrainer({name: self._trainer(name, settings) for name in names}, budget_milliseconds=budget)

    def _trainer(self, name: str, settings: TrainingSettings) -> Trainer:
        key = (name, settings.weights)
        if key not in self._trainers:
            self._trainers[key] = Trainer(self.released(name), fit_settings(settings))
        return self._trainers[key]
