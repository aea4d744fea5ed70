"""The program `bag` against the same definition in plain Python, and what the definition promises."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from registry.errors import InvalidInput
from registry.model.runtime import Program
from training.prior.table import PriorTable, read_table
from training.programs import bag as definition
from training.programs.bag import IDEOGRAPH, LETTER, SPACE, BagSettings, kinds_of_code_points

ROWS, BOUND = BagSettings().rows, BagSettings().max_code_points
TEXTS = st.text(max_size=60) | st.text(
    "ab,.' \n\u00a0\u3000é\u0301ßﬁ漢字カード한글สวัสดี\u0645\u0631\u062d\u0628\u0627👩\u200d🚀12\u0663\x00", max_size=60
)


@pytest.fixture(scope="module")
def kinds() -> NDArray[np.int8]:
    table: NDArray[np.int8] = kinds_of_code_points().numpy()
    return table


def features(program: Program, text: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The 4-grams of one text, and its words and pairs."""
    ids = program.featurise([text]).tensors["ids"]
    return ids[0::2], ids[1::2]


def reference(text: bytes, kinds: NDArray[np.int8]) -> list[int]:
    """What `featurise` makes of one ticket, code point by code point."""
    import tensorflow_text as tf_text

    folded = tf_text.case_fold_utf8([text[: 4 * BOUND]]).numpy()[0].decode("utf-8", "replace")[:BOUND]
    points: list[int] = []
    for character in f" {folded} ":
        point = ord(character)
        is_space = kind_of(point, kinds) == SPACE
        if not (is_space and points[-1:] == [0]):
            points.append(0 if is_space else point)
    is_letter = [point != 0 and kind_of(point, kinds) == LETTER for point in points]
    is_ideograph = [point != 0 and kind_of(point, kinds) == IDEOGRAPH for point in points]

    words, factors = [], []
    for place, point in enumerate(points):
        in_word = is_letter[place] or is_ideograph[place]
        starts = is_ideograph[place] or (is_letter[place] and not is_letter[place - 1])
        words.append(point if in_word else 0)
        factors.append((definition._WORD_FACTOR if in_word else 1) << (definition._WORD_BITS if starts else 0))
    hashes = windows(words, factors, 64)

    ids = []
    ngrams = windows(points, [definition._NGRAM_FACTOR] * len(points), 4)
    for place in range(len(points)):
        ids.append(row(ngrams[place] * definition._NGRAM_SPREAD))
        if is_letter[place] and not is_letter[place + 1]:
            ids.append(row((hashes[place] % 2**20 << 12) * definition._WORD_SPREAD))
        elif is_ideograph[place] or (is_letter[place - 1] and not is_letter[place]):
            ids.append(row(hashes[place] * definition._PAIR_SPREAD))
        else:
            ids.append(0)
    return ids


def kind_of(point: int, kinds: NDArray[np.int8]) -> int:
    return int(kinds[min(point, len(kinds) - 1)])


def windows(values: Sequence[int], factors: Sequence[int], reach: int) -> list[int]:
    found = []
    for end in range(len(values)):
        total = 0
        for place in range(max(0, end - reach + 1), end + 1):
            total = values[place] + factors[place] * total
        found.append(total)
    return found


def row(number: int) -> int:
    signed = (number + 2**31) % 2**32 - 2**31
    return int(np.float32(signed) * np.float32((ROWS - 2) / 2**32) + np.float32(ROWS / 2))


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, max_size=5))
@example([])
@example(["", "   \t\n", ""])
@example(["a" * 70 + " " + "b" * 80, "word " * 30, "\ud800"])
@example(
    [
        "aa, bb. cc",
        "東京タワー へ iPhoneの返金",
        "👩\u200d🚀 ok 👍🏽",
        "\ufdfa" * 3,
        "مرحبا بالعالم",
        "e\u0301\u0327 q\u0323\u0307",
    ]
)
def test_features_are_those_of_the_definition(bag: Program, kinds: NDArray[np.int8], texts: list[str]) -> None:
    found = bag.featurise(texts)
    ids, splits = found.tensors["ids"], found.tensors["splits"]
    assert len(splits) == len(texts) + 1
    for index, text in enumerate(texts):
        assert ids[splits[index] : splits[index + 1]].tolist() == reference(text.encode("utf-8", "replace"), kinds)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40) | TEXTS.map(lambda text: text.encode("utf-8", "replace")[:-1]), max_size=6))
