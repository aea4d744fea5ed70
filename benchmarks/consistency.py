"""Whether every answer came from exactly one version, and from one that was wanted. Arithmetic only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A version that a tenant was told to serve.

    Attributes:
        version: its name.
        at: when the fleet was about to name it, by `time.monotonic`; never before then may it answer.
        prefix: what the ids of its macros begin with; no other version's do.
    """

    version: str
    at: float
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer and when it was asked for and had come; `pick` says which request it answers."""

    tenant: str
    sent: float
    done: float
    version: str
    macros: Sequence[tuple[str, float]]
    pick: int


def parse_answer(body: bytes) -> tuple[str, list[tuple[str, float]]]:
    """The version that an answer names, and its macros with their scores."""
    answer: dict[str, Any] = json.loads(body)
    return answer["model_version"], [(macro["id"], macro["score"]) for macro in answer["macros"]]


def find_mixed(history: Mapping[str, Sequence[Published]], answers: Iterable[Answered]) -> list[str]:
    """What is wrong with the answers, one sentence each.

    A version may answer from when the fleet was about to name it. It may go on until the server has the next one, which
    only the server knows; but once an answer of a later version has come, whatever is sent after that must not be
    answered by an earlier one.

    Args:
        history: by tenant, its versions in the order in which they were published, each once.
        answers: in any order.
    """
    by_tenant: dict[str, list[Answered]] = {}
    for answer in answers:
        by_tenant.setdefault(answer.tenant, []).append(answer)
    problems = []
    for tenant, found in by_tenant.items():
        places = {published.version: place for place, published in enumerate(history[tenant])}
        known = []
        for answer in found:
            place = places.get(answer.version)
            if place is None:
                problems.append(f"{tenant}: version {answer.version} was never published")
                continue
            published = history[tenant][place]
            if answer.done < published.at:
                problems.append(f"{tenant}: version {answer.version} answered before it was published")
            if not answer.macros or not all(macro.startswith(f"{published.prefix}-") for macro, _ in answer.macros):
                problems.append(f"{tenant}: version {answer.version} answered with macros that are not its own")
            known.append((place, answer))
        problems += _gone_back(tenant, known, len(places))
    return problems


def _gone_back(tenant: str, answers: Sequence[tuple[int, Answered]], versions: int) -> list[str]:
    # superseded[k]: when the first answer of any version after k had come.
    superseded = [float("inf")] * (versions + 1)
    for place, answer in answers:
        if place:
            superseded[place - 1] = min(superseded[place - 1], answer.done)
    for place in range(versions - 1, -1, -1):
        superseded[place] = min(superseded[place], superseded[place + 1])
    return [
        f"{tenant}: version {answer.version} answered after a later one had"
        for place, answer in answers
        if answer.sent > superseded[place]
    ]


def taken_over(history: Mapping[str, Sequence[Published]], answers: Iterable[Answered]) -> dict[str, float]:
    """For each published version that answered: seconds from when it was published until its first answer had come."""
    published = {(tenant, one.version): one.at for tenant, versions in history.items() for one in versions}
    first: dict[tuple[str, str], float] = {}
    for answer in answers:
        key = (answer.tenant, answer.version)
        if key in published:
            first[key] = min(first.get(key, float("inf")), answer.done)
    return {version: done - published[tenant, version] for (tenant, version), done in first.items()}
