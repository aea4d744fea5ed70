"""Between "trained" and "serves": the entries, as pure functions, and what an operator promotes and compares."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import (
    BundleCorrupt,
    InvalidInput,
    ModelNotFound,
    PreconditionFailed,
    PublishConflict,
    TenantNotFound,
)
from registry.fleet.control import pin, promote, roll_back, set_shadow, stop_shadow
from registry.fleet.promotion import WAITS, settles, shadows, takes_back, tries, waits, was_taken_back
from registry.fleet.state import FleetEntry, TenantLimits, read_fleet, update_fleet
from registry.layout import FLEET_ROOT, MANIFEST, model_key
from registry.store import ObjectStore
from registry.store.local import LocalStore
from tests.registry.tiny_models import manifest, put_version


def ref(number: int) -> tuple[str, str]:
    return f"{number:016x}", f"{number:064x}"


REFS = st.integers(1, 5).map(ref)
STEPS: dict[str, Callable[[FleetEntry, str, str], FleetEntry]] = {
    "published": FleetEntry.published,
    "with_version": FleetEntry.with_version,
    "waits": waits,
    "shadows": shadows,
    "tries": tries,
    "settles": lambda entry, *_: settles(entry),
    "takes_back": lambda entry, *_: takes_back(entry),
    "holds": lambda entry, *_: entry.model_copy(update={"hold_version": True}),
    "releases": lambda entry, *_: entry.model_copy(update={"hold_version": False}),
}


@st.composite
def entries(draw: st.DrawFn) -> FleetEntry:
    """What any course of events leaves."""
    entry = FleetEntry(keep_loaded=draw(st.booleans()), limits=draw(st.sampled_from([None, TenantLimits()])))
    for step, given_ref in draw(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), REFS), max_size=8)):
        entry = STEPS[step](entry, *given_ref)
    return entry


@given(entry=entries(), step=st.sampled_from(sorted(STEPS)), version=REFS)
def test_every_step_can_be_taken_twice_and_leaves_what_is_not_its_own(
    entry: FleetEntry, step: str, version: tuple[str, str]
) -> None:
    after = STEPS[step](entry, *version)
    assert STEPS[step](after, *version) == after
    assert (after.keep_loaded, after.limits) == (entry.keep_loaded, entry.limits)
    assert after.serves or not entry.serves, "nothing takes the only model away"
    assert FleetEntry.model_validate(after.model_dump()) == after


@given(entry=entries())
def test_what_serves_neither_waits_nor_runs_beside_itself(entry: FleetEntry) -> None:
    assert entry.version is None or entry.version not in {entry.candidate, entry.shadow}
    for name in ("version", "candidate", "shadow"):
        version, digest = getattr(entry, name), getattr(entry, "manifest" if name == "version" else f"{name}_manifest")
        assert (version is None) == (digest is None)
        assert version is None or digest.endswith(version)


@given(entry=entries(), version=REFS)
def test_a_trial_that_is_taken_back_leaves_the_entry_as_it_was(entry: FleetEntry, version: tuple[str, str]) -> None:
    trying = tries(entry, *version)
    if trying.version == entry.version or not trying.is_canary:
        return  # no trial, or the one that was under way
    back = takes_back(trying)
    names = ("version", "manifest", "previous", "previous_manifest", "hold_version")
    assert [getattr(back, name) for name in names] == [getattr(entry, name) for name in names]
    assert was_taken_back(back, version[0])
    assert not was_taken_back(back, entry.version or "")
    assert takes_back(settles(trying)) == settles(trying), "what ended well is not taken back any more"
    assert not was_taken_back(back.published(*version), version[0]), "forced"


@given(entry=entries(), version=REFS)
def test_a_hold_is_stronger_than_a_trial(entry: FleetEntry, version: tuple[str, str]) -> None:
    held = entry.model_copy(update={"hold_version": True})
    assert tries(held, *version) == held
    assert held.published(*version) == held
    assert takes_back(held) == held, "somebody wants to keep it"
    assert not tries(FleetEntry(reason="new"), *version).is_canary, "there is nothing to go back to"


def test_what_somebody_did_meanwhile_is_not_taken_back() -> None:
    trying = tries(FleetEntry().with_version(*ref(1)), *ref(2))
    for after in (trying.with_version(*ref(1)), trying.published(*ref(3))):
        assert (takes_back(after), settles(after)) == (after, after)


def test_what_waits_is_overtaken_by_what_is_newer() -> None:
    entry = waits(FleetEntry().with_version(*ref(1)), *ref(2))
    assert (entry.candidate, entry.version, entry.reason) == (ref(2)[0], ref(1)[0], None)
    assert waits(entry, *ref(3)).candidate == ref(3)[0]
    assert entry.published(*ref(3)).candidate is None
    beside = shadows(entry, *ref(3))
    assert (beside.candidate, beside.shadow) == (None, ref(3)[0])
    assert beside.published(*ref(4)).shadow == ref(3)[0], "a shadow is compared with whatever serves"
    assert beside.published(*ref(3)).shadow is None


def test_a_first_model_waits_in_either_mode() -> None:
    for step, before in product((waits, shadows), (None, FleetEntry(reason="too few examples"))):
        entry = step(before, *ref(1))
        assert (entry.serves, entry.candidate, entry.shadow, entry.reason) == (False, ref(1)[0], None, WAITS)
        assert entry.with_version(*ref(1)) == FleetEntry(version=ref(1)[0], manifest=ref(1)[1])


# What an operator does


def made(number: int, tenant: str = "acme") -> tuple[str, str]:
    """The version and the digest of one of a tenant's manifests."""
    return manifest(tenant, number).version, manifest(tenant, number).digest


