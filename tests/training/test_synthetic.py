"""The ticket generator: the same everywhere, and as uneven as real tickets are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidInput
from training.synthetic import (
    DEFAULT_END,
    INDUSTRIES,
    LOCALES,
    SyntheticTenant,
    locales_of,
    macros_of,
    make_fleet,
    make_tenant,
)
from training.synthetic.draws import Draws
from training.synthetic.grammar import Slot, compile_pack, compile_template, expand, slots_of
from training.synthetic.industries import INDUSTRY
from training.synthetic.noise import misspell
from training.synthetic.timeline import NEW_SINCE, PERIOD

PLACES = [(industry, locale) for industry in INDUSTRIES for locale in locales_of(industry)]
# Changes with every change of a phrase, a weight or the order of draws; whoever makes one means to.
PINNED = {
    ("ecommerce", "en"): "f06949c7bbedba647449981304365ec88076225acfee32fadbbe54e076af8c2d",
    ("ecommerce", "de"): "3723475fea7c5a21771f6eeaa3648b914ef582cf3a389348aec7e0334e514448",
    ("travel", "ja"): "a9fdfc6d71d779c3c43f460f78a63abbc66295b9b5a4076bc262a7ab89b28830",
}


def digest(tenant: SyntheticTenant) -> str:
    text = json.dumps(dataclasses.asdict(tenant), ensure_ascii=False, sort_keys=True, default=datetime.isoformat)
    return hashlib.sha256(text.encode()).hexdigest()


def used(tenant: SyntheticTenant) -> Counter[str]:
    return Counter(ticket.macro_id for ticket in tenant.tickets)


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def tenant(request: pytest.FixtureRequest) -> SyntheticTenant:
    industry, locale = request.param
    return make_tenant("juniper-goods", seed=11, industry=industry, locale=locale)


@pytest.mark.parametrize("place", PINNED, ids="-".join)
def test_output_is_pinned(place: tuple[str, str]) -> None:
    industry, locale = place
    made = make_tenant("pinned", seed=20, tickets=300, industry=industry, locale=locale)
    assert digest(made) == PINNED[place]


def test_depends_on_name_and_seed() -> None:
    def make(name: str, seed: int) -> SyntheticTenant:
        return make_tenant(name, seed=seed, tickets=20, macros=10, industry="saas", locale="en")

    one = make("one", 1)
    assert one == make("one", 1)
    assert one.tickets != make("two", 1).tickets
    assert one.tickets != make("one", 2).tickets


def test_catalogue_does_not_depend_on_how_many_tickets() -> None:
    few, many = (make_tenant("one", seed=1, tickets=count) for count in (5, 300))
    assert (few.industry, few.locale, few.macros) == (many.industry, many.locale, many.macros)


def test_fleet_tenants_are_independent_of_its_size() -> None:
    small = list(make_fleet(3, seed=4, tickets=30))
    assert small == list(islice(make_fleet(500, seed=4, tickets=30), 3))
    assert small != list(make_fleet(3, seed=5, tickets=30))


def test_fleet_is_lazy() -> None:
    assert next(make_fleet(10**9, seed=1, tickets=1, macros=2)).tickets


def test_fleet_names_and_variety() -> None:
    fleet = list(make_fleet(120, seed=1, tickets=2, macros=2))
    assert len({tenant.tenant for tenant in fleet}) == 120
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", tenant.tenant) for tenant in fleet)
    assert fleet[7].tenant.endswith("-0007")
    assert {tenant.industry for tenant in fleet} == set(INDUSTRIES)
    assert {tenant.locale for tenant in fleet} == set(LOCALES)
    assert sum(tenant.locale == "en" for tenant in fleet) > 60


@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_every_phrase_can_be_filled_in(place: tuple[str, str]) -> None:
    industry, locale = place
    pack = INDUSTRY[industry].pack(locale)
    english = INDUSTRY[industry].pack("en")
    made_up = (
        "date future date_long clock weekday_short order_no name me family email company support other "
        "product2 flight2 hotel2 plan2"
    )
    lines = [line for lines in (*pack.phrases.values(), *pack.slots.values()) for line in lines]
    for intent in pack.intents.values():
        lines += [*intent.subjects, *intent.cores, *intent.details, *intent.asks]
        assert {slot for line in intent.reply for slot in slots_of(line)} <= {"company", "product"}
        assert intent.partner is None or intent.partner in pack.intents
    assert {slot for line in lines for slot in slots_of(line)} <= {*made_up.split(), *pack.slots}
    # Some customers write English to whatever tenant.
    assert set(pack.intents) <= set(english.intents)
    assert set(pack.phrases) == set(english.phrases)
    assert 25 <= len(pack.intents) <= 40


def test_catalogue(tenant: SyntheticTenant) -> None:
    assert len({macro.id for macro in tenant.macros}) == len({macro.title for macro in tenant.macros}) == 24
    for macro in tenant.macros:
        assert re.fullmatch(r"[^:]+::[^:]+", macro.title)
        assert len(macro.reply) > 15
        assert "{" not in macro.reply


def test_every_macro_is_used_and_some_are_rare(tenant: SyntheticTenant) -> None:
    counts = used(tenant)
    assert set(counts) == {macro.id for macro in tenant.macros}
    assert min(counts.values()) >= 3
    assert 2 <= sum(count < 5 for count in counts.values()) <= 8


def test_popularity_falls_like_zipf(tenant: SyntheticTenant) -> None:
    counts = sorted(used(tenant).values(), reverse=True)
    assert 0.08 < counts[0] / 800 < 0.35
    assert 0.4 < sum(counts[:6]) / 800 < 0.85
    assert counts[0] > 2.5 * counts[12] > 5 * counts[-1]


def test_popularity_drifts(tenant: SyntheticTenant) -> None:
    start = DEFAULT_END - PERIOD
    new = DEFAULT_END - NEW_SINCE
    seen: dict[str, list[datetime]] = {}
    for ticket in tenant.tickets:
        seen.setdefault(ticket.macro_id, []).append(ticket.created_at)
    often = {macro: when for macro, when in seen.items() if len(when) >= 5}
    assert sum(when[0] >= new for when in often.values()) == 1
    assert sum(when[-1] < start + PERIOD / 2 for when in often.values()) >= 1
    halves = [Counter(ticket.macro_id for ticket in half) for half in (tenant.tickets[:400], tenant.tickets[400:])]
    moved = sum(abs(halves[0][macro] - halves[1][macro]) for macro in seen) / 800
    assert moved > 0.15


def test_tickets_are_well_formed(tenant: SyntheticTenant) -> None:
    assert len({ticket.ticket_id for ticket in tenant.tickets}) == len(tenant.tickets) == 800
    for ticket in tenant.tickets:
        assert ticket.body.strip()
        assert not re.search(r"[{}\[\]]", ticket.body + ticket.subject), ticket
        assert ticket.channel in ("email", "web", "chat", "api")
        assert re.fullmatch(r"[a-z]{2}-[A-Z]{2}", ticket.locale)
    assert {ticket.channel for ticket in tenant.tickets} == {"email", "web", "chat", "api"}


def test_times(tenant: SyntheticTenant) -> None:
    created = [ticket.created_at for ticket in tenant.tickets]
    assert created == sorted(created)
    assert created[0] >= DEFAULT_END - PERIOD
    for ticket in tenant.tickets:
        assert ticket.created_at.tzinfo is UTC
        assert timedelta(minutes=1) <= ticket.applied_at - ticket.created_at <= timedelta(days=1)
        assert ticket.applied_at <= DEFAULT_END
    weekend = sum(when.weekday() >= 5 for when in created) / 800
    assert 0.04 < weekend < 0.2


def test_lengths(tenant: SyntheticTenant) -> None:
    def size(body: str) -> float:
        return len(body) / 2 if tenant.locale == "ja" else len(body.split())

    sizes = [size(ticket.body) for ticket in tenant.tickets]
    assert 30 <= median(sizes) <= 55
    assert max(sizes) > 120
    by_channel = {
        channel: median(size(ticket.body) for ticket in tenant.tickets if ticket.channel == channel)
        for channel in ("email", "chat")
    }
    assert by_channel["email"] > 1.4 * by_channel["chat"]


def test_few_tickets_repeat(tenant: SyntheticTenant) -> None:
    bodies = Counter(re.sub(r"\W+", "", ticket.body.lower()) for ticket in tenant.tickets)
    assert len(bodies) > 0.97 * len(tenant.tickets)


def test_locale_decides_the_letters(tenant: SyntheticTenant) -> None:
    letters = {"en": r"[a-z]", "de": r"[äöüß]", "es": r"[áéíóúñ¿]", "ja": r"[ぁ-ん]"}[tenant.locale]
    assert sum(bool(re.search(letters, ticket.body)) for ticket in tenant.tickets) > 480
    own = sum(ticket.locale.startswith(tenant.locale) for ticket in tenant.tickets)
    assert own == 800 if tenant.locale == "en" else 700 < own < 800


@settings(max_examples=25, deadline=None)
@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    seed=st.integers(0, 2**70),
    tickets=st.integers(1, 400),
    macros=st.integers(2, 25),
    place=st.sampled_from(PLACES),
    end=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone(timedelta(hours=9)))),
)
def test_any_tenant_is_whole(
    name: str, seed: int, tickets: int, macros: int, place: tuple[str, str], end: datetime
) -> None:
    made = make_tenant(name, seed=seed, tickets=tickets, macros=macros, industry=place[0], locale=place[1], end=end)
    assert (made.tenant, made.industry, made.locale) == (name, *place)
    assert (len(made.macros), len(made.tickets)) == (macros, tickets)
    counts = used(made)
    assert set(counts) <= {macro.id for macro in made.macros}
    assert min(counts[macro.id] for macro in made.macros) >= min(3, tickets // macros)
    assert all(end - PERIOD <= ticket.created_at < ticket.applied_at <= end for ticket in made.tickets)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "Not A Slug"},
        {"seed": -1},
        {"tickets": 0},
        {"macros": 1},
        {"macros": 41},
        {"industry": "mining"},
        {"locale": "tlh"},
        {"industry": "saas", "locale": "ja"},
        {"end": datetime(2026, 1, 1)},
    ],
    ids=str,
)
def test_bad_arguments(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"tenant": "acme", "seed": 1, "tickets": 10, **wrong}
    with pytest.raises(InvalidInput) as caught:
        make_tenant(arguments.pop("tenant"), **arguments)
    assert caught.value.remedy


@pytest.mark.parametrize("wrong", [{"count": -1}, {"seed": -1}, {"tickets": 0}, {"macros": 1}, {"macros": 27}], ids=str)
def test_bad_fleets(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"count": 2, "seed": 1, **wrong}
    with pytest.raises(InvalidInput):
        make_fleet(arguments.pop("count"), **arguments)


def test_largest_catalogue() -> None:
    most = macros_of("ecommerce", "en")
    assert len(make_tenant("acme", seed=1, tickets=200, macros=most, industry="ecommerce", locale="en").macros) == most


def test_draws_are_pinned() -> None:
    draws = Draws(1, "name")
    assert [draws.below(1000) for _ in range(6)] == [238, 384, 201, 463, 795, 3]
    assert [Draws(1, "name", stream).below(10**9) for stream in (0, 1)] == [238322101, 969594569]


def test_draws_stay_in_range() -> None:
    draws = Draws(3, "range")
    assert {draws.between(2, 4) for _ in range(200)} == {2, 3, 4}
    assert {draws.weighted([0.0, 1.0, 1.0, 3.0]) for _ in range(200)} == {1, 3}
    assert all(5.0 <= draws.quantile((5.0, 6.0, 9.0)) < 9.0 for _ in range(200))
    assert sorted(draws.shuffled(range(50))) == list(range(50))


def test_templates() -> None:
    template = compile_template("[my|the] {product} is [dead[ again|]|{2-4} days late] {dd}{L}")
    assert list(slots_of(template)) == ["product"]
    assert compile_template("{order}") == (Slot("order"),)
    draws = Draws(1, "templates")
    texts = {expand(template, draws, {"product": "lamp"}.__getitem__) for _ in range(300)}
    assert all(re.fullmatch(r"(my|the) lamp is (dead( again)?|[234] days late) \d\d[A-Z]", text) for text in texts)
    with pytest.raises(ValueError, match="unclosed"):
        compile_template("[a|b")


def test_packs_say_what_is_wrong_with_them() -> None:
    with pytest.raises(ValueError, match="no mark"):
        compile_pack("hello there")
    with pytest.raises(ValueError, match="incomplete"):
        compile_pack("@ key | Category | Name\n- no reply")


@given(st.text(min_size=1, max_size=80), st.integers(0, 30))
def test_typing_errors_leave_digits_and_marks_alone(text: str, count: int) -> None:
    typed = misspell(text, Draws(count, "errors"), count)
    assert [mark for mark in typed if not mark.isalpha()] == [mark for mark in text if not mark.isalpha()]
