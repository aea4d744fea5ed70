from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from registry.errors import (
    BundleCorrupt,
    InvalidInput,
    InvalidTenant,
    MacrofleetError,
    ModelNotFound,
    PreconditionFailed,
    PublishConflict,
    TenantNotFound,
)
from registry.fleet.control import (
    limit,
    make_plan,
    parse_size,
    pin,
    release,
    roll_back,
    select,
    set_preload,
    unlimit,
)
from registry.fleet.state import FleetEntry, FleetReader, PreloadPlan, TenantLimits, read_fleet, update_fleet
from registry.layout import FLEET_ROOT, MANIFEST, fleet_shard, model_key
from registry.model.bundle import Manifest
from registry.store import ObjectStore
from registry.store.local import LocalStore
from tests.registry.tiny_models import manifest, put_version


def publish(store: ObjectStore, tenant: str, number: int) -> Manifest:
    """Train and publish, as the flow does it."""
    made = put_version(store, tenant, number)
    update_fleet(store, {tenant: lambda entry: (entry or FleetEntry()).published(made.version, made.digest, token=0)})
    return made


def get(store: ObjectStore, tenant: str) -> FleetEntry:
    return read_fleet(store).entries[tenant]


def state(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list()}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A fleet of acme (two versions), globex (one) and new (none)."""
    made = LocalStore(tmp_path / "store")
    publish(made, "acme", 1)
    publish(made, "acme", 2)
    publish(made, "globex", 1)
    update_fleet(made, {"new": lambda _: FleetEntry(reason="too few examples")})
    return made


EDITS: dict[str, Callable[..., Any]] = {
    "pin": pin,
    "unpin": lambda *given, **named: pin(*given, pinned=False, **named),
    "limit": lambda *given, **named: limit(*given, concurrency=3, **named),
    "unlimit": unlimit,
    "roll back": roll_back,
    "release": release,
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_unknown_tenants_are_all_named_and_nothing_is_written(store: ObjectStore, edit: Callable[..., Any]) -> None:
    pin(store, ["acme"])
    before = state(store)
    with pytest.raises(TenantNotFound, match=r"nobody, nothing\. "):
        edit(store, ["nothing", "acme", "nobody"])
    with pytest.raises(InvalidTenant):
        edit(store, ["acme", "../x"])
    with pytest.raises(InvalidInput, match="no tenant is named"):
        edit(store, [])
    with pytest.raises(TenantNotFound, match=r"x0, .*x9 and 5 more\. "):
        edit(store, [f"x{i}" for i in range(10)] + [f"y{i}" for i in range(5)])
    assert state(store) == before


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edit_is_one_write_once_and_can_be_tried_without_one(store: ObjectStore, edit: Callable[..., Any]) -> None:
    publish(store, "globex", 2)
    tenants = ["acme", "globex", "acme"]
    if edit in (EDITS["unpin"], EDITS["unlimit"], EDITS["release"]):
        for opposite in ("pin", "limit", "roll back"):
            EDITS[opposite](store, tenants)
    before, generation = state(store), read_fleet(store).generation
    tried = edit(store, tenants, write=False)
    assert (state(store), tried.generation) == (before, generation)
    done = edit(store, tenants)
    assert (done.generation, done.changed()) == (generation + 1, ["acme", "globex"])
    assert (tried.before, tried.after) == (done.before, done.after)
    again = edit(store, tenants)
    assert (again.generation, again.changed()) == (generation + 1, [])


def test_a_pin_changes_nothing_else(store: ObjectStore) -> None:
    later = FleetEntry.model_validate({**get(store, "acme").model_dump(), "limits": {"concurrency": 2, "burst": 5}})
    update_fleet(store, {"acme": lambda _: later})
    pin(store, ["acme", "new"])
    assert get(store, "acme") == later.model_copy(update={"keep_loaded": True})
    assert get(store, "new") == FleetEntry(reason="too few examples", keep_loaded=True), (
        "it counts once there is a model"
    )
    pin(store, ["acme"], pinned=False)
    assert get(store, "acme") == later


def test_limits_are_set_one_by_one_and_taken_away_together(store: ObjectStore) -> None:
    limit(store, ["acme"], concurrency=4)
    limit(store, ["acme"], requests_per_second=2.5)
    assert get(store, "acme").limits == TenantLimits(concurrency=4, requests_per_second=2.5)
    unlimit(store, ["acme"])
    assert get(store, "acme").limits is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"concurrency": 0},
        {"concurrency": 100_001},
        {"requests_per_second": 0.0},
        {"requests_per_second": -1.0},
        {"requests_per_second": float("nan")},
        {"requests_per_second": float("inf")},
    ],
    ids=str,
)
def test_a_limit_that_is_none_is_refused(store: ObjectStore, given: dict[str, Any]) -> None:
    before = state(store)
    with pytest.raises(InvalidInput, match="limit"):
        limit(store, ["acme"], **given)
    assert state(store) == before


def test_a_preload_plan_is_set_and_unset(store: ObjectStore) -> None:
    plan = make_plan("top", "5")
    assert set_preload(store, plan, write=False).preload_after == plan
    assert read_fleet(store).preload is None
    assert set_preload(store, plan).preload_before is None
    assert read_fleet(store).preload == plan
    set_preload(store, None)
    assert read_fleet(store).preload is None


@pytest.mark.parametrize(
    ("words", "plan"),
    [
        (("all",), PreloadPlan(models="all")),
        (("pinned",), PreloadPlan(models="pinned")),
        (("share",), PreloadPlan(models="share")),
        (("none",), PreloadPlan(models="none")),
        (("top", "100"), PreloadPlan(models="top", top=100)),
        (("bytes", "8GiB"), PreloadPlan(models="bytes", bytes=8 * 1024**3)),
    ],
)
def test_a_plan_in_words(words: tuple[str, ...], plan: PreloadPlan) -> None:
    assert make_plan(*words) == plan


@pytest.mark.parametrize(
    "words",
    [
        ("some",),
        ("all", "5"),
        ("top",),
        ("top", "0"),
        ("top", "-1"),
        ("top", "1.5"),
        ("top", "٣"),
        ("top", "9" * 5000),
        ("bytes",),
        ("bytes", "x"),
    ],
)
def test_words_that_are_no_plan(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        make_plan(*words)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("8GiB", 8 * 1024**3),
        ("1.5KiB", 1536),
        ("2tib", 2 * 1024**4),
        ("3TB", 3 * 1000**4),
        ("7B", 7),
        ("0.1kB", 100),
    ],
)
def test_a_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.1", "-1", "1e9", "5PB", "GiB", "9" * 30, "9" * 18 + "TiB", "٣", "1_000"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        parse_size(text)


def test_tenants_are_selected_in_the_order_asked(store: ObjectStore) -> None:
    fleet = read_fleet(store)
    assert list(select(store, fleet, ["new", "acme", "new"])) == ["new", "acme"]
    with pytest.raises(TenantNotFound, match="nobody"):
        select(store, fleet, ["acme", "nobody"])


def test_a_roll_back_serves_the_previous_version_and_holds_it(store: ObjectStore) -> None:
    first, second = manifest("acme", 1), manifest("acme", 2)
    limit(store, ["acme"], concurrency=7)
    roll_back(store, ["acme"])
    entry = get(store, "acme")
    assert (entry.version, entry.manifest) == (first.version, first.digest)
    assert (entry.previous, entry.previous_manifest) == (second.version, second.digest)
    assert (entry.hold_version, entry.limits) == (True, TenantLimits(concurrency=7))
    publish(store, "acme", 3)
    assert get(store, "acme") == entry, "training does not undo it"
    release(store, ["acme"])
    assert get(store, "acme") == entry.model_copy(update={"hold_version": False})
    third = publish(store, "acme", 3)
    entry = get(store, "acme")
    assert (entry.version, entry.previous, entry.previous_manifest) == (third.version, first.version, first.digest)


def test_a_roll_back_finds_the_digest_that_an_older_release_did_not_write(store: ObjectStore) -> None:
    update_fleet(store, {"acme": lambda entry: entry and entry.model_copy(update={"previous_manifest": None})})
    roll_back(store, ["acme"])
    assert get(store, "acme").manifest == manifest("acme", 1).digest


def test_a_roll_back_to_any_version_of_the_tenant(store: ObjectStore) -> None:
    publish(store, "acme", 3)
    first, third = manifest("acme", 1), manifest("acme", 3)
    roll_back(store, ["acme"], to=first.version)
    entry = get(store, "acme")
    assert (entry.version, entry.previous, entry.hold_version) == (first.version, third.version, True)
    roll_back(store, ["acme"], to=third.version)
    assert get(store, "acme").version == third.version, "also where one is held"
    release(store, ["acme"])
    roll_back(store, ["acme"], to=third.version)
    entry = get(store, "acme")
    assert (entry.version, entry.previous, entry.hold_version) == (third.version, first.version, True), "or just held"


def test_a_tenant_that_serves_nothing_can_be_given_a_version(store: ObjectStore) -> None:
    made = put_version(store, "new", 1)
    roll_back(store, ["new"], to=made.version)
    assert get(store, "new") == FleetEntry(version=made.version, manifest=made.digest, hold_version=True)


def test_without_a_previous_version_there_is_no_roll_back_for_anybody(store: ObjectStore) -> None:
    before = state(store)
    with pytest.raises(ModelNotFound, match=r"^tenant globex has no previous version"):
        roll_back(store, ["acme", "globex"])
    with pytest.raises(ModelNotFound, match=r"2 tenants cannot .*globex has no previous.*new has no previous"):
        roll_back(store, ["acme", "globex", "new"])
    assert state(store) == before


def test_a_version_that_is_gone_from_the_store_is_not_served(store: ObjectStore) -> None:
    store.delete(model_key("acme", manifest("acme", 1).version, MANIFEST))
    before = state(store)
    with pytest.raises(ModelNotFound, match="is not in"):
        roll_back(store, ["acme"])
    with pytest.raises(ModelNotFound, match="is not in"):
        roll_back(store, ["acme"], to="f" * 16)
    assert state(store) == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (manifest("globex", 1), "another tenant"),
        (manifest("acme", 3), "is the manifest of version"),
    ],
)
def test_a_version_that_is_not_what_it_says_is_not_served(
    store: ObjectStore, content: Manifest, complaint: str
) -> None:
    update_fleet(store, {"acme": lambda entry: entry and entry.model_copy(update={"previous_manifest": None})})
    store.put(model_key("acme", manifest("acme", 1).version, MANIFEST), content.to_bytes())
    before = state(store)
    with pytest.raises(BundleCorrupt, match=complaint):
        roll_back(store, ["acme"])
    assert state(store) == before


def test_a_version_that_changed_since_it_served_is_not_served(store: ObjectStore) -> None:
    store.put(model_key("acme", manifest("acme", 1).version, MANIFEST), manifest("acme", 3).to_bytes())
    with pytest.raises(BundleCorrupt, match="does not have the digest"):
        roll_back(store, ["acme"])


@pytest.mark.parametrize("to", ["", "A" * 16, "../../globex/x", "0" * 15, "0" * 16 + "\n"])
def test_what_is_no_version_is_refused(store: ObjectStore, to: str) -> None:
    with pytest.raises(InvalidInput, match="is not a model version"):
        roll_back(store, ["acme"], to=to)


def test_a_version_belongs_to_one_tenant(store: ObjectStore) -> None:
    with pytest.raises(InvalidInput, match="one tenant"):
        roll_back(store, ["acme", "globex"], to="0" * 16)


def test_a_version_published_while_rolling_back_is_not_taken_away_unseen(store: ObjectStore) -> None:
    racing = Interrupted(store)
    racing.before_root = lambda: publish(store, "acme", 3)
    with pytest.raises(PublishConflict, match="acme was given version"):
        roll_back(racing, ["acme"])
    assert get(store, "acme").version == manifest("acme", 3).version


def test_a_roll_back_that_finds_its_own_success_under_another_write_leaves_it(store: ObjectStore) -> None:
    racing = Interrupted(store)
    racing.after_root = lambda: pin(store, ["acme"])
    roll_back(racing, ["acme"])
    entry = get(store, "acme")
    assert (entry.version, entry.hold_version, entry.keep_loaded) == (manifest("acme", 1).version, True, True)


class Interrupted(LocalStore):
    """Lets somebody do something before the next write of the root, or after it; then its answer is lost."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(Path(store.url.removeprefix("file://")))
        self.before_root: Callable[[], object] | None = None
        self.after_root: Callable[[], object] | None = None

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if key != FLEET_ROOT:
            return super().put(key, data, if_match=if_match, if_absent=if_absent)
        before, self.before_root = self.before_root, None
        if before is not None:
            before()
        etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
        after, self.after_root = self.after_root, None
        if after is not None:
            after()
            raise PreconditionFailed("the object exists")
        return etag