def get(store: ObjectStore, tenant: str = "acme") -> FleetEntry:
    return read_fleet(store).entries[tenant]


def have(store: ObjectStore, step: Callable[[FleetEntry], FleetEntry], tenant: str = "acme") -> None:
    update_fleet(store, {tenant: lambda entry: step(entry or FleetEntry())})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """acme and globex serve their first version, and acme has four; new has one and serves none."""
    store = LocalStore(tmp_path / "store")
    for tenant, numbers in {"acme": (1, 2, 3, 4), "globex": (1, 2), "new": (1,)}.items():
        for number in numbers:
            put_version(store, tenant, number)
    update_fleet(store, {"new": lambda _: FleetEntry(reason="too few examples")})
    for tenant in ("acme", "globex"):
        have(store, lambda entry, tenant=tenant: entry.with_version(*made(1, tenant)), tenant)  # type: ignore[misc]
    return store


def test_a_candidate_is_promoted_and_can_be_rolled_back(store: ObjectStore) -> None:
    have(store, lambda entry: waits(entry, *made(2)))
    generation = read_fleet(store).generation
    assert promote(store, ["acme"], write=False).changed() == ["acme"]
    assert read_fleet(store).generation == generation
    promote(store, ["acme"])
    entry = get(store)
    assert (entry.version, entry.manifest, entry.previous, entry.candidate) == (*made(2), made(1)[0], None)
    roll_back(store, ["acme"])
    assert get(store).version == made(1)[0]


def test_a_promotion_by_version_can_be_repeated(store: ObjectStore) -> None:
    have(store, lambda entry: waits(entry, *made(2)))
    promote(store, ["acme"], version=made(2)[0])
    assert promote(store, ["acme"], version=made(2)[0]).changed() == []


def test_a_shadow_is_promoted_and_a_hold_is_lifted_by_it(store: ObjectStore) -> None:
    have(store, lambda entry: entry.with_version(*made(2)))
    roll_back(store, ["acme"])
    have(store, lambda entry: shadows(entry, *made(3)))
    assert get(store).hold_version
    promote(store, ["acme"])
    entry = get(store)
    assert (entry.version, entry.shadow, entry.hold_version) == (made(3)[0], None, False)


def test_where_candidate_and_shadow_differ_one_is_named(store: ObjectStore) -> None:
    have(store, lambda entry: waits(shadows(entry, *made(2)), *made(3)))
    with pytest.raises(InvalidInput, match=f"candidate {made(3)[0]} and shadow {made(2)[0]}"):
        promote(store, ["acme"])
    promote(store, ["acme"], version=made(2)[0])
    entry = get(store)
    assert (entry.version, entry.shadow, entry.candidate) == (made(2)[0], None, made(3)[0])


def test_one_version_may_be_both(store: ObjectStore) -> None:
    have(store, lambda entry: waits(shadows(entry, *made(2)), *made(2)))
    promote(store, ["acme"])
    entry = get(store)
    assert (entry.version, entry.shadow, entry.candidate) == (made(2)[0], None, None)


