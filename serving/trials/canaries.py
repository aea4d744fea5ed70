"""What the answers of a staged roll-out's canaries are like, under the version on trial and under the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from registry.fleet.state import Fleet
from serving.fleet_watch import ModelRef

Outcome: TypeAlias = Literal["suggested", "abstained", "failed"]
Which: TypeAlias = Literal["new", "before"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("suggested", "abstained", "failed")
Heard: TypeAlias = Literal["accepted", "declined"]
HEARD: Final[tuple[Heard, ...]] = ("accepted", "declined")
WHICH: Final[tuple[Which, ...]] = ("new", "before")
# Of one tenant; the one that serves and the one before are what a trial compares.
_VERSIONS = 2


class Canaries:
    """Counts answers by tenant and version, so that a trial finds how things were before. Owned by one event loop.

    Two versions of each tenant are remembered, since the process began: the one that serves, and the one before.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, dict[Outcome, int]]] = {}
        self._all: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
        self._heard: dict[str, dict[str, dict[Heard, int]]] = {}
        self._all_heard: dict[Heard, int] = dict.fromkeys(HEARD, 0)
        self._trials: dict[str, tuple[ModelRef, str]] = {}

    def hear(self, tenant: str, version: str, outcome: Heard) -> None:
        """An agent of a tenant in the fleet applied one of the macros that a version had suggested, or did not.

        Versions that answered nothing here are not counted by version: whoever gives feedback may name any.
        """
        self._all_heard[outcome] += 1
        if version in self._counts.get(tenant, ()):
            versions = self._heard.setdefault(tenant, {})
            versions.setdefault(version, dict.fromkeys(HEARD, 0))[outcome] += 1
            for gone in versions.keys() - self._counts[tenant].keys():
                del versions[gone]

    def count(self, tenant: str, version: str, outcome: Outcome) -> None:
        """A request of a tenant in the fleet was answered by a version, or failed while that one was to answer."""
        self._all[outcome] += 1
        versions = self._counts.get(tenant)
        if versions is None:
            versions = self._counts[tenant] = {}
        counts = versions.get(version)
        if counts is None:
            if len(versions) == _VERSIONS:
                del versions[next(iter(versions))]
            counts = versions[version] = dict.fromkeys(OUTCOMES, 0)
        counts[outcome] += 1

    def follow(self, fleet: Fleet) -> None:
        """Learn who is on trial, and forget who has left the fleet."""
        self._counts = {tenant: counts for tenant, counts in self._counts.items() if tenant in fleet.entries}
        for tenant, versions in self._counts.items():
            # The one that serves is the last to go: after a roll-back it came first.
            serves = fleet.entries[tenant].version
            if serves in versions:
                versions[serves] = versions.pop(serves)
        self._heard = {tenant: heard for tenant, heard in self._heard.items() if tenant in fleet.entries}
        self._trials = {
            tenant: (ModelRef(tenant, entry.version, entry.manifest), entry.previous)
            for tenant, entry in fleet.entries.items()
            if entry.is_canary and entry.version and entry.manifest and entry.previous
        }

    def on_trial(self) -> list[ModelRef]:
        """The versions on trial."""
        return [ref for ref, _ in self._trials.values()]

    def answers(self, which: Which, outcome: Outcome) -> int:
        """Answers of the tenants on trial under that version ("new") or the one before."""
        total = 0
        for tenant, (ref, before) in self._trials.items():
            counts = self._counts.get(tenant, {}).get(ref.version if which == "new" else before)
            total += counts[outcome] if counts else 0
        return total

    def heard(self, which: Which, outcome: Heard) -> int:
        """What was heard of the suggestions of the tenants on trial, by the version that made them."""
        total = 0
        for tenant, (ref, before) in self._trials.items():
            counts = self._heard.get(tenant, {}).get(ref.version if which == "new" else before)
            total += counts[outcome] if counts else 0
        return total

    def all_heard(self) -> Mapping[tuple[str, ...], int]:
        """What was heard of the suggestions to every tenant, by outcome."""
        return {(outcome,): count for outcome, count in self._all_heard.items()}

    def all_answers(self) -> Mapping[tuple[str, ...], int]:
        """Answers of every tenant, by outcome."""
        return {(outcome,): count for outcome, count in self._all.items()}
