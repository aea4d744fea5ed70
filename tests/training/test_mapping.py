import json
from pathlib import Path

import pytest

from registry.errors import InvalidInput
from training.importers import read_tickets
from training.mapping import read_mapping

TOML = """
delimiter = ";"
encoding = "cp1252"
time_format = "%d.%m.%Y %H:%M"
time_zone = "Europe/Berlin"
label_separator = "|"

[fields]
ticket_id = "Nr."
text = "Beschreibung"
label = "Makro"
applied_at = "Wann"

[constants]
channel = "email"
"""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_with_names_of_its_own(tmp_path: Path) -> None:
    mapping = read_mapping(write(tmp_path, "m.toml", TOML))
    text = "Nr.;Beschreibung;Makro;Wann;text;Land\n7;Größe falsch;a|b;01.03.2026 10:00;never read;DE\n8;x;a;;y;AT\n"
    path = write(tmp_path, "t.csv", text.encode("cp1252"))
    (example,) = read_tickets(path, mapping=mapping, where={"Land": "DE"}).examples
    assert (example.ticket_id, example.body, example.macro_ids) == ("7", "Größe falsch", ("a", "b"))
    assert (example.channel, str(example.applied_at)) == ("email", "2026-03-01 09:00:00+00:00")


def test_paths_into_json_lines(tmp_path: Path) -> None:
    fields = {"text": "ticket.description", "label": "macro.id", "locale": "user.locale", "subject": "a.b"}
    mapping = read_mapping(write(tmp_path, "m.json", json.dumps({"fields": fields})))
    row = {
        "ticket": {"description": "where?"},
        "macro": {"id": 4},
        "user": [],
        "a.b": "dotted name",
        "body": "never read",
    }
    (example,) = read_tickets(write(tmp_path, "t.jsonl", json.dumps(row)), mapping=mapping).examples
    assert (example.subject, example.body, example.macro_id, example.locale) == ("dotted name", "where?", "4", "")


def test_a_time_that_does_not_fit_names_its_row(tmp_path: Path) -> None:
    mapping = read_mapping(write(tmp_path, "m.toml", TOML))
    path = write(tmp_path, "t.csv", "Nr.;Beschreibung;Makro;Wann\n7;x;a;2026\n")
    with pytest.raises(InvalidInput, match="row 2: applied_at is not a time"):
        read_tickets(path, mapping=mapping)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    mapping = read_mapping(write(tmp_path, "m.toml", TOML))
    with pytest.raises(InvalidInput, match="no column 'Beschreibung'"):
        read_tickets(write(tmp_path, "t.csv", "Nr.;Text;Makro;Wann\n"), mapping=mapping)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[fields", "neither TOML nor"),
        ("", "fields"),
        ('[fields]\ntext = "a"', "no label"),
        ('[fields]\nlabel = "a"', "maps no text"),
        ('[fields]\ntext = "a"\nlabel = "b"\nbody = "c"', "fields.body"),
        ('colour = 1\n[fields]\ntext = "a"\nlabel = "b"', "colour"),
        ('time_zone = "Mars"\n[fields]\ntext = "a"\nlabel = "b"', "no time zone"),
        ('time_zone = "Europe"\n[fields]\ntext = "a"\nlabel = "b"', "no time zone"),
        ('time_zone = "../x"\n[fields]\ntext = "a"\nlabel = "b"', "no time zone"),
        ('delimiter = ""\n[fields]\ntext = "a"\nlabel = "b"', "delimiter"),
    ],
)
def test_what_is_no_mapping_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_mapping(write(tmp_path, "m.toml", text))


def test_a_constant_may_be_the_label(tmp_path: Path) -> None:
    mapping = read_mapping(write(tmp_path, "m.toml", '[fields]\ntext = "a"\n[constants]\nlabel = "refund"'))
    assert read_tickets(write(tmp_path, "t.csv", "a\nx\n"), mapping=mapping).examples[0].macro_id == "refund"
