"""What may be suggested to whom, against a slow restatement of the rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalogue import Macro, base_language
from registry.model.bundle import Label
from registry.suggestion_rules import SuggestionRules
from serving.suggestions.choice import choose
from serving.suggestions.policy import EVERYBODY, Policy

IDS = [f"m{index}" for index in range(8)]
GROUPS = ["1", "2", "3", "team"]
LOCALES = [None, "", "en", "en-GB", "EN_us", "de", "pt-BR", "?"]
LABELS = [Label(id=name, title="then") for name in IDS[:7]]  # the last macro of a catalogue is not trained on

restrictions = st.one_of(
    st.none(),
    st.builds(lambda ids: {"type": "Group", "ids": ids}, st.lists(st.sampled_from([1, 2, "3", "team", True, None]))),
    st.builds(lambda one: {"type": "group", "id": one}, st.sampled_from([1, "2", None, ""])),
    st.sampled_from([{"type": "User", "id": 1}, {"type": "Group", "ids": "1"}, {}, {"type": None}, {"type": "Team"}]),
)
catalogues = st.dictionaries(
    st.sampled_from(IDS),
    st.tuples(st.booleans(), restrictions, st.sampled_from(LOCALES)),
).map(
    lambda rows: [
        Macro(id=name, title=f"Today {name}", active=active, restriction=restriction, locale=locale)
        for name, (active, restriction, locale) in rows.items()
    ]
)
groups = st.lists(st.sampled_from([*GROUPS, "True", "None", ""]), max_size=3)
rules = st.builds(
    SuggestionRules,
    exclude_macros=st.lists(st.sampled_from(IDS), max_size=3).map(tuple),
    off_groups=st.lists(st.sampled_from(GROUPS), max_size=1).map(tuple),
)


def may_be_used(macro: Macro, told: SuggestionRules, agent: list[str], locale: str | None) -> bool:
    """The rules once more, as one would say them."""
    if not macro.active or macro.id in (told.exclude_macros or ()):
        return False
    if macro.restriction is not None:
        if str(macro.restriction.get("type")).lower() != "group":
            return False
        named = macro.restriction.get("ids")
        named = [*(named if isinstance(named, list) else []), macro.restriction.get("id")]
        if not {str(one) for one in named if one not in (None, "") and one is not True} & set(agent):
            return False
    of_macro, of_ticket = base_language(macro.locale), base_language(locale)
    return of_macro is None or of_ticket is None or of_macro == of_ticket


@given(
    macros=catalogues,
    told=rules,
    agent=groups,
    locale=st.sampled_from([*LOCALES, "fr"]),
    scores=st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7),
    exclude=st.lists(st.sampled_from(IDS), max_size=2),
    threshold=st.sampled_from([0.0, 0.5]),
)
def test_only_what_may_be_used_is_suggested_and_the_next_best_fill_up(
    macros: list[Macro],
    told: SuggestionRules,
    agent: list[str],
    locale: str | None,
    scores: list[float],
    exclude: list[str],
    threshold: float,
) -> None:
    policy = Policy(macros, told)
    shown = policy.shown("v", LABELS, policy.audience(agent, locale))
    found = choose(np.array(scores, np.float32), shown, exclude=exclude, limit=3, threshold=threshold)
    allowed = {macro.id for macro in macros if may_be_used(macro, told, agent, locale)} - set(exclude)
    best = sorted((-score, place) for place, score in enumerate(scores) if IDS[place] in allowed)[:3]
    expected = [IDS[place] for _, place in best] if best and -best[0][0] >= threshold else []
    assert [macro.id for macro in found.macros] == expected
    assert all(macro.title == f"Today {macro.id}" for macro in found.macros)
    assert policy.is_off(agent) == bool(set(agent) & set(told.off_groups or ()))


@given(macros=catalogues, agent=groups, other=groups, locale=st.sampled_from(LOCALES))
def test_an_audience_stands_for_all_that_matters(
    macros: list[Macro], agent: list[str], other: list[str], locale: str | None
) -> None:
    """Or a mask, or an answer, that was made for one request would be used for another that may see less."""
    policy = Policy(macros)
    if policy.audience(agent, locale) == policy.audience(other, locale):
        for macro in macros:
            told = SuggestionRules()
            assert may_be_used(macro, told, agent, locale) == may_be_used(macro, told, other, locale)


def test_strangers_groups_and_languages_make_no_audiences() -> None:
    policy = Policy([Macro(id="a", title="A", restriction={"type": "Group", "ids": [7]}, locale="de")])
    audiences = {policy.audience([str(number), "7"], f"x{chr(97 + number % 26)}") for number in range(1000)}
    assert len(audiences) == 1
    assert Policy([Macro(id="a", title="A")]).audience(["1"], "de") == EVERYBODY


def test_masks_are_made_once_and_are_bounded() -> None:
    policy = Policy([Macro(id=f"m{n}", title="", restriction={"type": "Group", "id": n}) for n in range(8)])
    audience = policy.audience(["3"], None)
    assert policy.shown("v", LABELS, audience) is policy.shown("v", LABELS, policy.audience(["3", "99"], None))
    assert policy.shown("v", LABELS, audience) is not policy.shown("w", LABELS, audience)
    for number in range(256):
        members = [str(bit) for bit in range(8) if number >> bit & 1]
        policy.shown("v", LABELS, policy.audience(members, None))
    assert len(policy._shown) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"title": "B"},
        {"active": False},
        {"restriction": {"type": "Group", "id": 1}},
        {"locale": "de"},
    ],
)
def test_a_version_is_that_of_all_that_answers_depend_on(change: dict[str, Any]) -> None:
    plain = Macro(id="a", title="A")
    others = [plain.model_copy(update=change)]
    assert Policy([plain]).version == Policy([Macro(id="a", title="A", actions=({"field": "status"},))]).version
    assert Policy([plain]).version != Policy(others).version
    assert Policy([plain]).version != Policy([plain], SuggestionRules(off_groups=("1",))).version
    assert Policy([plain]).version != Policy([plain], SuggestionRules(exclude_macros=("a",))).version
    assert Policy([plain]).version == Policy([plain], SuggestionRules(exclude_macros=("z",))).version
    two = [plain, Macro(id="b", title="B")]
    assert Policy(two).version == Policy(two[::-1]).version


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        *[("en", "en"), ("pt-BR", "pt"), ("PT_br", "pt"), (" de ", "de"), ("zh-Hant-TW", "zh")],
        *[("", None), (None, None), ("1", None), ("e", None), ("en.UTF-8", None), ("-en", None)],
    ],
)
def test_languages(locale: str | None, language: str | None) -> None:
    assert base_language(locale) == language
