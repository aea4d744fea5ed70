"""Masking personal data and secrets in texts: e-mail addresses, phone numbers, card numbers, IBANs, tokens.

A set of rules and no library: what is about (scrubadub, Presidio) brings language models along and takes milliseconds a
text. Each rule is one expression whose matches are bounded in length and start where a run of their characters starts, so
that the time grows with the text and nothing else. docs/connectors.md says what is masked and what is not.

Placeholders stand in square brackets: in angle brackets, as `<email>`, one inside an attribute (`href="mailto:…"`) would end
the tag, and the rest of it would be read as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate

from registry.text.steps import Steps, finished

EMAIL, PHONE, CARD, IBAN, TOKEN = "[email]", "[phone]", "[card]", "[iban]", "[token]"

# What stands between the groups of a number: a space of any kind, a point, a slash, a hyphen of any kind, and `&nbsp;`.
_GAP = r"(?:[ \t\u00a0\u2007\u2009\u202f./\u2010-\u2015-]|&nbsp;|&#160;)"
_BLANK = r"(?:[ \t\u00a0\u2007\u2009\u202f\u2010-\u2015-]|&nbsp;|&#160;)"
_DIGIT, _NO_DIGIT = re.compile(r"\d"), re.compile(r"[^\d]+")
_OTHER_BYTES = bytes(byte for byte in range(256) if not 48 <= byte <= 57)

# Nothing but secrets has fewer.
_LEAST_DIGITS = 6
_AT = ("@", "\uff20")
_AT_ESCAPED = ("&#64;", "&#x40;", "&#X40;", "&commat;")
_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}(?:@|\uff20|&#64;|&#[xX]40;|&commat;)"
    r"(?:[\w-]{1,63}\.){1,8}(?:[^\W\d_]{2,24}|xn--[\w-]{1,59})(?![\w-])"
)
_LOGIN = re.compile(r"(?<=://)[^\s/@:]{1,64}:[^\s/@]{1,128}@")
# Known shapes of keys; what makes one is its beginning.
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,8192}(?:\.[A-Za-z0-9_-]{0,4096})?"  # JSON Web Token
    r"|(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_][A-Za-z0-9_-]{10,256}|sk-[A-Za-z0-9]{20,256}|whsec_[A-Za-z0-9+/=]{16,128}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_-]{16,255}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,255}|xapp-[A-Za-z0-9-]{10,255}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,512}"
    r"|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
    r"|(?:npm|hf|pypi|dop_v1|dckr_pat)[_-][A-Za-z0-9_-]{20,255}"
    r")"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,16384}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?")
# A secret by what stands before it. It has a digit: "password: forgotten" is the customer's matter.
_SECRET = re.compile(
    r"((?<![A-Za-z0-9])(?:bearer[ \t]{1,3}|(?:api[ _-]?key|api[ _-]?token|access[ _-]?token|auth[ _-]?token|client[ _-]?secret"
    r"|secret|token|passwor[dt]|passwd|passwort|pwd|kennwort|contrase\u00f1a)[\"']?[ \t]{0,3}(?:is|ist|es|[:=])[ \t]{0,3}[\"']?))"
    r"(?=[^\s\"'<>&]{0,255}?\d)([^\s\"'<>&]{6,256})",
    re.IGNORECASE,
)
_IBAN = re.compile(rf"(?<![^\W_])[A-Z]{{2}}\d{{2}}(?:{_BLANK}?[A-Z0-9]){{11,40}}", re.IGNORECASE)
_OF_IBAN = re.compile(rf"{_BLANK}|[^\W_]")
# Length of an IBAN by country (SWIFT's registry).
_IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV HN YE",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip
# A run of digits and single gaps, however long: a card may stand anywhere in it.
_DIGITS = re.compile(rf"\d(?<!\d\d)(?:{_BLANK}?\d){{12,}}")
_GROUPS = re.compile(r"\d+")
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12,15}|35\d{14}|62\d{14,17}|(?:50|5[6-9]|6[0379])\d{14,17}"
)
_CARD_LEAST_DIGITS = 13
# How many digits a card has by its first, the most first.
_CARD_LENGTHS = {"2": (16,), "3": (16, 15, 14), "4": (19, 16, 13), "5": (19, 18, 17, 16), "6": (19, 18, 17, 16)}
_TWICE = str.maketrans("0123456789", "0246813579")

# Between digits every gap is taken at once (`?+`): two gaps can be told apart in two ways, and so 14 in 16,000.
# What stands before a match is looked at after its first character: an expression that begins with a character is looked
# for by that, and one that begins with what must not be there is tried everywhere, which takes three times as long.
_PLUS = re.compile(
    rf"[+\uff0b](?<![\w+\uff0b][+\uff0b]){_GAP}?[(]?\d(?:[()]?+{_GAP}{{0,2}}+[()]{{0,2}}+{_GAP}?+\d){{6,14}}(?!\d)"
)
_AMERICAN = re.compile(
    rf"(?<![\w.+/-])(?:1{_GAP}?)?(?:\([2-9]\d\d\){_GAP}?|[2-9]\d\d{_GAP})[2-9]\d\d{_GAP}\d{{4}}(?![\w]|[-/.]\d)"
)
_AREA = re.compile(rf"\((?<![\w.+/-]\()0?[1-9]\d{{0,4}}\){_GAP}?\d{{2,5}}(?:{_GAP}\d{{2,5}}){{0,3}}(?![\w]|[-/.]\d)")
_ZERO = "[0\u0660\u06f0\u0966\uff10]"
# With the trunk prefix 0, or 00 and a country; with or without gaps.
_TRUNK = re.compile(
    rf"(?<![\w.+/-])[(]?{_ZERO}{_ZERO}?(?!{_ZERO})\d(?:{_GAP}{{0,2}}+[()]?+{_GAP}?+\d){{7,13}}(?!\w|[-/.]\d)"
)
# Any number is one right after a word that says so.
_NUMBER = re.compile(rf"(?<![\w+])[+(\uff0b]?\d(?:[()]?+{_GAP}{{0,2}}+[()]?+{_GAP}?+\d){{5,14}}(?!\d)")
_NAMED = re.compile(
    r"(?<![^\W_])(?:tel|telephone|telefon|t\u00e9l|t\u00e9l\u00e9phone|tel\u00e9fono|telefone|telefono|phone|mobile|mobil|cell|"
    r"cellphone|handy|handynummer|telefonnummer|rufnummer|whatsapp|fax|m\u00f3vil|portable|celular|\u96fb\u8a71|"
    r"\u96fb\u8a71\u756a\u53f7|\u643a\u5e2f)"
    r"(?:[ \t]{1,2}(?:number|nummer|no|nr|num\u00e9ro|n\u00famero|is|ist|es|est)){0,2}[.:=\uff1a \t]{0,4}\Z",
    re.IGNORECASE,
)
# Before what looks like a phone number these say that it is none.
_OTHER = re.compile(
    r"(?:order|invoice|tracking|ticket|case|reference|ref|bestellung|bestellnummer|auftrag|auftragsnummer|rechnung|"
    r"rechnungsnummer|kundennummer|sendung|sendungsnummer|pedido|factura|commande|facture|ordine|sku|isbn|ean|serial|imei|"
    r"\u6ce8\u6587\u756a\u53f7|\u6ce8\u6587|id|#|\u2116)"
    r"(?:[ \t]{0,2}(?:number|numbers|nummer|nr|no|num|n[\u00famu]mero|code|id|is|ist|es))?[ \t.:#=\uff1a\u00ba-]{0,4}\Z",
    re.IGNORECASE,
)
_OTHER_ENDS = " \t.:#=\uff1a\u00ba-"
_LOOK_BACK = 40
# Without one of these a rule finds nothing; tests hold that to the rules themselves. No `i` in words, which has more than
# two cases.
_OF_KEYS = ("_", "eyJ", "AKIA", "ASIA", "AIza", "ya29.", "SG.", "xox")
_OF_KEYS_WITH_HYPHENS = ("sk-", "pk-", "rk-", "glpat-", "xapp-", "npm-", "hf-", "pypi-")
_OF_SECRETS = ("bearer", "key", "token", "secret", "passwor", "passwd", "pwd", "kennwort", "contrase")
_OF_NUMBERS = (
    "tel", "t\u00e9l", "phone", "mob", "cell", "handy", "rufnummer", "whatsapp", "fax", "m\u00f3v", "portable", "celular",
    "\u96fb\u8a71", "\u643a\u5e2f",
)  # fmt: skip
_PLUSES = ("+", "\uff0b")
# Fewer make no phone number without a plus, or a word before it.
_PHONE_DIGITS = 9
# How an IBAN begins and an American number ends, and what a trunk prefix stands after: digits first, and so found quickly.
_IBAN_BEGINS = re.compile(r"\d(?<=[^\W\d_]{2}\d)\d")
_AMERICAN_ENDS = re.compile(rf"[2-9]\d\d{_GAP}\d{{4}}")
_TRUNK_BEGINS = re.compile(rf"{_ZERO}(?<![\w.+/-]{_ZERO})")
# So many digits with nothing but gaps between them; of cards, phone numbers and IBANs there is none without.
_CANDIDATE = re.compile(rf"\d(?:[()]?+{_GAP}{{0,2}}+[()]{{0,2}}+{_GAP}?+\d){{{_LEAST_DIGITS - 1}}}")
_DATE = re.compile(
    r"(?<!\d)(?:\d{1,2}[./\u2010-\u2015-]\d{1,2}[./\u2010-\u2015-](?:19|20)\d\d"
    r"|(?:19|20)\d\d[./\u2010-\u2015-]\d{1,2}[./\u2010-\u2015-]\d{1,2})(?!\d)"
)


def masked(text: str) -> str:
    """A text with what could name, reach or impersonate somebody replaced by placeholders, which are not masked again.

    In linear time. HTML stays HTML, with its attributes masked, too.

    Rules that cannot find anything are passed over: looking for a few words takes a tenth of the time of most rules.
    """
    return finished(masked_in_steps(text))


def masked_in_steps(text: str) -> Steps[str]:
    """What `masked` returns, a step for each few rules: of 8,192 code points the longest takes about 4 ms."""
    if _has(text, _AT) or ("&" in text and _has(text, _AT_ESCAPED)):
        text = _LOGIN.sub(f"{TOKEN}@", text)
        text = _EMAIL.sub(EMAIL, text)
    if _has(text, _OF_KEYS) or ("-" in text and _has(text, _OF_KEYS_WITH_HYPHENS)):
        text = _KEY.sub(TOKEN, text)
    if "-----BEGIN" in text:
        text = _PEM.sub(TOKEN, text)
    digits = _count_digits(text)
    if not digits:
        return text
    # The same for all letters that an expression without case takes for the same.
    folded = text.casefold()
    if _has(folded, _OF_SECRETS):
        text = _SECRET.sub(_secret, text)
    if digits < _LEAST_DIGITS or not _CANDIDATE.search(text):
        return text
    yield
    return (yield from _without_numbers(text, folded, digits))


def _without_numbers(text: str, folded: str, digits: int) -> Steps[str]:
    """A text with IBANs, cards and phone numbers replaced; how many digits it has, and itself without case, as it came."""
    if _IBAN_BEGINS.search(text):
        text = _IBAN.sub(_iban, text)
        yield
    if digits >= _CARD_LEAST_DIGITS:
        text = _replaced(text, _DIGITS, _cards)
        yield
    if _has(folded, _OF_NUMBERS):
        text = _NUMBER.sub(_named, text)
        yield
    if _has(text, _PLUSES):
        text = _PLUS.sub(_phone, text)
        yield
    if digits < _PHONE_DIGITS:
        return text
    if "(" in text:
        text = _AREA.sub(_phone, text)
        yield
    if _AMERICAN_ENDS.search(text):
        text = _AMERICAN.sub(_phone, text)
        yield
    return _TRUNK.sub(_phone, text) if _TRUNK_BEGINS.search(text) else text


def _has(text: str, signs: tuple[str, ...]) -> bool:
    for sign in signs:  # noqa: SIM110  # `any` takes twice the time, for the generator
        if sign in text:
            return True
    return False


def _count_digits(text: str) -> int:
    # A fifth of the time of looking at each character.
    return len(text.encode().translate(None, _OTHER_BYTES)) if text.isascii() else len(_DIGIT.findall(text))


def _secret(found: re.Match[str]) -> str:
    return f"{found[1]}{TOKEN}" if found[2] not in (EMAIL, PHONE, CARD, IBAN, TOKEN) else found[0]


def _iban(found: re.Match[str]) -> str:
    said = found[0]
    length = _IBAN_LENGTHS.get(said[:2].upper())
    if length is None:
        return said
    taken, end = "", 0
    for piece in _OF_IBAN.finditer(said):
        if len(piece[0]) == 1 and piece[0].isalnum():
            taken += piece[0].upper()
            end = piece.end()
            if len(taken) == length:
                break
    if len(taken) < length or (end < len(said) and said[end].isalnum()):
        return said
    if not taken.isascii() and any(not (one.isascii() or one.isdecimal()) for one in taken):
        return said  # a letter that is the same without case, as \u0130 is, and in no account
    number = "".join(str(int(character, 36)) for character in taken[4:] + taken[:4])
    return IBAN + said[end:] if int(number) % 97 == 1 else said


def _replaced(text: str, runs: re.Pattern[str], spans: Callable[[str], Iterator[tuple[int, int]]]) -> str:
    """The text with the spans that are found in its runs replaced by CARD."""

    def without(found: re.Match[str]) -> str:
        parts, at = [], 0
        for start, end in spans(found[0]):
            parts += [found[0][at:start], CARD]
            at = end
        return "".join([*parts, found[0][at:]])

    return runs.sub(without, text)


def _cards(run: str) -> Iterator[tuple[int, int]]:
    """Where card numbers stand in a run of digits: whole groups, of 13 to 19 digits together, right by Luhn's sum."""
    groups = [found.span() for found in _GROUPS.finditer(run)]
    ends = list(accumulate(end - start for start, end in groups))
    last_of = {end: last for last, end in enumerate(ends)}
    digits = "".join(run[start:end] for start, end in groups)
    if not digits.isascii():
        digits = "".join(str(int(digit)) for digit in digits)
    sums = None
    at = 0
    for first, (start, _) in enumerate(groups):
        begins = ends[first - 1] if first else 0
        if begins < at:
            continue  # in the card before
        for length in _CARD_LENGTHS.get(digits[begins], ()):
            last = last_of.get(begins + length)
            if last is None:
                continue
            sums = sums or _luhn_sums(digits)
            end = begins + length
            luhn = sums[end % 2]
            if (luhn[end] - luhn[begins]) % 10 == 0 and _CARD.fullmatch(digits, begins, end):
                yield start, groups[last][1]
                at = end
                break


