"""The disk tier's budget: who is evicted, who is not, and what other processes do meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.background import Background
from registry.disk import tier as disk_tier
from registry.disk import transfer
from registry.disk.space import ModelName
from registry.disk.tier import DiskTier
from registry.errors import BundleCorrupt, OutOfResources, StoreError
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model import mapped
from registry.model.bundle import Manifest
from registry.model.mapped import MappedModel
from registry.store.local import LocalStore

TENANTS = [f"t{number}" for number in range(6)]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Fleet:
    """Six models of one size in a store, and tiers over one folder."""

    def __init__(self, root: Path, publish: Callable[..., Manifest]) -> None:
        self.folder = root / "disk"
        self.store = LocalStore(root / "store")
        self.models = {tenant: publish(self.store, tenant) for tenant in TENANTS}
        self.size = sum(file.size for file in self.models["t0"].files.values())
        self.clock = Clock()
        self.evicted: list[tuple[int, str]] = []
        self.tiers: list[DiskTier] = []

    def tier(self, *, models: int | None, **options: Any) -> DiskTier:
        """A tier for so many models."""
        options = {"on_evicted": lambda size, cause: self.evicted.append((size, cause)), **options}
        tier = DiskTier(
            self.folder,
            self.store,
            trusted=frozenset(),
            budget_bytes=None if models is None else models * self.size,
            clock=self.clock,
            **options,
        )
        self.tiers.append(tier)
        return tier

    def install(self, tier: DiskTier, tenant: str, **options: Any) -> None:
        model = self.models[tenant]
        assert tier.install_model(tenant, model.version, model.digest, **options) == model

    def open(self, tier: DiskTier, tenant: str, **options: Any) -> MappedModel:
        model = self.models[tenant]
        return tier.open_model(tenant, model.version, model.digest, **options)

    def has(self, tenant: str) -> bool:
        return (self.folder / "models" / tenant / self.models[tenant].version).is_dir()

    @property
    def on_disk(self) -> list[str]:
        return [tenant for tenant in TENANTS if self.has(tenant)]

    def close(self) -> None:
        for tier in self.tiers:
            tier.close()


@pytest.fixture
def fleet(tmp_path: Path, publish: Callable[..., Manifest]) -> Iterator[Fleet]:
    made = Fleet(tmp_path, publish)
    yield made
    made.close()


def test_the_least_recently_used_goes_when_room_is_needed(fleet: Fleet) -> None:
    tier = fleet.tier(models=3)
    for tenant in ("t0", "t1", "t2"):
        fleet.install(tier, tenant)
    fleet.open(tier, "t0")
    fleet.install(tier, "t3")
    assert fleet.on_disk == ["t0", "t2", "t3"]
    fleet.install(tier, "t2")  # there already: that is a use as well
    fleet.install(tier, "t4")
    assert fleet.on_disk == ["t2", "t3", "t4"]
    tier.note_use("t2", fleet.models["t2"].version)
    fleet.install(tier, "t5")
    assert fleet.on_disk == ["t2", "t4", "t5"]
    assert tier.installed_bytes() == 3 * fleet.size
    assert fleet.evicted == [(fleet.size, "budget")] * 3
    tier.settle()  # a record that is being written lies there too
    assert list((fleet.folder / "incoming").iterdir()) == [], "evicted is removed, not put aside"


def test_without_a_budget_nothing_goes(fleet: Fleet) -> None:
    tier = fleet.tier(models=None)
    for tenant in TENANTS:
        fleet.install(tier, tenant)
    assert fleet.on_disk == TENANTS
    assert tier.installed_bytes() == 6 * fleet.size


def test_room_is_made_before_the_download(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = fleet.tier(models=2)
    fleet.install(tier, "t0")
    fleet.install(tier, "t1")
    real = transfer.receive

    def noticed(*args: Any, **options: Any) -> Any:
        assert fleet.on_disk == ["t1"]
        return real(*args, **options)

    monkeypatch.setattr(disk_tier, "receive", noticed)
    fleet.install(tier, "t2")
    assert fleet.on_disk == ["t1", "t2"]


def test_a_model_that_is_larger_than_the_budget_evicts_nothing(fleet: Fleet, publish: Callable[..., Manifest]) -> None:
    tier = fleet.tier(models=2)
    fleet.install(tier, "t0")
    fleet.models["t1"] = publish(fleet.store, "t1", rows=1_000)
    with pytest.raises(OutOfResources, match="MACROFLEET_DISK_BYTES"):
        fleet.install(tier, "t1")
    assert fleet.on_disk == ["t0"]
    tier.settle()  # a record that is being written lies there too
    assert list((fleet.folder / "incoming").iterdir()) == []


def test_preloading_does_not_evict(fleet: Fleet) -> None:
    tier = fleet.tier(models=2)
    fleet.install(tier, "t0", evict=False)
    fleet.install(tier, "t1", evict=False)
    for _ in range(2):  # a refusal takes no room
        with pytest.raises(OutOfResources):
            fleet.install(tier, "t2", evict=False)
        with pytest.raises(OutOfResources):
            fleet.open(tier, "t2", evict=False)
    fleet.install(tier, "t1", evict=False)
    assert fleet.on_disk == ["t0", "t1"]
    assert fleet.evicted == []


def test_what_the_server_keeps_stays(fleet: Fleet) -> None:
    kept = {("t0", fleet.models["t0"].version)}
    tier = fleet.tier(models=2, keep=lambda tenant, version: (tenant, version) in kept)
    for tenant in ("t0", "t1", "t2"):
        fleet.install(tier, tenant)
    assert fleet.on_disk == ["t0", "t2"]
    kept.add(("t2", fleet.models["t2"].version))
    with pytest.raises(OutOfResources):
        fleet.install(tier, "t3")
    assert fleet.on_disk == ["t0", "t2"]
    kept.clear()
    fleet.install(tier, "t3")
    assert len(fleet.on_disk) == 2
    assert fleet.has("t3")


def test_what_is_held_stays_and_goes_when_it_is_let_go(fleet: Fleet) -> None:
    tier = fleet.tier(models=1)
    version = fleet.models["t0"].version
    with tier.hold("t0", version), tier.hold("t0", version):
        fleet.install(tier, "t0")
        with pytest.raises(OutOfResources):
            fleet.install(tier, "t1")
    fleet.install(tier, "t1")
    assert fleet.on_disk == ["t1"]


def test_a_model_that_is_being_opened_is_not_evicted_by_another_load(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its installation and its mapping another thread needs the room."""
    tier = fleet.tier(models=1)
    real = mapped.map_files

    def crowded(*args: Any) -> MappedModel:
        with pytest.raises(OutOfResources):
            fleet.install(tier, "t1")
        return real(*args)

    monkeypatch.setattr(disk_tier, "map_files", crowded)
    assert fleet.open(tier, "t0").manifest == fleet.models["t0"]