@example([b"\xf0\x9f", b"\x92\xa9", b"caf\xc3", b"\xa9", b"\xed\xa0\x80", b"\xff\xfe", b"\x00"])
def test_bytes_that_are_no_text_do_no_harm_to_the_tickets_beside_them(bag: Program, texts: list[bytes]) -> None:
    together = bag.featurise_bytes(texts)
    for index, text in enumerate(texts):
        alone = bag.featurise_bytes([text])
        for name in ("ids", "prior"):
            np.testing.assert_array_equal(together.select(index).tensors[name], alone.tensors[name])


@pytest.mark.parametrize(
    "long", ["ab " * 10_000, "\ufdfa" * 9_000, "漢" * 9_000, "🚀" * 9_000, " " * 50_000 + "x", "\u00ad" * 9_000 + "x"]
)
def test_a_long_text_is_read_to_a_bound_and_ends_there(bag: Program, kinds: NDArray[np.int8], long: str) -> None:
    together = bag.featurise(["before", long, "after"])
    for index, text in enumerate(("before", long, "after")):
        ids = together.select(index).tensors["ids"]
        assert len(ids) <= 2 * (BOUND + 2)
        assert ids.tolist() == reference(text.encode(), kinds)


def test_a_word_is_the_same_feature_wherever_it_stands(bag: Program) -> None:
    word = features(bag, "refund")[1][len(" refund") - 1]
    for text in (
        "I want a refund now",
        "refund.",
        "(REFUND)",
        "no-refund",
        "no\n\nreﬁll refund",
        "返refund金",
        "🚀refund🚀",
    ):
        assert word in features(bag, text)[1], text
    assert word not in features(bag, "refunds prefund")[1]


def test_a_pair_is_of_a_word_and_the_one_before_it_and_of_nothing_else(bag: Program) -> None:
    def last_pair(text: str) -> int:
        words = features(bag, text)[1]
        return int(words[words > 0][-1])

    pair = last_pair("my refund")
    assert last_pair("where is my refund?") == pair
    assert last_pair("one two my -- refund") == pair
    assert last_pair("your refund") != pair
    assert last_pair("my parcel") != pair
    assert last_pair("refund my") != pair


def test_neighbouring_ideographs_are_features_without_words_around_them(bag: Program) -> None:
    bigram = features(bag, "返金")[1][2]
    assert bigram in features(bag, "昨日の返金について")[1]
    assert bigram not in features(bag, "金返")[1]


@pytest.fixture(scope="module")
def prior() -> PriorTable:
    return read_table()


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS | st.text("refund my pacel, café's zürich 12x.!?", max_size=80), max_size=4))
@example([])
@example(["", "  ", "Ich möchte Straßenbahnfahrkarten", "", "unaffable FINE", "返金してください ok", "\ud800"])
@example(["x" * 300, "the " * 3000])
def test_the_prior_is_the_sum_of_the_vectors_of_the_words_pieces(
    bag: Program, prior: PriorTable, texts: list[str]
) -> None:
    found = bag.featurise(texts).tensors["prior"]
    assert found.shape == (len(texts), prior.rows.shape[1])
    places = {piece: place for place, piece in enumerate(prior.vocabulary)}
    for vector, text in zip(found, texts, strict=True):
        summed = np.zeros(prior.rows.shape[1])
        for piece in pieces_of(text, places):
            summed += prior.rows[places[piece]]
        length = np.linalg.norm(summed)
        np.testing.assert_allclose(vector, summed / length if length else summed, atol=1e-6)


