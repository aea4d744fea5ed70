"""The marks that the project is held to against other servers, and whether each is reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.peers.marks import judge_marks
from benchmarks.report.stored import Results
from benchmarks.report.tables import Table, peers_doubts
from benchmarks.verdicts import Bound

_MMS, _FASTAPI, _EVERY = (
    "AWS Multi Model Server",
    "FastAPI, `tf.saved_model.load`, LRU",
    "the best of every other server",
)
#: What a mark of the comparison is called for people: whom it is against, what it says, and its aim while nothing is measured.
_PEERS: dict[str, tuple[str, str, str]] = {
    **{
        f"{peer}_{name}": (title, text, aim)
        for peer, title, cold, memory in (("mms", _MMS, "≥ 1000", "≤ 0.05"), ("fastapi", _FASTAPI, "≥ 100", "≤ 0.25"))
        for name, text, aim in (
            ("cold_cached", "cold first answer from local disk, in the page cache: how many times as quick", cold),
            ("cold_uncached", "the same, not in the page cache", cold),
            ("memory_resident", "memory of a tenant, resident: share of theirs", memory),
            ("memory_charged", "memory of a tenant, as its control group counts it: share of theirs", memory),
            ("rps_short", "warm requests a second, short bodies: how many times theirs", "≥ 3"),
            ("rps_50_words", "warm requests a second, 50 words: how many times theirs", "≥ 3"),
        )
    },
    "zipf_p99_to_best_peers": (_EVERY, "p99 over 1,000 tenants by Zipf with memory for 300: share of theirs", "≤ 0.1"),
    "zipf_failures": (_EVERY, "our failures in that", "≤ 0"),
    "threads_per_tenant": ("", "threads of an additional tenant", "≤ 0"),
    "rps_to_raw_echo_short": ("a raw ASGI echo", "requests a second, short bodies: share of its", "≥ 0.1"),
    "rps_to_raw_echo_50_words": ("a raw ASGI echo", "requests a second, 50 words: share of its", "≥ 0.1"),
}
_MULTI_MODEL = "SageMaker multi-model endpoints, 500 models an instance"
_THE_COST = {"tenants": 5000, "rate": 2.0, "copies": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One mark.

    Attributes:
        name: by which `why.toml` speaks of it.
        against: whom.
        text: what is measured.
        aim: the bound, as text.
        value: what was measured; None if nothing was.
        passed: whether it is reached; one that was not measured is not.
        void: why the measurement says nothing.
        source: the result that it is from.
    """

    name: str
    against: str
    text: str
    aim: str
    value: float | None
    passed: bool
    void: tuple[str, ...] = ()
    source: str | None = None


def marks(results: Results) -> Iterator[Mark]:
    """All marks, measured or not."""
    yield from _of_peers(results)
    yield from _of_costs(results)


def _of_peers(results: Results) -> Iterator[Mark]:
    name, run = max(results.peers.items(), key=lambda item: (item[1].date, item[0]), default=(None, None))
    judged = {} if run is None else judge_marks(run)
    for mark, (against, text, aim) in _PEERS.items():
        yield Mark(
            name=mark,
            against=against,
            text=text,
            aim=judged.get("bounds", {}).get(mark, aim),
            value=judged.get("figures", {}).get(mark),
            passed=bool(judged.get("passed", {}).get(mark)),
            void=() if run is None else peers_doubts(run),
            source=name,
        )


def _of_costs(results: Results) -> Iterator[Mark]:
    wanted = [
        result
        for result in results.of("cost")
        if all(result.report["settings"][name] == value for name, value in _THE_COST.items())
    ]
    result = max(wanted, key=lambda found: str(found.report["began"]), default=None)
    void = () if result is None else result.doubts
    for name, against, least in (
        ("saved_against_multi_model", _MULTI_MODEL, 0.5),
        ("saved_against_dedicated", "an endpoint a tenant", 0.99),
    ):
        value = None if result is None else float(result.report[name])
        bound = Bound(at_least=least)
        yield Mark(
            name=name,
            against=against,
            text="share of the cost that is saved: 5,000 tenants, replicated, 2 requests a second each",
            aim=str(bound),
            value=value,
            passed=bound.holds(value),
            void=void,
            source=None if result is None else result.name,
        )


def marks_table(results: Results) -> Table:
    """The marks for people; one that is missed without a reason says so."""
    rows = []
    for mark in marks(results):
        if mark.value is None:
            state, why = "not measured", results.reason("marks", mark.name)
        elif mark.passed:
            state, why = "reached", None
        else:
            state, why = "**not reached**", results.reason("marks", mark.name) or "nobody wrote down why"
        doubt = "; ".join(mark.void)
        rows.append([mark.against, mark.text, mark.aim, mark.value, state, why, doubt or None, mark.source])
    return Table(["against", "what", "aim", "measured", "", "why", "in doubt because", "result"], rows)