def test_what_cannot_be_promoted_for_one_is_promoted_for_none(store: ObjectStore) -> None:
    have(store, lambda entry: waits(entry, *made(2)))
    before = read_fleet(store).generation
    with pytest.raises(ModelNotFound, match="no version of tenant globex waits"):
        promote(store, ["acme", "globex"])
    with pytest.raises(ModelNotFound, match=r"2 tenants cannot be promoted.*globex.*new"):
        promote(store, ["acme", "globex", "new"])
    with pytest.raises(ModelNotFound, match=f"not version {made(3)[0]} of tenant acme"):
        promote(store, ["acme"], version=made(3)[0])
    with pytest.raises(TenantNotFound, match="nobody"):
        promote(store, ["acme", "nobody"])
    with pytest.raises(InvalidInput, match="one tenant"):
        promote(store, ["acme", "globex"], version=made(2)[0])
    with pytest.raises(InvalidInput, match="is not a model version"):
        promote(store, ["acme"], version="newest")
    assert read_fleet(store).generation == before


def test_what_the_store_lacks_or_has_otherwise_is_not_promoted(store: ObjectStore) -> None:
    have(store, lambda entry: waits(entry, *made(2)))
    store.put(model_key("acme", made(2)[0], MANIFEST), manifest("acme", 3).to_bytes())
    with pytest.raises(BundleCorrupt, match="does not have the digest"):
        promote(store, ["acme"])
    store.delete(model_key("acme", made(2)[0], MANIFEST))
    with pytest.raises(ModelNotFound, match="is not in"):
        promote(store, ["acme"])
    assert get(store).version == made(1)[0]


class Interrupted(LocalStore):
    """Lets somebody do something before the next write of the root, or after it; then its answer is lost."""

    def __init__(self, store: ObjectStore, *, before: Callable[[], object] | None = None) -> None:
        super().__init__(Path(store.url.removeprefix("file://")))
        self.before = before
        self.after: Callable[[], object] | None = None

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        before = after = None
        if key == FLEET_ROOT:
            before, self.before, after, self.after = self.before, None, self.after, None
        if before is not None:
            before()
        etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
        if after is not None:
            after()
            raise PreconditionFailed("the object exists")
        return etag


def test_a_candidate_that_is_replaced_meanwhile_is_not_promoted_unseen(store: ObjectStore) -> None:
    have(store, lambda entry: waits(entry, *made(2)))
    racing = Interrupted(store, before=lambda: have(store, lambda entry: waits(entry, *made(3))))
    with pytest.raises(PublishConflict, match="does not wait any more"):
        promote(racing, ["acme"])
    assert (get(store).version, get(store).candidate) == (made(1)[0], made(3)[0])


def test_a_promotion_that_finds_its_own_success_leaves_it(store: ObjectStore) -> None:
    have(store, lambda entry: waits(entry, *made(2)))
    racing = Interrupted(store)
    racing.after = lambda: pin(store, ["acme"])
    promote(racing, ["acme"])
    assert (get(store).version, get(store).previous, get(store).keep_loaded) == (made(2)[0], made(1)[0], True)


def test_a_shadow_is_set_once_and_stopped(store: ObjectStore) -> None:
    set_shadow(store, "acme", made(2)[0])
    assert (get(store).shadow, get(store).shadow_manifest, get(store).version) == (*made(2), made(1)[0])
    assert set_shadow(store, "acme", made(2)[0]).changed() == []
    stop_shadow(store, ["acme", "globex"])
    assert (get(store).shadow, get(store).shadow_manifest) == (None, None)


def test_what_can_be_no_shadow(store: ObjectStore) -> None:
    before = read_fleet(store).generation
    with pytest.raises(InvalidInput, match="serves already"):
        set_shadow(store, "acme", made(1)[0])
    with pytest.raises(ModelNotFound, match="is not in"):
        set_shadow(store, "acme", "f" * 16)
    with pytest.raises(ModelNotFound, match="serves nothing"):
        set_shadow(store, "new", made(1, "new")[0])
    with pytest.raises(InvalidInput, match="is not a model version"):
        set_shadow(store, "acme", "../x")
    with pytest.raises(TenantNotFound):
        set_shadow(store, "nobody", made(1)[0])
    assert read_fleet(store).generation == before