# Two in one shard, one elsewhere, one that is never trained.
_PAIR = next(f"b{i}" for i in range(10_000) if fleet_shard(f"b{i}") == fleet_shard("a"))
_FAR = next(f"c{i}" for i in range(10_000) if fleet_shard(f"c{i}") != fleet_shard("a"))
_TENANTS = ["a", _PAIR, _FAR]
_NUMBERS = range(4)
_VERSION = {(tenant, number): manifest(tenant, number).version for tenant in _TENANTS for number in _NUMBERS}


class Refused(Exception):
    """What the oracle expects to be refused, and how."""


@dataclass(frozen=True)
class Row:
    version: str | None = None
    previous: str | None = None
    pinned: bool = False
    held: bool = False
    concurrency: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class State:
    rows: dict[str, Row] = field(default_factory=dict)
    plan: PreloadPlan | None = None
    generation: int = 0

    def after(self, rows: dict[str, Row], plan: PreloadPlan | None) -> State:
        changed = rows != self.rows or plan != self.plan
        return State(rows, plan, self.generation + 1) if changed else self


@dataclass(frozen=True)
class Op:
    """One operation, against the store and against the oracle."""

    kind: str
    tenants: tuple[str, ...] = ()
    value: Any = None

    def run(self, store: ObjectStore) -> None:
        tenants = list(self.tenants)
        match self.kind:
            case "pin":
                pin(store, tenants, pinned=self.value)
            case "concurrency":
                limit(store, tenants, concurrency=self.value)
            case "rate":
                limit(store, tenants, requests_per_second=self.value)
            case "unlimit":
                unlimit(store, tenants)
            case "release":
                release(store, tenants)
            case "roll back":
                roll_back(store, tenants)
            case "to":
                roll_back(store, tenants, to=_VERSION.get((tenants[0], self.value), "f" * 16))
            case "preload":
                set_preload(store, self.value)
            case "publish":
                made = {tenant: manifest(tenant, self.value) for tenant in tenants}
                update_fleet(store, {t: _published(made[t]) for t in tenants})

    def plan(self, seen: State) -> dict[str, str]:
        """Where a roll-back goes, decided on what it saw first."""
        if self.kind not in {"roll back", "to"}:
            return {}
        if not seen.rows.keys() >= set(self.tenants):
            raise Refused(TenantNotFound)
        targets = {}
        for tenant in self.tenants:
            row = seen.rows[tenant]
            kept = row.version if row.held else row.previous
            target = _VERSION.get((tenant, self.value)) if self.kind == "to" else kept
            if target is None:
                raise Refused(ModelNotFound)
            targets[tenant] = target
        return targets

    def on(self, now: State, seen: State | None = None) -> State:
        """The state after it, decided on `seen` where that was earlier. Raises Refused."""
        seen = seen or now
        if self.kind == "preload":
            return now.after(now.rows, self.value)
        targets = self.plan(seen)
        rows = dict(now.rows)
        for tenant in self.tenants:
            if self.kind != "publish" and tenant not in rows:
                raise Refused(TenantNotFound)
            row = rows.get(tenant, Row())
            match self.kind:
                case "pin":
                    row = replace(row, pinned=self.value)
                case "concurrency":
                    row = replace(row, concurrency=self.value)
                case "rate":
                    row = replace(row, rate=self.value)
                case "unlimit":
                    row = replace(row, concurrency=None, rate=None)
                case "release":
                    row = replace(row, held=False)
                case "publish":
                    row = row if row.held else _moved(row, _VERSION[tenant, self.value])
                case _:
                    if self.kind == "roll back" and row.version not in (targets[tenant], seen.rows[tenant].version):
                        raise Refused(PublishConflict)
                    row = replace(_moved(row, targets[tenant]), held=True)
            rows[tenant] = row
        return now.after(rows, now.plan)