def test_those_that_are_mapped_go_after_those_that_are_not(fleet: Fleet) -> None:
    """What is mapped keeps its space when its name is removed."""
    tier = fleet.tier(models=3)
    opened = [fleet.open(tier, "t0")]
    fleet.install(tier, "t1")
    opened.append(fleet.open(tier, "t2"))
    fleet.install(tier, "t3")
    assert fleet.on_disk == ["t0", "t2", "t3"]
    opened.append(fleet.open(tier, "t3"))
    fleet.install(tier, "t4")
    assert fleet.on_disk == ["t0", "t3", "t4"], "all are mapped; the one that was passed over counts as used"
    opened.clear()


def test_models_that_are_installed_at_once_do_not_take_the_same_room(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = fleet.tier(models=2)
    meeting = threading.Barrier(2)
    real = transfer.receive

    def together(*args: Any, **options: Any) -> Any:
        meeting.wait(60)
        return real(*args, **options)

    monkeypatch.setattr(disk_tier, "receive", together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda tenant: fleet.install(tier, tenant), ("t0", "t1")))
        assert fleet.on_disk == ["t0", "t1"]
        list(pool.map(lambda tenant: fleet.install(tier, tenant), ("t2", "t3")))
    assert fleet.on_disk == ["t2", "t3"]
    assert tier.installed_bytes() == 2 * fleet.size


def test_a_model_is_not_counted_twice_while_its_room_is_still_reserved(fleet: Fleet) -> None:
    space = fleet.tier(models=2)._space
    with space.room(fleet.size) as fill:
        fill(ModelName("t0", "0" * 16))
        with space.room(fleet.size, evict=False):
            pass


def test_a_failed_download_gives_its_room_back(fleet: Fleet) -> None:
    tier = fleet.tier(models=1)
    weights = fleet.store._path(f"tenants/t0/models/{fleet.models['t0'].version}/{WEIGHTS}")
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    with pytest.raises(BundleCorrupt):
        fleet.install(tier, "t0")
    assert tier.installed_bytes() == 0
    fleet.install(tier, "t1", evict=False)


