import pytest

from training.connectors.client import _hold_seconds

DATE = "Sat, 28 Nov 2026 02:00:00 GMT"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0.0),
        ("12", 12.0),
        ("1.5", 1.5),
        ("99999999", 900.0),
        ("Sat, 28 Nov 2026 02:01:30 GMT", 90.0),
        ("Sat, 28 Nov 2026 01:59:00 GMT", 0.0),
        ("Sat, 28 Nov 2099 02:00:00 GMT", 900.0),
        ("Saturday, 28-Nov-26 02:01:30 GMT", 90.0),
        ("", 30.0),
        ("soon", 30.0),
        ("-5", 30.0),
        ("1e9", 30.0),
        ("nan", 30.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: str, seconds: float) -> None:
    assert _hold_seconds({"retry-after": said, "date": DATE}) == seconds


def test_a_date_counts_by_the_clock_here_where_the_answer_has_none() -> None:
    assert _hold_seconds({"retry-after": DATE.replace("2026", "2001")}) == 0.0