def _published(made: Manifest) -> Callable[[FleetEntry | None], FleetEntry]:
    return lambda entry: (entry or FleetEntry()).published(made.version, made.digest, token=0)


def _moved(row: Row, version: str) -> Row:
    return row if row.version == version else replace(row, version=version, previous=row.version or row.previous)


_SOME = st.lists(st.sampled_from(_TENANTS), min_size=1, max_size=3, unique=True).map(tuple)
_PLANS = st.sampled_from([None, make_plan("all"), make_plan("top", "3"), make_plan("bytes", "1GB")])
OPS = st.one_of(
    st.builds(Op, st.just("publish"), _SOME, st.sampled_from(_NUMBERS)),
    st.builds(Op, st.sampled_from(["roll back", "release"]), _SOME),
    st.builds(Op, st.just("to"), st.sampled_from([(tenant,) for tenant in _TENANTS]), st.sampled_from([*_NUMBERS, 99])),
    st.builds(Op, st.just("pin"), _SOME, st.booleans()),
    st.builds(Op, st.just("concurrency"), _SOME, st.integers(1, 3)),
    st.builds(Op, st.just("rate"), _SOME, st.sampled_from([0.5, 2.0])),
    st.builds(Op, st.just("unlimit"), _SOME),
    st.builds(Op, st.just("preload"), st.just(()), _PLANS),
)