def pieces_of(text: str, places: dict[str, int]) -> list[str]:
    """BERT's cutting: words without accents, and of each the longest piece that is known, again and again."""
    import tensorflow_text as tf_text
    from tensorflow_text.python.ops.bert_tokenizer import BasicTokenizer

    folded = tf_text.case_fold_utf8([text.encode("utf-8", "replace")[: 4 * BOUND]]).numpy()[0].decode()[:BOUND]
    plain = tf_text.FastBertNormalizer(lower_case_nfd_strip_accents=True).normalize([folded]).numpy()[0].decode()
    found = []
    for word in BasicTokenizer(lower_case=False).tokenize([plain]).numpy()[0]:
        found += cut(word.decode(), places)
    return found


def cut(word: str, places: dict[str, int]) -> list[str]:
    found, start = [], 0
    if len(word.encode()) > 100:
        return ["[UNK]"]
    while start < len(word):
        mark = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in places), None)
        if end is None:
            return ["[UNK]"]
        found.append(mark + word[start:end])
        start = end
    return found


def test_no_feature_is_row_0_but_where_there_is_none(bag: Program) -> None:
    ngrams, words = features(bag, "ab, cd")
    assert len(ngrams) == len(" ab, cd ")
    assert ngrams.all()
    #                                        " ab, cd "
    assert (words != 0).astype(int).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_rows_are_spread_evenly(bag: Program) -> None:
    ngrams, words = features(bag, " ".join(f"w{number}x" for number in range(600)))
    for found in (np.unique(ngrams), np.unique(words[words > 0])):
        assert 1 <= found.min() < 0.01 * ROWS
        assert 0.99 * ROWS < found.max() < ROWS
        assert np.histogram(found, 10, (0, ROWS))[0].min() > len(found) / 20
    # Twelve hundred words and pairs in 40,000 rows: a good hash gives about 1,182 rows.
    assert len(np.unique(words[words > 0])) > 1_150


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("Refund  FINE", " refund\n\u00a0ﬁne "),
        ("café", "cafe\u0301"),
        ("ﾊﾟﾝｸﾊﾞﾝ", "パンクバン"),
        ("a\u00adb\u200db", "abb"),
        ("①２", "12"),
        ("a\x00b", "a b"),
    ],
)
def test_text_that_looks_alike_is_alike(bag: Program, one: str, other: str) -> None:
    for name in ("ids", "prior"):
        np.testing.assert_array_equal(bag.featurise([one]).tensors[name], bag.featurise([other]).tensors[name])


def test_the_table_of_code_points_agrees_with_unicode(kinds: NDArray[np.int8]) -> None:
    checked = 0
    for point in range(len(kinds) - 1):
        category = unicodedata.category(chr(point))
        # What never changed since: the two tables are of different versions.
        if category in {"Cn", "Cs"} or unicodedata.ucd_3_2_0.category(chr(point)) != category:
            continue
        checked += 1
        expected = {"L": {LETTER, IDEOGRAPH}, "M": {LETTER, IDEOGRAPH}, "N": {LETTER, IDEOGRAPH}}.get(category[0])
        if expected is None:
            expected = {SPACE} if category[0] in "ZC" else {0, IDEOGRAPH}
        assert kinds[point] in expected, hex(point)
    assert checked > 40_000
    assert {kinds[ord(character)] for character in "漢あアー々"} == {IDEOGRAPH}
    assert {kinds[ord(character)] for character in "aé한ส\u06617я"} == {LETTER}
    assert kind_of(0x2A6DF, kinds) == IDEOGRAPH


def test_a_row_has_to_fit_into_sixteen_bits() -> None:
    with pytest.raises(InvalidInput, match="70000 rows"):
        BagSettings(rows=70_000)
