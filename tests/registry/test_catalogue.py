"""The live catalogue: writes on a condition, and what they make of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.catalogue import Catalogue, Macro, make_catalogue, read_catalogue, write_catalogue
from registry.documents import canonical_json
from registry.errors import InvalidInput, PreconditionFailed
from registry.layout import catalogue_key
from registry.store.local import LocalStore


class LosesAnswers(LocalStore):
    """Takes every write, and answers as its retry would be answered."""

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        super().put(key, data, if_match=if_match, if_absent=if_absent)
        raise PreconditionFailed("the object is there")


def catalogue(*ids: str) -> Catalogue:
    return make_catalogue(Macro(id=name, title=name) for name in ids)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_retry_refused_by_ones_own_success_is_success(store: LocalStore, tmp_path: Path) -> None:
    lossy = LosesAnswers(tmp_path / "store")
    first = write_catalogue(lossy, "acme", catalogue("a"), etag=None)
    assert read_catalogue(store, "acme") == (catalogue("a"), first)
    second = write_catalogue(lossy, "acme", catalogue("a", "b"), etag=first)
    assert read_catalogue(store, "acme") == (catalogue("a", "b"), second)


@pytest.mark.parametrize("theirs", [("b",), (), ("a", "b", "c")])
def test_another_writers_content_is_a_refusal_and_stays(store: LocalStore, theirs: tuple[str, ...]) -> None:
    stale = write_catalogue(store, "acme", catalogue("z"), etag=None)
    current = write_catalogue(store, "acme", catalogue(*theirs), etag=stale)
    for etag in (None, stale):
        with pytest.raises(PreconditionFailed):
            write_catalogue(store, "acme", catalogue("a"), etag=etag)
    assert read_catalogue(store, "acme") == (catalogue(*theirs), current)


def test_one_that_was_deleted_meanwhile_is_a_refusal(store: LocalStore) -> None:
    etag = write_catalogue(store, "acme", catalogue("a"), etag=None)
    store.delete(catalogue_key("acme"))
    with pytest.raises(PreconditionFailed):
        write_catalogue(store, "acme", catalogue("b"), etag=etag)
    assert read_catalogue(store, "acme") is None


def test_two_who_write_the_same_first_catalogue_both_succeed(store: LocalStore) -> None:
    etags = {write_catalogue(store, "acme", catalogue("a"), etag=None) for _ in range(2)}
    assert len(etags) == 1


def test_an_id_stands_once() -> None:
    with pytest.raises(InvalidInput, match="stands twice"):
        catalogue("a", "a")


@pytest.mark.parametrize(
    ("actions", "reply"),
    [
        ([], ""),
        ([{"field": "status", "value": "solved"}], ""),
        ([{"field": "comment_value", "value": "Hi {{ticket.requester.name}}, it is sent."}], "Hi , it is sent."),
        (
            [
                {"field": "comment_value", "value": ["channel:all", "One"]},
                {"field": "comment_value_html", "value": "<p>Two</p>"},
            ],
            "One\nTwo",
        ),
        ([{"name": "add_reply", "reply_body": "Sorry{% if vip %}!{% endif %}"}], "Sorry !"),
        ([{"type": "interaction", "button": "Offer", "text": "Offer it.", "subtext": ["x"]}], "Offer it."),
        ([{"body": {"nested": 1}}, {"field": "comment_value", "value": []}], ""),
    ],
)
def test_what_a_macro_says_to_the_customer(actions: list[dict[str, Any]], reply: str) -> None:
    assert Macro(id="m", title="t", actions=tuple(actions)).reply == reply


def test_a_field_of_a_later_release_is_passed_over_while_it_says_nothing(store: LocalStore) -> None:
    def written(**news: Any) -> None:
        macro = {"id": "a", "title": "A", "active": True, "restriction": None, "actions": [], "locale": None, **news}
        store.put(catalogue_key("acme"), canonical_json({"macros": [macro]}))

    written(seasons=None)
    found = read_catalogue(store, "acme")
    assert found is not None
    assert found[0] == make_catalogue([Macro(id="a", title="A")])
    # What it says might be who may not see the macro.
    written(seasons=["winter"])
    with pytest.raises(InvalidInput, match="seasons"):
        read_catalogue(store, "acme")
    # A field that there is must not be nothing, whatever else is passed over.
    written(seasons=None, active=None)
    with pytest.raises(InvalidInput, match="active"):
        read_catalogue(store, "acme")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"\xff", b"null", b"[]", b"7", b"{}", b'{"macros": 7}', b'{"macros": null}', b'{"macros": [7]}',
        b'{"macros": [null]}', b'{"macros": {"a": 1}}', b'{"macros": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
    ids=lambda data: str(data[:24]),
)  # fmt: skip
def test_what_is_no_catalogue_is_refused_as_one(store: LocalStore, data: bytes) -> None:
    store.put(catalogue_key("acme"), data)
    with pytest.raises(InvalidInput, match=r"macros\.json"):
        read_catalogue(store, "acme")
