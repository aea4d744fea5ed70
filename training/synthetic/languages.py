"""The languages tickets are written in: dates, habits of typing, and the phrases around the matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from training.synthetic.data import english, german, japanese, spanish
from training.synthetic.grammar import Pack, compile_pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """What differs between languages apart from the phrases.

    Attributes:
        code: `en`, say.
        locales: locales of single tickets; repeated ones are more frequent.
        offset: hours that local time is ahead of UTC, without daylight saving.
        months: names as dates are written with.
        weekdays: short names, Monday first.
        dates: formats with `{d}`, `{m}` and `{month}`.
        end: what a sentence ends with.
        gap: what stands between sentences.
        capitals: whether sentences start with a capital.
        asking: words that a question starts with.
        folded: what hurried writers type for a letter.
        slang: what hurried writers type for a word.
        common: intents that all industries share, as a block of the grammar.
        phrases: sections of phrases and slots, as a block of the grammar.
    """

    code: str
    locales: tuple[str, ...]
    offset: int
    months: tuple[str, ...]
    weekdays: tuple[str, ...]
    dates: tuple[str, ...]
    end: str = "."
    gap: str = " "
    capitals: bool = True
    asking: frozenset[str] = frozenset()
    folded: Mapping[str, str]
    slang: tuple[tuple[str, str], ...]
    common: str
    phrases: str


_ENGLISH_ASKING = frozenset(
    [
        "is",
        "are",
        "do",
        "does",
        "did",
        "can",
        "could",
        "may",
        "will",
        "what",
        "which",
        "when",
        "where",
        "where's",
        "who",
        "why",
        "how",
        "any",
    ]
)
_GERMAN_ASKING = frozenset(
    [
        "ist",
        "sind",
        "kann",
        "können",
        "könnten",
        "gibt",
        "haben",
        "passt",
        "kommt",
        "wo",
        "wann",
        "was",
        "wie",
        "warum",
        "welche",
        "ab",
    ]
)
_ENGLISH_MONTHS = ["Jan", "Feb", "March", "April", "May", "June", "July", "Aug", "Sept", "Oct", "Nov", "Dec"]
_GERMAN_MONTHS = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
]
_SPANISH_MONTHS = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
]

LANGUAGES: Mapping[str, Language] = {
    "en": Language(
        code="en",
        locales=("en-US", "en-US", "en-US", "en-GB", "en-GB", "en-AU", "en-CA", "en-IE"),
        offset=-5,
        months=tuple(_ENGLISH_MONTHS),
        weekdays=("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
        dates=("{month} {d}", "{d} {month}", "{m}/{d}", "{d} of {month}"),
        asking=_ENGLISH_ASKING,
        folded={},
        slang=(
            (" you ", " u "),
            (" your ", " ur "),
            ("please", "pls"),
            ("because", "cause"),
            ("n't", "nt"),
            (" are ", " r "),
            ("thanks", "thx"),
            (" I ", " i "),
            (" and ", " & "),
            ("tomorrow", "tmrw"),
            ("message", "msg"),
            ("account", "acc"),
            ("delivery", "delivry"),
        ),
        common=english.COMMON,
        phrases=english.PHRASES,
    ),
    "de": Language(
        code="de",
        locales=("de-DE", "de-DE", "de-DE", "de-AT", "de-CH"),
        offset=1,
        months=tuple(_GERMAN_MONTHS),
        weekdays=("Mo.", "Di.", "Mi.", "Do.", "Fr.", "Sa.", "So."),
        dates=("{d}. {month}", "{d}.{m}.", "{d:02d}.{m:02d}."),
        asking=_GERMAN_ASKING,
        folded={"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"},
        slang=((" nicht", " nich"), (" ist ", " is "), (" eine ", " ne "), ("bitte", "bite"), (" und ", " u. ")),
        common=german.COMMON,
        phrases=german.PHRASES,
    ),
    "es": Language(
        code="es",
        locales=("es-ES", "es-ES", "es-MX", "es-AR", "es-CO"),
        offset=1,
        months=tuple(_SPANISH_MONTHS),
        weekdays=("lun", "mar", "mié", "jue", "vie", "sáb", "dom"),
        dates=("{d} de {month}", "{d}/{m}", "día {d}"),
        folded={"á": "a", "é": "e", "í": "i", "ó": "o", "ú": "u", "ñ": "n", "¿": "", "¡": "", "ü": "u", "Á": "A"},
        slang=((" que ", " q "), ("por favor", "xfa"), (" por ", " x "), (" también", " tb"), ("gracias", "grcias")),
        common=spanish.COMMON,
        phrases=spanish.PHRASES,
    ),
    "ja": Language(
        code="ja",
        locales=("ja-JP",),
        offset=9,
        months=tuple(str(month) for month in range(1, 13)),
        weekdays=tuple("月火水木金土日"),
        dates=("{m}月{d}日", "{m}/{d}"),
        end="。",
        gap="",
        capitals=False,
        folded={"。": "\n", "、": ",", "「": '"', "」": '"', "?": "\uff1f"},
        slang=(
            ("ください", "下さい"),
            ("できま", "出来ま"),
            ("いたしま", "致しま"),
            ("いただ", "頂"),
            ("でしょうか", "ですか"),
        ),
        common=japanese.COMMON,
        phrases=japanese.PHRASES,
    ),
}


@cache
def pack(code: str, industry: str) -> Pack:
    """Everything a language knows about an industry's tickets, given the industry's block of the grammar."""
    language = LANGUAGES[code]
    return compile_pack(language.phrases, language.common, industry)
