"""Who goes first, and what the figures say: the pure half of a staged roll-out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flows.rollout import (
    LEAST_REQUESTS,
    TOLERATED_ABSTAINED,
    TOLERATED_FAILED,
    Counts,
    Heard,
    ServerCounts,
    first_by_hash,
    judge,
    plan_stages,
)
from registry.fleet.promotion import takes_back, tries
from registry.fleet.state import FleetEntry

PATIENT = settings(deadline=None, max_examples=80)


def ref(number: int) -> tuple[str, str]:
    return f"{number:016x}", f"{number:064x}"


# Who goes first

OLD = FleetEntry().with_version(*ref(1)).with_version(*ref(2))
KINDS: dict[str, FleetEntry | None] = {
    "unknown": None,
    "first": FleetEntry(reason="too few examples"),
    "plain": OLD,
    "current": OLD.with_version(*ref(3)),
    "held": OLD.model_copy(update={"hold_version": True}),
    "on trial": tries(OLD, *ref(3)),
    "on trial for another": tries(OLD.with_version(*ref(4)), *ref(5)),
    "taken back": takes_back(tries(OLD, *ref(3))),
    "taken back another": takes_back(tries(OLD, *ref(5))),
}
CHANGE = {"unknown", "first", "plain", "on trial for another", "taken back", "taken back another"}
FLEETS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.sampled_from(sorted(KINDS)), max_size=30)
SHARES = st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5, 1.0])


@PATIENT
@given(kinds=FLEETS, share=SHARES, force=st.booleans(), skipped=st.sets(st.text("abcdefgh", min_size=1, max_size=1)))
def test_everybody_who_changes_is_in_one_stage(
    kinds: dict[str, str], share: float, force: bool, skipped: set[str]
) -> None:
    entries = {tenant: KINDS[kind] for tenant, kind in kinds.items()}
    versions = {tenant: ref(3)[0] for tenant in kinds if tenant not in skipped}
    stages = plan_stages(entries, versions, share=share, force=force)
    changing = {tenant for tenant in versions if kinds[tenant] in CHANGE}
    fresh = stages.canaries & changing
    assert fresh | stages.rest | stages.refused == changing
    assert len(fresh) + len(stages.rest) + len(stages.refused) == len(changing)
    if force or share == 0:
        assert not stages.canaries | stages.refused
        return
    assert stages.refused == {tenant for tenant in changing if kinds[tenant] == "taken back"}
    assert all(kinds[tenant] not in {"unknown", "first", "held"} for tenant in stages.canaries)
    trial = {tenant for tenant in kinds if kinds[tenant].startswith("on trial") and tenant not in changing}
    assert stages.canaries - changing == trial
    able = {tenant for tenant in changing - stages.refused if kinds[tenant] not in {"unknown", "first"}}
    if trial or len(changing - stages.refused) > 1:
        assert len(stages.canaries) == max(math.ceil(share * len(able | trial)), len(trial))
        assert fresh == set(first_by_hash(able, len(fresh)))
    else:
        assert not stages.canaries, "one tenant alone has nobody to go ahead of"


@PATIENT
@given(kinds=FLEETS, share=SHARES)
def test_a_rerun_after_the_first_stage_finds_the_same_stages(kinds: dict[str, str], share: float) -> None:
    entries = {tenant: KINDS[kind] for tenant, kind in kinds.items()}
    versions = {tenant: ref(3)[0] for tenant in kinds}
    stages = plan_stages(entries, versions, share=share)
    for tenant in stages.canaries & versions.keys():
        if kinds[tenant] != "on trial":
            entries[tenant] = tries(entries[tenant] or FleetEntry(), *ref(3))
    assert plan_stages(entries, versions, share=share) == stages


@given(tenants=st.sets(st.text("abc", min_size=1)), count=st.integers(0, 20), others=st.sets(st.text("xyz")))
def test_the_same_tenants_go_first_whoever_else_is_there(tenants: set[str], count: int, others: set[str]) -> None:
    few = first_by_hash(tenants, count)
    assert few == first_by_hash(sorted(tenants, reverse=True), count)
    both = first_by_hash(tenants | others, count)
    assert [tenant for tenant in both if tenant in tenants] == few[: len([t for t in both if t in tenants])]


def test_who_goes_first_is_known_beforehand() -> None:
    assert first_by_hash(["acme", "beta", "gamma", "globex", "initech"], 3) == ["initech", "globex", "acme"]


# What the figures say


def counts(asked: int, *, abstained: int = 0, failed: int = 0) -> Counts:
    return Counts(suggested=asked - abstained - failed, abstained=abstained, failed=failed)


NONE = Counts()


def server(new: Counts, before: Counts = NONE, elsewhere: Counts = NONE, **more: Any) -> ServerCounts:
    return ServerCounts(every=new + before + elsewhere, new=new, before=before, **more)


def reasons(new: Counts, before: Counts, elsewhere_before: Counts, elsewhere: Counts) -> tuple[str, ...]:
    start = {"a": server(NONE, before, elsewhere_before)}
    now = {"a": server(new, before, elsewhere_before + elsewhere)}
    return judge(start, now).reasons


CALM = counts(10_000, abstained=1_000, failed=10)


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (
            counts(20, abstained=20),
            "abstentions: 100.0% of 20 under the new versions, 10.0% of 9990 under the versions",
        ),
        (counts(200, abstained=60), "abstentions: 30.0%"),
        (counts(20, failed=20), "failed requests: 100.0% of 20"),
        (counts(500, abstained=50, failed=15), "failed requests: 3.0% of 500"),
    ],
)
def test_what_has_risen_is_named(new: Counts, named: str) -> None:
    (reason,) = reasons(new, CALM, CALM, CALM)
    assert reason.startswith(named)
    assert reason.endswith(f"of {CALM.asked}" if "failed" in named else f"of {CALM.answered}")


@pytest.mark.parametrize(
    "new",
    [
        counts(0),
        counts(19, abstained=19),
        counts(19, failed=19),
        counts(10_000, abstained=1_000),
        counts(10_000, abstained=1_400),
        counts(100, abstained=15),
        counts(1_000, abstained=100, failed=3),
    ],
    ids=str,
)
def test_what_is_noise_or_tolerated_is_no_reason(new: Counts) -> None:
    assert reasons(new, CALM, CALM, CALM) == ()


PARTS = st.tuples(st.integers(0, 3000), st.floats(0, 1), st.floats(0, 1)).map(
    lambda drawn: counts(
        drawn[0],
        failed=(failed := int(drawn[0] * drawn[1] * 0.2)),
        abstained=int((drawn[0] - failed) * drawn[2]),
    )
)


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@PATIENT
@given(new=PARTS, before=PARTS, elsewhere_before=PARTS, elsewhere=PARTS)
def test_a_reason_has_a_rise_behind_it_on_enough_requests(
    new: Counts, before: Counts, elsewhere_before: Counts, elsewhere: Counts
) -> None:
    assume(before.answered >= LEAST_REQUESTS)
    found = " ".join(reasons(new, before, elsewhere_before, elsewhere))
    if "failed" in found:
        assert new.asked >= LEAST_REQUESTS
        assert share(new.failed, new.asked) > share(before.failed, before.asked) + TOLERATED_FAILED
    if "abstentions" in found:
        assert new.answered >= LEAST_REQUESTS
        assert share(new.abstained, new.answered) > share(before.abstained, before.answered) + TOLERATED_ABSTAINED


@PATIENT
@given(new=PARTS, before=PARTS, elsewhere_before=PARTS, elsewhere=PARTS, worse=st.integers(0, 3000))
def test_more_failures_and_abstentions_never_take_a_reason_away(
    new: Counts, before: Counts, elsewhere_before: Counts, elsewhere: Counts, worse: int
) -> None:
    others = (before, elsewhere_before, elsewhere)
    found = reasons(new, *others)
    moved = min(worse, new.suggested)
    less = replace(new, suggested=new.suggested - moved)
    if any("failed" in reason for reason in found):
        assert any("failed" in reason for reason in reasons(replace(less, failed=new.failed + moved), *others))
    if any("abst" in reason for reason in found):
        assert any("abst" in reason for reason in reasons(replace(less, abstained=new.abstained + moved), *others))


@PATIENT
@given(rise=st.floats(0, 0.9), asked=st.integers(1_000, 5_000))
def test_what_rises_everywhere_is_not_the_new_versions_fault(rise: float, asked: int) -> None:
    now = counts(asked, abstained=int(asked * (0.1 + rise)))
    assert reasons(now, CALM, CALM, now) == ()
    # Up to 0.15 it depends on what is beyond noise.
    assert reasons(now, CALM, CALM, CALM) or rise <= 0.15


def test_without_figures_from_before_other_tenants_stand_in_with_more_tolerance() -> None:
    unknown = counts(5)
    assert reasons(counts(100, abstained=40), unknown, CALM, CALM) == ()
    (reason,) = reasons(counts(100, abstained=90), unknown, CALM, CALM)
    assert reason == "abstentions: 90.0% of 100 under the new versions, 10.0% of 9990 elsewhere"
    (reason,) = reasons(counts(100, failed=20), unknown, CALM, CALM)
    assert reason.startswith("failed requests: 20.0% of 100")
    assert reasons(counts(100, abstained=100), unknown, unknown, unknown) == (), "nothing to compare with"


def test_false_alarms_are_rare() -> None:
    """Of 2,000 roll-outs where nothing changed, each looked at ten times on the way to 1,000 requests."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(2_000):
        rate = rng.uniform(0, 0.5)
        before = counts(2_000, abstained=int(rng.binomial(2_000, rate)))
        abstained = np.cumsum(rng.binomial(100, rate, 10))
        alarms += any(
            reasons(counts(100 * (place + 1), abstained=int(part)), before, CALM, CALM)
            for place, part in enumerate(abstained)
        )
    assert alarms <= 2