class TwoWriters(RuleBasedStateMachine):
    """Two writers of one fleet, one of which always gets in between the other's read and its write, or loses answers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("registry.fleet.state.time.sleep", lambda _: None)  # the pause of a writer that lost
        self.patch.setattr("registry.store.local.os.fsync", lambda _: None)  # nothing here outlives the machine's power
        self.folder = tempfile.TemporaryDirectory()
        self.store = LocalStore(Path(self.folder.name) / "store")
        self.reader = FleetReader(self.store)
        for tenant, number in _VERSION:
            put_version(self.store, tenant, number)
        self.state = State()

    def teardown(self) -> None:
        self.folder.cleanup()
        self.patch.undo()

    def attempt(self, op: Op, store: ObjectStore) -> type[MacrofleetError] | None:
        try:
            op.run(store)
        except MacrofleetError as problem:
            return type(problem)
        return None

    def expected(self, op: Op, now: State, seen: State | None = None) -> tuple[State, type[MacrofleetError] | None]:
        try:
            return op.on(now, seen), None
        except Refused as refused:
            return now, refused.args[0]

    @rule(op=OPS)
    def alone(self, op: Op) -> None:
        after, problem = self.expected(op, self.state)
        assert self.attempt(op, self.store) is problem
        self.state = after

    @rule(op=OPS, other=OPS)
    def overtaken(self, op: Op, other: Op) -> None:
        """`other` is written after `op` has read and before it writes."""
        store, seen = Interrupted(self.store), self.state
        found: list[type[MacrofleetError] | None] = []
        store.before_root = lambda: found.append(self.attempt(other, self.store))
        first, problem = self.expected(op, seen)
        if first is not seen:  # else it never comes to writing
            between, refused = self.expected(other, seen)
            self.state, problem = self.expected(op, between, seen)
            assert self.attempt(op, store) is problem
            assert found == [refused]
        else:
            assert self.attempt(op, store) is problem
            assert found == []

    @rule(op=OPS, other=OPS | st.none())
    def answer_lost(self, op: Op, other: Op | None) -> None:
        """`op` is written, and told that it is not; `other` may be written before it looks."""
        store, seen = Interrupted(self.store), self.state
        store.after_root = lambda: other and self.attempt(other, self.store)
        first, problem = self.expected(op, seen)
        between = self.expected(other, first)[0] if other and first is not seen else first
        if between is not first:
            between, problem = self.expected(op, between, seen)
        assert self.attempt(op, store) is problem
        self.state = between

    @invariant()
    def the_fleet_is_what_the_oracle_says(self) -> None:
        fleet = self.reader.refresh()
        assert fleet.generation == self.state.generation
        assert fleet.preload == self.state.plan
        assert {tenant: self.row(entry) for tenant, entry in fleet.entries.items()} == self.state.rows
        for tenant, entry in fleet.entries.items():
            for version, digest in ((entry.version, entry.manifest), (entry.previous, entry.previous_manifest)):
                known = {manifest(tenant, number).digest for number in _NUMBERS}
                assert (version is None) == (digest is None)
                assert digest is None or (digest in known and digest[:16] == version)

    def row(self, entry: FleetEntry) -> Row:
        limits = entry.limits or TenantLimits()
        return Row(
            version=entry.version,
            previous=entry.previous,
            pinned=entry.keep_loaded,
            held=entry.hold_version,
            concurrency=limits.concurrency,
            rate=limits.requests_per_second,
        )


TestTwoWriters = TwoWriters.TestCase
TestTwoWriters.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