def test_a_damaged_copy_does_not_count_twice(fleet: Fleet) -> None:
    tier = fleet.tier(models=2)
    fleet.install(tier, "t0")
    fleet.install(tier, "t1")
    (tier.model_folder("t0", fleet.models["t0"].version) / WEIGHTS).unlink()
    fleet.install(tier, "t0", evict=False)
    assert fleet.on_disk == ["t0", "t1"]
    assert tier.installed_bytes() == 2 * fleet.size


# Several processes


def test_what_lies_there_from_before_counts_and_its_last_use_is_known(fleet: Fleet) -> None:
    before = fleet.tier(models=3)
    for tenant in ("t0", "t1", "t2"):
        fleet.clock.now += 1
        fleet.install(before, tenant)
    fleet.clock.now += 100
    fleet.install(before, "t0")
    before.close()
    tier = fleet.tier(models=3)
    assert tier.installed_bytes() == 3 * fleet.size
    fleet.install(tier, "t3")
    assert fleet.on_disk == ["t0", "t2", "t3"]


def test_a_use_is_written_down_once_a_minute(fleet: Fleet) -> None:
    tier = fleet.tier(models=1)
    fleet.install(tier, "t0")
    manifest = tier.model_folder("t0", fleet.models["t0"].version) / MANIFEST
    first = manifest.stat().st_mtime_ns
    fleet.clock.now += 59
    fleet.install(tier, "t0")
    assert manifest.stat().st_mtime_ns == first
    fleet.clock.now += 2
    fleet.open(tier, "t0")
    assert manifest.stat().st_mtime == pytest.approx(fleet.clock.now, abs=1e-3)


def test_a_model_that_another_process_used_is_not_the_least_recently_used(fleet: Fleet) -> None:
    tier, other = fleet.tier(models=2), fleet.tier(models=2)
    fleet.install(tier, "t0")
    fleet.install(tier, "t1")
    fleet.clock.now += 100
    fleet.install(other, "t0")
    fleet.install(tier, "t2")
    assert fleet.on_disk == ["t0", "t2"]


def test_what_another_process_installed_is_found_out_and_made_up_for(fleet: Fleet) -> None:
    tier, other = fleet.tier(models=2), fleet.tier(models=2)
    assert tier.installed_bytes() == other.installed_bytes() == 0
    fleet.install(tier, "t0")
    fleet.clock.now += 1
    for tenant in ("t1", "t2"):
        fleet.install(other, tenant)
        fleet.clock.now += 1
    assert tier.installed_bytes() == fleet.size, "not looked at on every call"
    fleet.clock.now += 31
    tier.installed_bytes()
    tier.settle()
    assert tier.installed_bytes() == 2 * fleet.size
    assert fleet.on_disk == ["t1", "t2"]


def test_what_another_process_evicted_is_found_out(fleet: Fleet) -> None:
    tier, other = fleet.tier(models=2), fleet.tier(models=1)
    fleet.install(tier, "t0")
    fleet.install(tier, "t1")
    fleet.install(other, "t2")
    assert fleet.on_disk == ["t2"]
    fleet.evicted.clear()
    fleet.install(tier, "t3")
    assert fleet.evicted == [], "what is gone is not evicted again"
    fleet.clock.now += 31
    tier.installed_bytes()
    tier.settle()
    assert tier.installed_bytes() == 2 * fleet.size


def test_what_another_process_evicted_no_longer_counts(fleet: Fleet) -> None:
    tier, other = fleet.tier(models=6), fleet.tier(models=1)
    fleet.install(tier, "t0")
    assert tier.installed_bytes() == fleet.size
    fleet.install(other, "t1")
    assert fleet.on_disk == ["t1"]
    fleet.install(tier, "t2")
    fleet.clock.now += 31
    tier.installed_bytes()
    tier.settle()
    assert tier.installed_bytes() == 2 * fleet.size


@pytest.mark.parametrize("times", [1, 2])
def test_a_model_that_another_process_evicts_before_it_is_mapped_is_installed_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    tier = fleet.tier(models=1)
    real = mapped.map_files
    left = times

    def evicted_before(folder: Path, *args: Any) -> MappedModel:
        nonlocal left
        if left:
            left -= 1
            shutil.rmtree(folder)
        return real(folder, *args)

    monkeypatch.setattr(disk_tier, "map_files", evicted_before)
    assert fleet.open(tier, "t0").manifest == fleet.models["t0"]


def test_a_mapped_model_outlives_its_eviction(fleet: Fleet) -> None:
    tier, other = fleet.tier(models=1), fleet.tier(models=1)
    model = fleet.open(tier, "t0")
    before = model.tensors["kernel"].copy()
    fleet.install(other, "t1")
    assert fleet.on_disk == ["t1"]
    model.forget_pages()
    assert (model.tensors["kernel"] == before).all()


