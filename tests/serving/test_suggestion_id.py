from __future__ import annotations

import re

from serving.suggestions.suggestion_id import suggestion_id


def made(key: bytes = b"key", **changes: object) -> str:
    fields: dict[str, object] = {"tenant": "acme", "ticket": "1", "text": "Where?", "revision": 0, "version": "v"}
    fields |= {"policy": "p", "macros": ["m1", "m2"]}
    return suggestion_id(key, **{**fields, **changes})  # type: ignore[arg-type]


def test_an_id_depends_on_everything_it_covers() -> None:
    others = [
        made(b"another key"),
        made(tenant="globex"),
        made(ticket="2"),
        made(ticket=None),
        made(ticket=None, text="Who?"),
        made(revision=1),
        made(version="w"),
        made(policy="q"),
        made(macros=["m2", "m1"]),
        made(macros=["m1m2"]),
        made(macros=[]),
    ]
    assert made() == made()
    assert len({made(), *others}) == len(others) + 1
    assert made(tenant='a"', ticket="b") != made(tenant="a", ticket='"b')


def test_the_words_of_a_ticket_with_an_id_do_not_matter() -> None:
    assert made(text="Who?") == made()


def test_an_id_is_short_and_fits_everywhere() -> None:
    assert re.fullmatch(r"s1_[A-Za-z0-9_-]{22}", made())
    assert made(ticket=None, text="注文 👍") != made(ticket=None, text="")


def test_it_is_the_same_after_every_restart() -> None:
    assert made(b"0123456789abcdef") == "s1_8MiAuLxpr1gBSRPWSlDEbg"


def test_a_long_key_counts_to_its_end() -> None:
    assert made(b"k" * 200) != made(b"k" * 199 + b"x")