def test_servers_are_added_up_and_one_that_began_anew_counts_from_there() -> None:
    start = {"a": server(NONE, CALM, CALM), "b": server(NONE, CALM, CALM)}
    restarted = server(counts(30, abstained=29))
    verdict = judge(start, {"a": server(counts(30, abstained=30), CALM, CALM), "b": restarted})
    assert (verdict.asked, verdict.missing) == (60, None)
    (reason,) = verdict.reasons
    assert "98.3% of 60 under the new versions, 10.0% of 9990 under" in reason


def test_a_server_that_began_anew_still_says_how_others_are() -> None:
    start = {"a": server(NONE, CALM, CALM)}
    now = {"a": server(counts(100, abstained=90), NONE, counts(1_000, abstained=100))}
    (reason,) = judge(start, now).reasons
    assert reason == "abstentions: 90.0% of 100 under the new versions, 10.0% of 1000 elsewhere"


def test_a_server_that_learns_late_who_is_on_trial_says_the_same() -> None:
    risen = counts(1_000, abstained=400)
    now = {"a": server(risen, CALM, CALM + risen)}
    early, late = server(NONE, CALM, CALM), ServerCounts(every=CALM + CALM)
    assert judge({"a": late}, now) == judge({"a": early}, now)
    assert judge({"a": early}, now).reasons == (), "it rose elsewhere as well"


