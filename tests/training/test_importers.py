import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidInput
from training.importers import MAX_TEXT_BYTES, Imported, read_tickets


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_of_texts_and_labels(tmp_path: Path) -> None:
    found = read_tickets(
        write(tmp_path, 'text,label,split\nwhere is it,ship,train\n"a, b",refund,validation\n?,oos,test\n')
    )
    assert [(e.text, e.macro_id, e.split) for e in found.examples] == [
        ("where is it", "ship", "train"),
        ("a, b", "refund", "val"),
        ("?", None, "test"),
    ]
    assert found.problems == []


def test_tickets_with_everything(tmp_path: Path) -> None:
    row = {
        "ticket_id": 17, "subject": "Hi", "body": "where?", "macro_id": 4, "macro_title": "Ship::Where", "locale": "de",
        "applied_at": "2026-03-01T10:00:00+02:00", "tags": ["x"], "vip": True,
    }  # fmt: skip
    found = read_tickets(write(tmp_path, json.dumps(row) + "\n\n", "t.jsonl"))
    (example,) = found.examples
    assert (example.ticket_id, example.text, example.macro_id, example.locale) == ("17", "Hi\nwhere?", "4", "de")
    assert example.applied_at is not None
    assert example.applied_at.isoformat() == "2026-03-01T08:00:00+00:00"
    assert found.titles == {"4": "Ship::Where"}


def test_rows_without_an_id_get_the_same_one_every_time(tmp_path: Path) -> None:
    text = "text,label\na,x\nb,x\na,x\n"
    one, two = read_tickets(write(tmp_path, text)), read_tickets(write(tmp_path, text + "c,x\n"))
    ids = [example.ticket_id for example in one.examples]
    assert len(set(ids)) == 3
    assert [example.ticket_id for example in two.examples][:3] == ids


def test_conditions_filter_only_where_the_column_exists(tmp_path: Path) -> None:
    with_column = write(tmp_path, "text,label,version\na,x,v1\nb,x,v2\n", "a.csv")
    without = write(tmp_path, "text,label\na,x\nb,x\n", "b.csv")
    assert [e.text for e in read_tickets(with_column, where={"version": "v2"}).examples] == ["b"]
    assert len(read_tickets(without, where={"version": "v2"}).examples) == 2