def _luhn_sums(digits: str) -> tuple[list[int], list[int]]:
    """Luhn's sums of the beginnings of a row of digits, if those that count twice stand at uneven places, and at even ones.

    The sum of any digits in the row is a difference of two of one list: the one of the parity of where they end.
    """
    twice = digits.translate(_TWICE)
    even, uneven = [0] * len(digits), [0] * len(digits)
    even[::2], even[1::2] = map(int, digits[::2]), map(int, twice[1::2])
    uneven[::2], uneven[1::2] = map(int, twice[::2]), map(int, digits[1::2])
    return list(accumulate(uneven, initial=0)), list(accumulate(even, initial=0))


def _named(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - _LOOK_BACK) : found.start()]
    return PHONE if _NAMED.search(before) and not _DATE.search(found[0]) else found[0]


def _phone(found: re.Match[str]) -> str:
    said = found[0]
    digits = len(_NO_DIGIT.sub("", said))
    if not 8 <= digits <= 17 or _DATE.search(said):
        return said
    if not said.startswith(("+", "\uff0b")):
        before = found.string[max(0, found.start() - _LOOK_BACK) : found.start()]
        if digits < _PHONE_DIGITS or _says_other(before):
            return said
    return PHONE


def _says_other(before: str) -> bool:
    # Without a letter or a sign at the end none does, and looking for all words takes as long as all else for a number.
    ends = before.rstrip(_OTHER_ENDS)[-1:]
    return (ends.isalpha() or ends == "\u2116" or "#" in before) and bool(_OTHER.search(before))