def test_what_servers_cannot_load_is_a_reason_unless_it_is_single_bundles() -> None:
    def judged(serving: int, unloadable: int) -> tuple[str, ...]:
        here = {"a": server(NONE, serving=serving, unloadable=unloadable)}
        return judge(here, here).reasons

    assert judged(0, 0) == judged(10, 0) == judged(19, 1) == judged(9, 1) == ()
    assert judged(8, 1) == ("servers could not load 1 of 9 new versions",)
    assert judged(0, 1) == ("servers could not load 1 of 1 new versions",)


@pytest.mark.parametrize(
    ("there", "left", "missing"), [(1, 1, False), (1, 0, True), (3, 2, False), (3, 1, True), (4, 2, False)]
)
def test_servers_that_are_missing_are_told_apart_from_reasons(there: int, left: int, missing: bool) -> None:
    start = {str(number): ServerCounts() for number in range(there)}
    verdict = judge(start, {str(number): ServerCounts() for number in range(left)})
    assert verdict.reasons == ()
    assert verdict.missing == (f"only {left} of {there} servers can still be asked" if missing else None)


@given(first=PARTS, second=PARTS)
def test_counts_add_up_and_never_fall_below_nothing(first: Counts, second: Counts) -> None:
    assert (first + second) - second == first
    assert (first - (first + second)).asked == 0
    assert (first + second).asked == first.asked + second.asked
    assert first.asked == first.answered + first.failed


# What agents did


def heard(new: Heard, before: Heard, *, elsewhere: tuple[Heard, Heard] = (Heard(), Heard())) -> tuple[str, ...]:
    """The reasons against going on, where nothing else is known of the versions on trial."""
    until, since = elsewhere
    start = {"one": ServerCounts(every_heard=until)}
    now = {"one": ServerCounts(every_heard=until + since + new + before, new_heard=new, before_heard=before)}
    return judge(start, now).reasons


def test_suggestions_that_agents_stop_taking_halt_a_roll_out() -> None:
    told = "90.0% of 200 under the new versions, 25.0% of 200 under the versions before"
    assert heard(Heard(20, 180), Heard(150, 50)) == (f"suggestions that were not taken: {told}",)


@pytest.mark.parametrize(
    ("new", "before"),
    [
        (Heard(), Heard(150, 50)),
        (Heard(1, LEAST_REQUESTS - 2), Heard(150, 50)),
        (Heard(148, 52), Heard(150, 50)),
        (Heard(180, 20), Heard(150, 50)),
        (Heard(0, 200), Heard()),
    ],
)
def test_little_feedback_or_as_good_halts_nothing(new: Heard, before: Heard) -> None:
    assert heard(new, before) == ()


def test_what_agents_stop_taking_everywhere_is_not_held_against_the_new_versions() -> None:
    before_and_since = Heard(750, 250), Heard(100, 900)
    assert heard(Heard(20, 180), Heard(150, 50), elsewhere=before_and_since) == ()
    steady = Heard(750, 250), Heard(750, 250)
    assert len(heard(Heard(20, 180), Heard(150, 50), elsewhere=steady)) == 1
