import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.text import masking
from registry.text.masking import masked
from registry.text.ticket import clean_message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail jane.doe+x@shop.example.com.", "mail [email]."),
        ('<a href="mailto:j@x.de">j@x.de</a>', '<a href="mailto:[email]">[email]</a>'),
        ("<jane@example.com> wrote", "<[email]> wrote"),
        ("joe&#64;x.org", "[email]"),
        ("jürgen@müller.example", "[email]"),
        ("＠ jane＠example.com", "＠ [email]"),
        ("see https://u:p4ss@x.example/a", "see https://[token]@x.example/a"),
    ],
)
def test_addresses_and_logins(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("card 4111-1111-1111-1111 exp 12/27", "card [card] exp 12/27"),
        ("4111111111111111", "[card]"),
        ("4111 1111 1111 1111 12/27 123", "[card] 12/27 123"),
        ("2 4111 1111 1111 1111", "2 [card]"),
        ("1 2 3 4 5 6 7 8 5500 0055 5555 5559 and", "1 2 3 4 5 6 7 8 [card] and"),
        ("amex 3782 822463 10005", "amex [card]"),
        ("４１１１ １１１１ １１１１ １１１１", "[card]"),
        ("DE89 3704 0044 0532 0130 00 BITTE", "[iban] BITTE"),
        ("de89370400440532013000", "[iban]"),
        ("GB82-WEST-1234-5698-7654-32.", "[iban]."),
    ],
)
def test_cards_and_accounts(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "+49 170 1234567", "+49 (0)170 1234567", "+1-202-555-0143", "(202) 555-0143", "202-555-0143", "1 202 555 0143",
        "0049 170 1234567", "0170 1234567", "01701234567", "03-1234-5678", "06 12 34 56 78", "+49&nbsp;170&nbsp;1234567",
        "+４４ ２０ ７９４６ ０９５８", "٠١٧٠ ١٢٣٤٥٦٧", "(030) 901820",
    ],
)  # fmt: skip
def test_phone_numbers(text: str) -> None:
    assert masked(f"call {text} now") == "call [phone] now"


def test_numbers_that_are_said_to_be_phones() -> None:
    assert masked("my phone number is 5551234.") == "my phone number is [phone]."
    assert masked("Tel.: 612 345 678") == "Tel.: [phone]"
    assert masked("電話：090-1234-5678") == "電話：[phone]"


@pytest.mark.parametrize(
    "text",
    [
        "order 123-4567890-1234567", "order number 0123456789", "order #0123456789", "Bestellnummer: 0170 1234567",
        "order 00491701234567", "#4111111111111112", "invoice 2026-00012345", "tracking 00340434161094021501",
        "on 2026-03-01 10:30", "01.02.2026 12:15", "01-02-2026 10 pieces", "phone 2026-03-01", "IMEI 490154203237518",
        "EUR 1 234 567 890", "1,234,567.89", "version 10.0.19041.1234", "192.168.100.200", "00:11:22:33:44:55",
        "DE89370400440532013001", "DE12 is my size", "5@3.50 each", "+12 345", "password: forgotten", "my token is lost",
        "GB82 WE\u0130T 1234 5698 7654 32", "GB82 WE\u212aT 1234 5698 7654 32",
        "9780306406157", "at 10-12 or 14-16", "eyJust kidding", "a@b", "@jane", "{{ticket.id}}",
    ],
)  # fmt: skip
def test_what_is_nobodys_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijk", "sk_live_51H8abcdEFGHijkl", "ghp_" + "a1" * 18,
        "AKIAIOSFODNN7EXAMPLE", "xoxb-123456789012-abcdefghij", "glpat-abcdefghij0123456789", "shpat_" + "0a" * 16,
    ],
)  # fmt: skip
def test_keys(secret: str) -> None:
    assert masked(f"it is {secret}, why?") == "it is [token], why?"


def test_secrets_by_what_stands_before_them() -> None:
    assert masked("password: hunter22") == "password: [token]"
    assert masked('"api_key": "abc123def"') == '"api_key": "[token]"'
    assert masked("Authorization: Bearer abc.123-def") == "Authorization: Bearer [token]"
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE0\n-----END RSA PRIVATE KEY-----"
    assert masked(f"here {key} it is") == "here [token] it is"


def test_placeholders_outlive_the_cleaning() -> None:
    said = masked('<p>Write to <a href="mailto:j@x.de">j@x.de</a> or 0170 1234567</p>')
    assert clean_message(said) == "Write to [email] or [phone]"


def cards_one_by_one(run: str) -> list[tuple[int, int]]:
    """What `_cards` must come to: the longest card that begins with each group of digits, its sum as Luhn says it."""
    groups = list(re.finditer(r"\d+", run))
    found: list[tuple[int, int]] = []
    for place, group in enumerate(groups):
        if found and group.start() < found[-1][1]:
            continue
        for last in reversed(groups[place:]):
            digits = "".join(str(int(digit)) for digit in run[group.start() : last.end()] if digit.isdigit())
            doubled = "".join(str(int(digit) * (1 + place % 2)) for place, digit in enumerate(reversed(digits)))
            if masking._CARD.fullmatch(digits) and sum(map(int, doubled)) % 10 == 0:
                found.append((group.start(), last.end()))
                break
    return found


CARD_DIGITS = st.sampled_from("0123456789\u0664") | st.sampled_from("34456")
RUNS = st.lists(
    st.sampled_from(["4111 1111 1111 1111", "378282246310005", "5500005555555559", "6011000990139424"])
    | st.lists(CARD_DIGITS, min_size=1, max_size=20).map("".join)
    | st.lists(CARD_DIGITS, min_size=1, max_size=20).map(" ".join),
    min_size=1,
    max_size=4,
).map("-".join)


