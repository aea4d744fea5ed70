from hypothesis import given
from hypothesis import strategies as st

from training.duplicates import near_duplicates

LONG = (
    "hello, i ordered a pair of red shoes two weeks ago and the courier says that it was delivered, but there is nothing "
    "here and the neighbours have not seen it either. could you please look where it is and call me back"
)


def groups(*texts: str) -> list[int]:
    return list(near_duplicates(texts))


def test_what_differs_in_case_signs_numbers_or_a_word_is_the_same() -> None:
    assert groups(LONG, LONG.upper() + "!!") == [0, 0]
    assert groups(LONG, LONG.replace(" red ", " blue ")) == [0, 0]
    assert groups(f"order 48213: {LONG}", f"order 991734: {LONG}") == [0, 0]
    assert groups("Where is order 48213?", "where is order 991734") == [0, 0]


def test_what_merely_resembles_is_not() -> None:
    assert groups(LONG, "hello, could you please call me back") == [0, 1]
    assert groups("How do I activate my card?", "How do I block my card?") == [0, 1]
    assert groups("step 1", "step 2") == [0, 1]
    assert groups("the dog bites the man", "the man bites the dog, says a man of the town") == [0, 1]


def test_many_words_in_common_are_not_enough_to_be_the_same() -> None:
    start = " ".join(LONG.split()[:20])
    # Two thirds in common: most of these pairs are candidates, none is a duplicate.
    texts = [f"{start} " + " ".join(f"own{number}{place}" for place in "abcde") for number in range(8)]
    assert groups(*texts) == list(range(8))


def test_a_chain_is_one_group_named_by_its_first() -> None:
    words = LONG.split()
    texts = ["something else", LONG, " ".join(words[2:]), " ".join(words[4:]), " ".join(words[6:])]
    assert groups(*texts) == [0, 1, 1, 1, 1]


def test_scripts_without_spaces_are_compared_sign_by_sign() -> None:
    text = "注文した商品がまだ届いていません。確認をお願いします。"
    assert groups(text, text.replace("まだ", "また"), "返品したいのですが、どうすればいいですか。") == [0, 0, 2]


@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_texts_have_groups_and_equal_ones_the_same(texts: list[str]) -> None:
    found = near_duplicates(texts + texts).tolist()
    assert found[len(texts) :] == found[: len(texts)]
    assert all(found[head] == head <= position for position, head in enumerate(found))
