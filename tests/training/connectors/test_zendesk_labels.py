from typing import Any

from tests.training.connectors.zendesk_world import AGENT, JANE, comment, used
from training.connectors.zendesk import Ticket
from training.connectors.zendesk_labels import MOST_OF_MESSAGE, Labelled, label

TICKET = Ticket(id=17, updated=0, requester=JANE, subject="today's", channel="email", locale="de", deleted=False)


def audit(number: int, author: int, *events: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "author_id": author,
        "created_at": f"2026-03-01T10:00:{number:02d}Z",
        "events": [{"id": 100 * number + place, **event} for place, event in enumerate(events)],
    }


def labelled(*audits: dict[str, Any], ids: dict[str, str | None] | None = None) -> Labelled:
    return label(TICKET, audits, ids=ids or {})


def test_the_macros_own_reply_and_what_follows_are_not_read() -> None:
    found = labelled(
        audit(1, JANE, comment("Where is it?", JANE)),
        audit(
            2,
            AGENT,
            comment("LEAK", AGENT),
            comment("LEAK", JANE),
            used(1),
            {"type": "Comment", "author_id": JANE, "body": "LEAK"},
        ),
        audit(3, JANE, comment("LEAK", JANE)),
    )
    (example,) = found.examples
    assert (example.body, example.latest, example.macro_id, example.locale) == ("Where is it?", "", "360000001", "de")
    assert "LEAK" not in str(example)


def test_only_the_requester_in_public_is_a_customer() -> None:
    found = labelled(
        audit(1, JANE, comment("Where is it?", JANE)),
        audit(2, 777, comment("a colleague", 777)),
        audit(3, JANE, comment("a note", JANE, public=False)),
        audit(4, JANE, comment("And now?", JANE)),
        audit(5, AGENT, used(1)),
    )
    (example,) = found.examples
    assert (example.body, example.latest) == ("Where is it?", "And now?")


def test_an_agent_who_is_the_requester_is_no_customer() -> None:
    found = labelled(audit(1, JANE, comment("internal", JANE)), audit(2, JANE, used(1)))
    assert (found.examples[0].body, found.examples[0].subject) == ("", "today's")


def test_a_comment_made_private_before_the_macro_is_not_read() -> None:
    found = labelled(
        audit(1, JANE, comment("Where?", JANE)),
        audit(2, JANE, comment("secret", JANE)),
        audit(3, AGENT, {"type": "CommentPrivacyChange", "comment_id": 200, "public": False}),
        audit(4, AGENT, used(1)),
    )
    assert found.examples[0].latest == ""


def test_the_subject_is_that_of_the_time() -> None:
    create = {"type": "Create", "field_name": "subject", "value": "first"}
    change = {"type": "Change", "field_name": "subject", "value": "second", "previous_value": "first"}
    later = {"type": "Change", "field_name": "subject", "value": "LEAK", "previous_value": "second"}
    found = labelled(
        audit(1, JANE, create, comment("Where?", JANE)), audit(2, AGENT, change), audit(3, AGENT, used(1), later)
    )
    assert found.examples[0].subject == "second"
    # Audits that do not tell of the making, only of a change.
    found = labelled(audit(1, JANE, comment("Where?", JANE)), audit(2, AGENT, used(1)), audit(3, AGENT, change))
    assert found.examples[0].subject == "first"
    assert labelled(audit(1, JANE, comment("W", JANE)), audit(2, AGENT, used(1))).examples[0].subject == "today's"


def test_macros_of_one_state_are_one_example_and_of_the_next_another() -> None:
    found = labelled(
        audit(1, JANE, comment("Where?", JANE)),
        audit(2, AGENT, used(1), used(2), used(1)),
        audit(3, AGENT, used(3)),
        audit(4, JANE, comment("Money back!", JANE)),
        audit(5, AGENT, used(4)),
    )
    assert [(e.ticket_id, e.macro_ids, e.latest) for e in found.examples] == [
        ("17", ("360000001", "360000002", "360000003"), ""),
        ("17#5", ("360000004",), "Money back!"),
    ]


def test_references_by_number_by_digits_and_by_title() -> None:
    ids: dict[str, str | None] = {"Known": "5", "Twice": None}
    found = labelled(
        audit(1, JANE, comment("Where?", JANE)),
        audit(
            2,
            AGENT,
            used(1, macro_id=1),
            used(1, macro_id="2", macro_deleted=True),
            used(1, macro_id=None, macro_title="Known"),
            used(1, macro_id=None, macro_title="Twice"),
            used(1, macro_id=True, macro_title="Unknown"),
        ),
        ids=ids,
    )
    assert found.examples[0].macro_ids == ("1", "2", "5")
    assert (found.deleted, found.unresolved) == (1, 2)


def test_before_any_word_there_is_no_example() -> None:
    nothing = Ticket(id=17, updated=0, requester=JANE, subject="", channel="", locale="", deleted=False)
    found = label(nothing, [audit(1, AGENT, used(1))], ids={})
    assert (found.examples, found.wordless) == ([], 1)


def test_odd_characters_and_long_messages() -> None:
    found = labelled(audit(1, JANE, comment("a\x00b\ud800" + "x" * 99_999, JANE)), audit(2, AGENT, used(1)))
    body = found.examples[0].body
    assert body.startswith("a b?xx")
    assert len(body) == MOST_OF_MESSAGE


def test_undocumented_and_broken_events_are_passed_over() -> None:
    found = labelled(
        {"id": 1, "events": None},
        {
            "id": 2,
            "author_id": JANE,
            "events": [None, 7, {"type": "Comment"}, {"type": "VoiceComment", "body": "hello"}],
        },
        audit(3, JANE, comment("Where?", JANE)),
        {"id": 4, "author_id": AGENT, "created_at": "soon", "events": [used(1)]},
    )
    assert (found.examples[0].body, found.examples[0].applied_at) == ("Where?", None)