@settings(max_examples=300, deadline=None)
@given(RUNS)
def test_cards_are_found_as_one_by_one(run: str) -> None:
    assert list(masking._cards(run)) == cards_one_by_one(run)


PIECES = ("a@b.example", "+49 170 1234567", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "tel ", "0", "1", " ", "-",
          "@", "(", ")", "+", "&nbsp;", "&#64;", "order ", "eyJ", "sk_live_", "token: ", "://", ":", "[phone]", "x")  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("; ".join))
def test_masking_again_changes_nothing(text: str) -> None:
    once = masked(text)
    assert masked(once) == once


@pytest.mark.parametrize(
    "piece", [*PIECES, "1 ", "01-", "a@", "1&nbsp;", "id 0123456789 ", "password:", "DE12-", "eyJaaaaaaaa."]
)
def test_time_grows_with_the_text_alone(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        start = time.thread_time()  # other tests may have left threads that work
        masked(text)
        return time.thread_time() - start

    masked(piece)
    small, large = (min(seconds(length) for _ in range(3)) for length in (8_000, 128_000))
    # Sixteen times the text; a quadratic rule would take 256 times as long.
    assert large < max(64 * small, 0.1)


def by_every_rule(text: str) -> str:
    """What `masked` must come to: all rules, one after the other."""
    text = masking._LOGIN.sub(f"{masking.TOKEN}@", text)
    text = masking._EMAIL.sub(masking.EMAIL, text)
    text = masking._PEM.sub(masking.TOKEN, masking._KEY.sub(masking.TOKEN, text))
    text = masking._IBAN.sub(masking._iban, masking._SECRET.sub(masking._secret, text))
    text = masking._replaced(text, masking._DIGITS, masking._cards)
    text = masking._NUMBER.sub(masking._named, text)
    for rule in (masking._PLUS, masking._AREA, masking._AMERICAN, masking._TRUNK):
        text = rule.sub(masking._phone, text)
    return text


# What rules look for, in whole and in pieces, and letters with more than two cases.
OF_RULES = [
    "pk-live-0123456789",
    "ASIA0123456789ABCDEF",
    "hf-0123456789abcdefghij",
    "client secret: abc12345",
    "phone 123456",
    "Rufnummer 123456",
    "what\u017fapp 123456",
    "portable 123456",
    "celular 123456",
    "\u643a\u5e2f 123456",
    "jo@shop.example",
    "&#64;",
    "://jo:word1@",
    "eyJhbGciOiJI.eyJzdWIiOiIx",
    "sk_live_0123456789ab",
    "sk-0123456789abcdefghij",
    "rk-test-0123456789",
    "whsec_0123456789abcdef",
    "ghp_0123456789abcdefghij",
    "github_pat_0123456789abcdefghij",
    "glpat-0123456789abcdef",
    "xoxb-0123456789",
    "xapp-0123456789",
    "AKIA0123456789ABCDEF",
    "AIza0123456789012345678901234567890123456",
    "ya29.0123456789abcdefghij",
    "SG.0123456789abcdef.0123456789abcdef",
    "shpat_0123456789abcdef0123456789abcdef",
    "npm-0123456789abcdefghij",
    "hf_0123456789abcdefghij",
    "pypi-0123456789abcdefghij",
    "dop_v1-0123456789abcdefghij",
    "-----BEGIN PRIVATE KEY-----",
    "Bearer abc123",
    "API key: a1b2c3d4",
    "api_to\u212aen = x9y8z7w6",
    "pa\u017f\u017fword: hunter22",
    "Kennwort ist abc12345",
    "contrase\u00d1a: 12ab34cd",
    "PWD=1234567",
    "passwd: 1234567",
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "4111 1111 1111 1111",
    "378282246310005",
    "tel 123456",
    "T\u00c9L: 123 456",
    "Mob\u0130l 123456",
    "mob\u0131l: 1234567",
    "m\u00d3vil 123456",
    "whats\u017fapp 123456",
    "Handynummer: 1234567",
    "\u96fb\u8a71 123456",
    "fax 1234567",
    "cell. 1234567",
    "+49 30 1234567",
    "\uff0b49301234567",
    "(030) 123 4567",
    "(212) 555-0123",
    "212-555-0123",
    "030 1234567",
    "0049 30 123456",
    "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668",
    "order 123456789",
    "01.02.2026",
    "123456",
    "12345678",
    "123456789",
    "0",
    "7",
    " ",
    ".",
    "-",
    "(",
    ")",
    "/",
    "_",
    "hotel",
    "tell me",
]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(OF_RULES), st.text(max_size=6)), max_size=8).map("".join))
def test_passing_over_rules_changes_nothing(text: str) -> None:
    assert masked(text) == by_every_rule(text)


@pytest.mark.parametrize("piece", OF_RULES)
@pytest.mark.parametrize("around", ["{}", "My {} is 7.", "write to me, {}!"])
def test_no_rule_is_passed_over_that_would_find_something(piece: str, around: str) -> None:
    text = around.format(piece)
    assert masked(text) == by_every_rule(text)


@given(
    st.lists(st.sampled_from([*OF_RULES, "order ", "#", "\u2116 ", "Nr. ", " id", ": "]) | st.text(max_size=3)).map(
        "".join
    )
)
def test_what_says_that_a_number_is_none_is_not_passed_over(before: str) -> None:
    assert masking._says_other(before) == bool(masking._OTHER.search(before))
