import numpy as np

from training.examples import Example
from training.label_noise import doubtful, folds_of


def scored(
    rows: int, *, macros: int = 8, best: int = 0, sure: float = 0.9
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Scores that fall from one macro to the next, after the one that is best."""
    scores = np.linspace(0.02, 0.01, macros, dtype=np.float32)[None].repeat(rows, axis=0)
    scores[:, best] = sure
    return scores


def test_what_is_far_from_what_others_say_is_doubted() -> None:
    targets = np.array([0] * 20 + [4] * 20 + [7] * 20, np.int32)
    ids = [str(number) for number in range(60)]
    found = doubtful(scored(60), targets, ids)
    assert found.tolist() == [False] * 40 + [True] * 20  # 4 is the fifth best
    assert not doubtful(scored(60, sure=0.3), targets, ids).any(), "nothing else is likely"


def test_few_doubts_are_none() -> None:
    targets = np.array([0] * 1500 + [7] * 29, np.int32)
    ids = [str(number) for number in range(len(targets))]
    assert not doubtful(scored(1529), targets, ids).any()
    targets = np.array([0] * 1400 + [7] * 29, np.int32)
    assert doubtful(scored(1429), targets, ids[:1429]).sum() == 29


def test_macros_with_few_examples_and_tickets_with_several_macros_are_not_doubted() -> None:
    targets = np.array([0] * 41 + [7] * 19, np.int32)
    assert not doubtful(scored(60), targets, [str(number) for number in range(60)]).any()
    targets = np.array([0] * 20 + [7] * 20, np.int32)
    assert not doubtful(scored(40), targets, [str(number % 20) for number in range(40)]).any()


def test_folds_are_by_ticket_and_the_same_every_time() -> None:
    examples = [Example(ticket_id=str(number // 2), body="a", macro_id=str(number)) for number in range(600)]
    folds = folds_of(examples)
    assert (folds[::2] == folds[1::2]).all()
    assert min(np.bincount(folds)) > 140
    np.testing.assert_array_equal(folds_of(examples[::-1]), folds[::-1])