def test_a_condition_leaves_out_broken_rows_that_it_can_read(tmp_path: Path) -> None:
    path = write(tmp_path, "version,text,label\nv1,a\nv2,b,x\n")
    assert [e.text for e in read_tickets(path, where={"version": "v2"}).examples] == ["b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("text,label\n,x\n", "row 2: the text is empty"),
        ("text,label\n   ,x\n", "row 2: the text is empty"),
        ("text,label\na,\n", "row 2: the label is empty"),
        (f"text,label\n{'a' * 1_000_000},x\n", "row 2: the text is longer than"),
        (f"text,label\n{'é' * (MAX_TEXT_BYTES // 2 + 1)},x\n", "row 2: the text is longer than"),
        ("text,label\na,x,y\n", "row 2: it has 3 fields, the header has 2"),
        ("text,label\na\n", "row 2: it has 1 fields, the header has 2"),
        ("text,label,label\na,x,y\n", "names a column twice"),
        ('text,label\na,"x\ny"\n', "label holds a control character or a line break"),
        ("ticket_id,text,label\n\x1b[31m,a,x\n", "ticket_id holds a control character"),
        (f"text,label\na,{'x' * 129}\n", "row 2: the label is longer"),
        ("ticket_id,text,label\n7,a,x\n7,b,y\n", "ticket id '7' stands in row 2 already"),
        ("text,label,applied_at\na,x,yesterday\n", "applied_at is not a time"),
        ("text,label\na\x00b,x\n", "NUL"),
        ("message,label\na,x\n", "needs a text column"),
        ("text,intent\na,x\n", "a label column"),
        ("", "needs a text column"),
        ("text,label\n", "holds no usable rows"),
        ('text,label\n"a,x\n', "is not CSV"),
        (b"text,label\n\xff\xfe,x\n", "is not UTF-8"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_taken(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_tickets(write(tmp_path, text))
    assert complaint in str(caught.value)
    assert caught.value.remedy or "CSV" in caught.value.what


THREAD = [
    {"author": "customer", "body": "Where is it?", "created_at": "2026-03-01T09:00:00Z"},
    {"author": "agent", "body": "We look.", "created_at": "2026-03-01T09:30:00Z"},
    {"author": "customer", "body": "internal", "public": False, "created_at": "2026-03-01T09:40:00Z"},
    {"author": "customer", "body": "<p>And now?</p>", "created_at": "2026-03-01T10:00:00Z"},
    {"author": "customer", "body": "Thanks!", "created_at": "2026-03-02T10:00:00Z"},
]


def test_of_a_thread_the_first_message_and_the_latest_before_the_macro_are_taken(tmp_path: Path) -> None:
    row = {
        "ticket_id": 1,
        "subject": "Parcel",
        "label": "ship",
        "comments": THREAD,
        "applied_at": "2026-03-01T11:00:00Z",
    }
    (example,) = read_tickets(write(tmp_path, json.dumps(row), "t.jsonl")).examples
    assert (example.body, example.latest) == ("Where is it?", "<p>And now?</p>")
    assert example.text == "Parcel\nWhere is it?\nAnd now?"
    del row["applied_at"]
    (example,) = read_tickets(write(tmp_path, json.dumps(row), "t.jsonl")).examples
    assert example.latest == "Thanks!"
    field = json.dumps(THREAD[:1]).replace('"', '""')
    (example,) = read_tickets(write(tmp_path, f'comments,label\n"{field}",x\n')).examples
    assert (example.body, example.latest) == ("Where is it?", "")


@pytest.mark.parametrize(
    "comments", ["x", "[1]", '["a"]', "{}x", '[{"author": "customer"}]', '[{"author": 1, "body": "a"}]', "[" * 100_000]
)
def test_comments_that_are_none_are_named(tmp_path: Path, comments: str) -> None:
    row = json.dumps({"label": "x", "comments": comments})
    with pytest.raises(InvalidInput, match="row 1: comments is not a list"):
        read_tickets(write(tmp_path, row, "t.jsonl"))


def test_half_a_character_in_a_comment_is_named(tmp_path: Path) -> None:
    row = json.dumps({"label": "x", "comments": [{"author": "customer", "body": "\ud800"}]})
    with pytest.raises(InvalidInput, match="comments holds half a Unicode character"):
        read_tickets(write(tmp_path, row, "t.jsonl"))


def test_several_macros_of_one_ticket(tmp_path: Path) -> None:
    path = write(tmp_path, "ticket_id,text,label\n7,a,x\n8,b,oos\n7,a,y\n9,c,z\n7,a,z\n")
    assert [(e.ticket_id, e.macro_ids) for e in read_tickets(path).examples] == [
        ("7", ("x", "y", "z")),
        ("8", ()),
        ("9", ("z",)),
    ]
    path = write(tmp_path, "text,label\na,x| y|x\nb,oos\nc,\n")
    found = read_tickets(path, label_separator="|", skip_invalid=True)
    assert [(e.macro_id, e.also) for e in found.examples] == [("x", ("y",)), (None, ())]
    assert found.problems == ["row 4: the label is empty"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("7,a,x\n7,b,y\n", "stands in row 2 already, with another text"),
        ("7,a,x\n7,a,x\n", "stands in row 2 already with the label 'x'"),
        ("7,a,x\n7,a,oos\n", "stands in row 2 already; nothing fits, or a macro"),
    ],
)
def test_rows_of_one_ticket_that_contradict_each_other(tmp_path: Path, rows: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_tickets(write(tmp_path, f"ticket_id,text,label\n{rows}"))


@pytest.mark.parametrize("line", ["{", "[]", '"text"', "[" * 100_000])
def test_lines_that_are_no_objects_are_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput, match=r"t\.jsonl line 1 is not"):
        read_tickets(write(tmp_path, line, "t.jsonl"))


@pytest.mark.parametrize(
    "name", ["text", "subject", "label", "ticket_id", "channel", "locale", "split", "macro_title", "domain"]
)
def test_half_a_character_in_json_is_named(tmp_path: Path, name: str) -> None:
    row = {"text": "a", "label": "x", name: "\ud800"}
    with pytest.raises(InvalidInput, match=f"{name} holds half a Unicode character"):
        read_tickets(write(tmp_path, json.dumps(row), "t.jsonl"))


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    found = read_tickets(write(tmp_path, "text,label\na,x\n,x\nb,\nc,x\n"), skip_invalid=True)
    assert [e.text for e in found.examples] == ["a", "c"]
    assert found.problems == ["row 3: the text is empty", "row 4: the label is empty"]


def test_an_unknown_format_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--format csv"):
        read_tickets(write(tmp_path, "x", "t.xlsx"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_tickets(tmp_path / "none.csv")


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_never_worse(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    for name in ("t.csv", "t.jsonl"):
        with contextlib.suppress(InvalidInput):
            assert isinstance(read_tickets(write(folder, b"text,label\n" + noise, name)), Imported)


def test_a_few_shot_sample_cuts_the_training_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "text,label,split,few_shot\na,x,train,5\nb,x,train,10\nc,x,train,\nd,x,test,\ne,x,val,\nf,oos,train,5\n"
    )

    def texts(few_shot: int | None) -> str:
        return "".join(example.body for example in read_tickets(path, few_shot=few_shot).examples)

    assert (texts(5), texts(10), texts(None)) == ("adef", "abdef", "abcdef")
    path.write_text("text,label\na,x\n")
    with pytest.raises(InvalidInput, match="has no column few_shot"):
        read_tickets(path, few_shot=5)


def test_personal_data_are_masked_unless_that_is_switched_off(tmp_path: Path) -> None:
    thread = [{"author": "customer", "body": f"{n} mail a{n}@b.example"} for n in (1, 2)]
    rows = [
        {"subject": "call +49 170 1234567", "comments": thread, "label": "x"},
        {"text": "a@b.example", "label": "a@b.example", "macro_title": "to a@b.example"},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl")
    found, plain = read_tickets(path), read_tickets(path, mask=False)
    one, two = found.examples
    assert (one.subject, one.body, one.latest) == ("call [phone]", "1 mail [email]", "2 mail [email]")
    assert (two.body, two.macro_id, found.titles) == ("[email]", "a@b.example", {"a@b.example": "to a@b.example"})
    assert plain.examples[0].latest == "2 mail a2@b.example"
    assert [e.ticket_id for e in found.examples] == [e.ticket_id for e in plain.examples], "they replace each other"
