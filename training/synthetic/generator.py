"""Tenants and fleets: catalogues, tickets and their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

from registry.errors import InvalidInput
from registry.names import check_tenant
from training.synthetic.compose import Writer
from training.synthetic.draws import Draws
from training.synthetic.grammar import Intent
from training.synthetic.industries import INDUSTRY, PREFIXES
from training.synthetic.languages import LANGUAGES
from training.synthetic.timeline import AT_LEAST, PERIOD, Fashion, assign, delay, fashions, times

INDUSTRIES: tuple[str, ...] = tuple(INDUSTRY)
LOCALES: tuple[str, ...] = tuple(LANGUAGES)
DEFAULT_END = datetime(2026, 1, 1, tzinfo=UTC)
CHANNELS = ("email", "web", "chat", "api")

_LOCALE_WEIGHTS = {"en": 7.0, "de": 2.0, "es": 2.0, "ja": 2.0}
# What agents do, apart from what customers mean: of a confusable pair they often take the other macro, and now and
# then any other.
_PARTNER_LABEL = 0.1
_ANY_LABEL = 0.015
# Share of customers who write English to a tenant of another language.
_ENGLISH = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticMacro:
    """A macro: `title` is `category::name`, `reply` a few sentences."""

    id: str
    title: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTicket:
    """A ticket and the macro an agent answered it with. Times are in UTC; `channel` is email, web, chat or api."""

    ticket_id: str
    subject: str
    body: str
    channel: str
    locale: str
    created_at: datetime
    applied_at: datetime
    macro_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTenant:
    """A tenant with its catalogue and its tickets, oldest first."""

    tenant: str
    industry: str
    locale: str
    macros: tuple[SyntheticMacro, ...]
    tickets: tuple[SyntheticTicket, ...]


def locales_of(industry: str) -> tuple[str, ...]:
    """The locales an industry can be generated in, English first."""
    return tuple(INDUSTRY[industry].blocks)


def macros_of(industry: str, locale: str) -> int:
    """The largest catalogue an industry has in a locale."""
    return len(INDUSTRY[industry].pack(locale).intents)


def make_tenant(
    tenant: str,
    *,
    seed: int,
    tickets: int = 800,
    macros: int = 24,
    industry: str | None = None,
    locale: str | None = None,
    end: datetime = DEFAULT_END,
) -> SyntheticTenant:
    """Make a tenant; the same arguments give the same tenant anywhere.

    Args:
        tenant: a slug; other names give other tenants.
        seed: not negative.
        tickets: how many, at least 1.
        macros: size of the catalogue, 2 up to what the industry has (`macros_of`).
        industry: one of `INDUSTRIES`; otherwise drawn.
        locale: one of `LOCALES` that the industry has (`locales_of`); otherwise drawn, mostly English.
        end: tickets are created and answered in the nine months before; with a time zone.

    Raises:
        InvalidInput: an argument is none of these.
    """
    check_tenant(tenant)
    _check(seed=seed, tickets=tickets, end=end)
    flavour = Draws(seed, tenant, 0)
    industry, locale = _place(industry, locale, flavour)
    intents = _catalogue(industry, locale, macros, flavour)
    language = LANGUAGES[locale]
    kind = INDUSTRY[industry]
    writers = {
        code: Writer(LANGUAGES[code], kind.pack(code), tenant, flavour) for code in dict.fromkeys((locale, "en"))
    }
    catalogue = _macros(intents, writers[locale], flavour)

    clock = Draws(seed, tenant, 1)
    end = end.astimezone(UTC)
    index = {intent.key: at for at, intent in enumerate(intents)}
    pairs = [None if intent.partner is None else index.get(intent.partner) for intent in intents]
    kinds = fashions(macros, tickets, clock)
    created = times(tickets, end, language.offset, clock)
    start = end - PERIOD
    shares = [(at - start) / PERIOD for at in created]
    meant = assign(shares, kinds, clock)
    labels = _labels(meant, shares, kinds, pairs, clock)

    draws = Draws(seed, tenant, 2)
    channels = list(accumulate(kind.channels))
    popular = list(accumulate(kind.weight + 0.01 for kind in kinds))
    english = INDUSTRY[industry].pack("en").intents
    number = draws.between(100_000, 900_000)
    made: list[SyntheticTicket] = []
    for at, (when, macro, label) in enumerate(zip(created, meant, labels, strict=True)):
        code = "en" if locale != "en" and draws.chance(_ENGLISH) else locale
        known = english if code == "en" else None
        channel = CHANNELS[draws.weighted(channels)]
        pair = pairs[macro]
        other = draws.weighted(popular)
        subject, body = writers[code].write(
            _in(intents[macro], known),
            partner=None if pair is None else _in(intents[pair], known),
            other=None if other == macro else _in(intents[other], known),
            channel=channel,
            created_at=when,
            late=shares[at] > 0.6,
            draws=draws,
        )
        number += draws.between(1, 9)
        made.append(
            SyntheticTicket(
                ticket_id=str(number),
                subject=subject,
                body=body,
                channel=channel,
                locale=draws.pick(LANGUAGES[code].locales),
                created_at=when,
                applied_at=when + delay(channel, draws),
                macro_id=catalogue[label].id,
            )
        )
    return SyntheticTenant(tenant=tenant, industry=industry, locale=locale, macros=catalogue, tickets=tuple(made))


def make_fleet(count: int, *, seed: int, tickets: int = 800, macros: int = 24) -> Iterator[SyntheticTenant]:
    """Make tenants one after the other, when they are asked for.

    Args:
        count: how many; the first ones are the same for every count.
        seed: not negative.
        tickets: of each tenant, as for `make_tenant`.
        macros: of each tenant; 2 to 25, which every industry and locale has.

    Raises:
        InvalidInput: an argument is out of range.
    """
    if count < 0:
        raise InvalidInput(f"a fleet cannot have {count} tenants", remedy="Ask for 0 or more.")
    _check(seed=seed, tickets=tickets, end=DEFAULT_END)
    most = min(macros_of(industry, locale) for industry in INDUSTRIES for locale in locales_of(industry))
    if not 2 <= macros <= most:
        raise InvalidInput(f"{macros} macros for every tenant", remedy=f"A fleet's tenants have 2 to {most}.")
    return (_member(at, seed, tickets, macros) for at in range(count))


def _member(at: int, seed: int, tickets: int, macros: int) -> SyntheticTenant:
    draws = Draws(seed, "fleet", at)
    industry, locale = _place(None, None, draws)
    name = f"{draws.pick(PREFIXES)}-{draws.pick(INDUSTRY[industry].suffixes)}-{at:04d}"
    return make_tenant(name, seed=seed, tickets=tickets, macros=macros, industry=industry, locale=locale)


def _check(*, seed: int, tickets: int, end: datetime) -> None:
    if seed < 0:
        raise InvalidInput(f"the seed {seed} is negative", remedy="Use 0 or more.")
    if tickets < 1:
        raise InvalidInput(f"a tenant cannot have {tickets} tickets", remedy="Ask for 1 or more.")
    if end.tzinfo is None or end.utcoffset() is None:
        raise InvalidInput(f"the end {end.isoformat()} has no time zone", remedy="Add one, such as UTC.")


def _place(industry: str | None, locale: str | None, draws: Draws) -> tuple[str, str]:
    if locale is not None and locale not in LANGUAGES:
        raise InvalidInput(f"no locale {locale[:40]!r}", remedy=f"There are {', '.join(LOCALES)}.")
    if industry is None:
        industry = draws.pick([name for name in INDUSTRIES if locale is None or locale in INDUSTRY[name].blocks])
    elif industry not in INDUSTRY:
        raise InvalidInput(f"no industry {industry[:40]!r}", remedy=f"There are {', '.join(INDUSTRIES)}.")
    known = locales_of(industry)
    if locale is None:
        return industry, known[draws.weighted(list(accumulate(_LOCALE_WEIGHTS[code] for code in known)))]
    if locale not in known:
        raise InvalidInput(f"{industry} has no tickets in {locale!r}", remedy=f"It has {', '.join(known)}.")
    return industry, locale


def _catalogue(industry: str, locale: str, count: int, draws: Draws) -> list[Intent]:
    known = INDUSTRY[industry].pack(locale).intents
    if not 2 <= count <= len(known):
        raise InvalidInput(
            f"a tenant in {industry} ({locale}) cannot have {count} macros", remedy=f"Ask for 2 to {len(known)}."
        )
    chosen = draws.shuffled(list(known.values()))[:count]
    return sorted(chosen, key=lambda intent: (intent.category, intent.name))


def _macros(intents: list[Intent], writer: Writer, draws: Draws) -> tuple[SyntheticMacro, ...]:
    number = draws.between(360_000_000, 360_900_000)
    made = []
    for intent in intents:
        number += draws.between(3, 400)
        reply = writer.reply(intent, draws)
        made.append(SyntheticMacro(id=str(number), title=f"{intent.category}::{intent.name}", reply=reply))
    return tuple(made)


def _in(intent: Intent, known: dict[str, Intent] | None) -> Intent:
    """The intent as another language has it."""
    return intent if known is None else known[intent.key]


def _labels(
    meant: list[int], shares: list[float], kinds: list[Fashion], pairs: list[int | None], draws: Draws
) -> list[int]:
    counts = [0] * len(kinds)
    for macro in meant:
        counts[macro] += 1
    # Labels go astray like other tickets do: to what is popular.
    running = list(accumulate(kind.weight for kind in kinds))
    labels = list(meant)
    for at, macro in enumerate(meant):
        label = macro
        pair = pairs[macro]
        if pair is not None and draws.chance(_PARTNER_LABEL):
            label = pair
        elif draws.chance(_ANY_LABEL):
            label = draws.weighted(running)
        kind = kinds[label]
        if label == macro or counts[macro] <= AT_LEAST or not kind.weight or not kinds[macro].weight:
            continue
        if kind.since <= shares[at] < kind.until:
            counts[macro] -= 1
            counts[label] += 1
            labels[at] = label
    return labels
