"""Remembered answers: a state machine against a plain list, and who may take room from whom."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.suggestions.answers import _OVERHEAD_BYTES, Answers, answer_key

TENANTS = st.sampled_from(["a", "b", "c"])
KEYS = st.integers(0, 5)
STATES = st.sampled_from([("v1", "p1"), ("v1", "p2"), ("v2", "p1")])
SIZES = st.integers(1, 300)
BUDGET, SHARE = 10 * (_OVERHEAD_BYTES + 300), 0.4


class Remembering(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.answers: Answers[int] = Answers(budget_bytes=BUDGET, tenant_share=SHARE)
        self.rows: list[tuple[str, bytes, tuple[str, ...], int, int]] = []  # the oldest first
        self.given = 0

    def forget(self, key: bytes) -> None:
        self.rows = [row for row in self.rows if row[1] != key]

    def size(self, tenant: str | None = None) -> int:
        return sum(row[4] for row in self.rows if tenant in (None, row[0]))

    @rule(tenant=TENANTS, number=KEYS, state=STATES, nbytes=SIZES)
    def keep(self, tenant: str, number: int, state: tuple[str, ...], nbytes: int) -> None:
        key, self.given = f"{tenant}{number}".encode(), self.given + 1
        self.answers.keep(tenant, key, state, self.given, nbytes=nbytes)
        self.forget(key)
        self.rows.append((tenant, key, state, self.given, nbytes + _OVERHEAD_BYTES))
        while self.size(tenant) > int(BUDGET * SHARE):
            self.rows.remove(next(row for row in self.rows if row[0] == tenant))
        while self.size() > BUDGET:
            del self.rows[0]

    @rule(tenant=TENANTS, number=KEYS, state=STATES)
    def find(self, tenant: str, number: int, state: tuple[str, ...]) -> None:
        key = f"{tenant}{number}".encode()
        found = self.answers.find(key, state)
        row = next((row for row in self.rows if row[1] == key), None)
        self.forget(key)
        if row is None or row[2] != state:
            assert found is None
        else:
            assert found == row[3]
            self.rows.append(row)

    @rule(tenants=st.sets(TENANTS, min_size=2))
    def leave(self, tenants: set[str]) -> None:
        self.answers.forget_all_but(tenants)
        self.rows = [row for row in self.rows if row[0] in tenants]

    @invariant()
    def sizes_add_up(self) -> None:
        assert self.answers.nbytes == self.size() <= BUDGET
        assert len(self.answers) == len(self.rows)
        for tenant in "abc":
            assert self.answers.bytes_of(tenant) == self.size(tenant) <= BUDGET * SHARE


TestRemembering = Remembering.TestCase


def test_one_tenant_cannot_empty_it() -> None:
    answers: Answers[str] = Answers(budget_bytes=100_000, tenant_share=0.25)
    for number in range(20):
        answers.keep("quiet", b"q%d" % number, ("v",), "said", nbytes=400)
    for number in range(10_000):
        answers.keep("loud", b"l%d" % number, ("v",), "said", nbytes=400)
    assert sum(answers.find(b"q%d" % number, ("v",)) == "said" for number in range(20)) == 20
    assert answers.bytes_of("loud") <= 25_000


def test_what_is_too_large_for_a_share_is_left_out() -> None:
    answers: Answers[str] = Answers(budget_bytes=10_000, tenant_share=0.25)
    answers.keep("a", b"k", ("v",), "said", nbytes=2_100)
    assert len(answers) == 0
    assert not Answers(budget_bytes=0, tenant_share=1).on


def key(**changes: object) -> bytes:
    fields: dict[str, object] = {"tenant": "acme", "ticket": "1", "revision": 0, "text": "Where?", "groups": ()}
    fields |= {"language": None, "limit": 3, "exclude": ()}
    return answer_key(**{**fields, **changes})  # type: ignore[arg-type]


def test_everything_that_a_request_may_hold_tells_it_apart() -> None:
    made = [
        key(),
        key(tenant="globex"),
        key(ticket="2"),
        key(revision=1),
        key(text="Who?"),
        key(groups=["1"]),
        key(groups=["1", "2"]),
        key(language="de"),
        key(limit=2),
        key(exclude=["m1"]),
        key(exclude=["m1", "m2"]),
    ]
    assert max(Counter(made).values()) == 1
    assert key(groups=["1", "2"], exclude=("x", "y")) == key(groups=["2", "1"], exclude=("y", "x", "x"))


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_parts_are_never_taken_for_each_other(one: str, text: str, other: str, words: str) -> None:
    assert (key(ticket=one, text=text) == key(ticket=other, text=words)) == ((one, text) == (other, words))