def test_what_is_installed_while_somebody_looks_is_not_forgotten(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look goes through the folders one by one: what comes or goes behind its back is known better elsewhere."""
    tier = fleet.tier(models=6)
    fleet.install(tier, "t0")
    space = tier._space
    real = space._names

    def names() -> Iterator[Any]:
        seen = list(real())
        monkeypatch.setattr(space, "_names", real)
        yield from seen
        fleet.install(tier, "t1")
        tier._set_aside(tier.model_folder("t0", fleet.models["t0"].version))

    monkeypatch.setattr(space, "_names", names)
    space.look()
    assert tier.installed_bytes() == fleet.size
    assert fleet.on_disk == ["t1"]


# A disk that is full


class FullDisk:
    """Refuses to write weights until so many bytes were evicted."""

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *, evictions: int, number: int) -> None:
        real = transfer.receive
        self.attempts = 0

        def receive(*args: Any, **options: Any) -> Any:
            self.attempts += 1
            if len(fleet.evicted) < evictions:
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        monkeypatch.setattr(disk_tier, "receive", receive)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("models", [None, 6])
def test_a_full_disk_is_made_room_on_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, models: int | None, number: int
) -> None:
    tier = fleet.tier(models=models)
    fleet.install(tier, "t0")
    fleet.install(tier, "t1")
    FullDisk(fleet, monkeypatch, evictions=1, number=number)
    fleet.install(tier, "t2")
    assert fleet.on_disk == ["t1", "t2"]
    assert fleet.evicted == [(fleet.size, "no_space")]


def test_a_disk_that_stays_full_is_reported_and_not_emptied(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = fleet.tier(models=6)
    for tenant in ("t0", "t1", "t2"):
        fleet.install(tier, tenant)
    disk = FullDisk(fleet, monkeypatch, evictions=99, number=errno.ENOSPC)
    with pytest.raises(StoreError, match="No space left"):
        fleet.install(tier, "t3")
    assert disk.attempts == 2
    assert fleet.on_disk == ["t1", "t2"]
    tier.settle()  # a record that is being written lies there too
    assert list((fleet.folder / "incoming").iterdir()) == []


def test_a_full_disk_with_nothing_to_evict_is_reported(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = fleet.tier(models=6)
    disk = FullDisk(fleet, monkeypatch, evictions=99, number=errno.ENOSPC)
    with pytest.raises(StoreError, match="No space left"):
        fleet.install(tier, "t3")
    assert disk.attempts == 1


def test_preloading_does_not_evict_from_a_full_disk(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = fleet.tier(models=6)
    fleet.install(tier, "t0")
    FullDisk(fleet, monkeypatch, evictions=99, number=errno.ENOSPC)
    with pytest.raises(OutOfResources):
        fleet.install(tier, "t1", evict=False)
    assert fleet.on_disk == ["t0"]


def test_another_failure_to_write_evicts_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = fleet.tier(models=6)
    fleet.install(tier, "t0")
    disk = FullDisk(fleet, monkeypatch, evictions=99, number=errno.EMFILE)
    with pytest.raises(StoreError, match="cannot write below"):
        fleet.install(tier, "t1")
    assert disk.attempts == 1
    assert fleet.on_disk == ["t0"]


def test_a_victim_that_cannot_be_moved_is_reported_and_still_counted(fleet: Fleet) -> None:
    tier = fleet.tier(models=1)
    fleet.install(tier, "t0")
    tier.settle()
    (fleet.folder / "incoming").rmdir()
    (fleet.folder / "incoming").touch()
    with pytest.raises(StoreError, match="cannot write below"):
        fleet.install(tier, "t1")
    assert tier.installed_bytes() == fleet.size
    (fleet.folder / "incoming").unlink()
    fleet.install(tier, "t1")
    assert fleet.on_disk == ["t1"]


def test_phases_are_told(fleet: Fleet) -> None:
    tier = fleet.tier(models=6)
    phases: list[str] = []
    fleet.open(tier, "t0", on_phase=lambda phase, seconds: phases.append(phase) if seconds > 0 else None)
    assert phases == ["download", "map"]
    assert tier.has_model("t0", fleet.models["t0"].version)
    phases.clear()
    fleet.open(tier, "t0", on_phase=lambda phase, seconds: phases.append(phase) if seconds > 0 else None)
    assert phases == ["map"]


# Everything at once, against an oracle


class TwoTiers(RuleBasedStateMachine):
    """Two processes over one folder, against a list of what should be there, least recently used first.

    The clock goes on by two minutes at every step, so that every use is written down, and work in the background is
    done at once: what another process did is known by then.
    """

    folder: Path
    publish: Callable[..., Manifest]
    count = 0

    @initialize(models=st.integers(1, 4))
    def start(self, models: int) -> None:
        type(self).count += 1
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Background, "submit", lambda _, job: job())
        self.fleet = Fleet(self.folder / f"run-{self.count}", self.publish)
        self.capacity = models
        self.kept: set[str] = set()
        self.tiers = [self.fleet.tier(models=models, keep=lambda tenant, _: tenant in self.kept) for _ in range(2)]
        self.lru: list[str] = []

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.fleet.close()
            self.patch.undo()

    def step(self) -> None:
        self.fleet.clock.now += 120
        for tier in self.tiers:
            tier.installed_bytes()

    def used(self, tenant: str) -> None:
        self.lru = [*(other for other in self.lru if other != tenant), tenant]

    def expect(self, tenant: str, *, evict: bool = True) -> bool:
        """What the oracle makes of a model that is asked for; whether it can be had."""
        if tenant not in self.lru and len(self.lru) >= self.capacity:
            victims = [other for other in self.lru if other not in self.kept]
            if not victims or not evict:
                return False
            self.lru.remove(victims[0])
        self.used(tenant)
        return True

    @rule(tenant=st.sampled_from(TENANTS), which=st.integers(0, 1), way=st.sampled_from(["install", "open", "preload"]))
    def have(self, tenant: str, which: int, way: str) -> None:
        self.step()
        tier = self.tiers[which]
        if self.expect(tenant, evict=way != "preload"):
            if way == "open":
                assert self.fleet.open(tier, tenant).manifest == self.fleet.models[tenant]
            else:
                self.fleet.install(tier, tenant, evict=way == "install")
        else:
            with pytest.raises(OutOfResources):
                self.fleet.install(tier, tenant, evict=way != "preload")

    @rule(tenant=st.sampled_from(TENANTS), which=st.integers(0, 1))
    def map_it(self, tenant: str, which: int) -> None:
        self.step()
        model = self.fleet.models[tenant]
        if tenant in self.lru:
            assert self.tiers[which].map_model(tenant, model.version, model.digest).manifest == model
            self.used(tenant)
        else:
            with pytest.raises(BundleCorrupt):
                self.tiers[which].map_model(tenant, model.version, model.digest)

    @precondition(lambda self: self.lru)
    @rule(data=st.data(), name=st.sampled_from([WEIGHTS, LABELS, MANIFEST]), how=st.sampled_from(["cut", "remove"]))
    def damage(self, data: st.DataObject, name: str, how: str) -> None:
        """A damaged copy is found when it is next used, and mended."""
        self.step()
        tenant = data.draw(st.sampled_from(self.lru))
        tier = self.tiers[data.draw(st.integers(0, 1))]
        model = self.fleet.models[tenant]
        path = tier.model_folder(tenant, model.version) / name
        if how == "remove":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleCorrupt):
            tier.map_model(tenant, model.version, model.digest)
        assert self.fleet.open(tier, tenant).manifest == model
        self.used(tenant)

    @rule(tenant=st.sampled_from(TENANTS))
    def keep(self, tenant: str) -> None:
        """Kept from now on, or no longer; whoever is let go counts as used, as it would where it was passed over."""
        self.step()
        if tenant in self.kept:
            self.kept.remove(tenant)
            if tenant in self.lru:
                self.used(tenant)
                for tier in self.tiers:
                    tier.note_use(tenant, self.fleet.models[tenant].version)
        else:
            self.kept.add(tenant)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        """What a process knew is gone; what is on disk is not."""
        self.step()
        self.tiers[which].close()
        self.tiers[which] = self.fleet.tier(models=self.capacity, keep=lambda tenant, _: tenant in self.kept)

    @invariant()
    def the_disk_holds_what_it_should(self) -> None:
        if not hasattr(self, "fleet"):
            return
        self.step()
        assert self.fleet.on_disk == sorted(self.lru)
        for tier in self.tiers:
            assert tier.installed_bytes() == len(self.lru) * self.fleet.size <= self.capacity * self.fleet.size
        incoming = self.fleet.folder / "incoming"
        assert not incoming.exists() or list(incoming.iterdir()) == []


def test_two_tiers_over_one_folder_agree_with_an_oracle(tmp_path: Path, publish: Callable[..., Manifest]) -> None:
    TwoTiers.folder, TwoTiers.publish = tmp_path, staticmethod(publish)
    case = TwoTiers.TestCase
    case.settings = settings(
        max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    case("runTest").runTest()
