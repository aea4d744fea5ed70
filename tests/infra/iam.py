"""What policies of AWS Identity and Access Management allow: as much of their evaluation as ours use, and no more.

"Policy evaluation logic" and "IAM JSON policy elements" of the IAM User Guide: an explicit denial wins, then an allowance, and
nothing is allowed by default. What is not known here (NotAction, other operators) is refused when it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path
from typing import Any

_ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}


@dataclass(frozen=True)
class Request:
    """What somebody asks.

    Attributes:
        action: `s3:GetObject`.
        resource: an ARN.
        context: condition keys that the request has.
    """

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


class Policy:
    """A policy document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        assert document["Version"] == "2012-10-17"
        self.statements = document["Statement"]
        for statement in self.statements:
            assert set(statement) <= _ELEMENTS, statement
            for operator in statement.get("Condition", {}):
                assert operator in _OPERATORS, operator

    @classmethod
    def rendered(cls, path: Path, **values: str) -> Policy:
        """A template as Terraform's `templatefile` renders it, which is more than we use of it: names in `${}`."""
        text = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], path.read_text())
        assert "${" not in text
        assert "%{" not in text
        return cls(json.loads(text))

    def says(self, request: Request) -> str | None:
        """Allow, Deny, or None."""
        found = {each["Effect"] for each in self.statements if _applies(each, request)}
        return "Deny" if "Deny" in found else "Allow" if found else None

    def actions(self) -> set[str]:
        return {action for each in self.statements for action in _many(each["Action"])}


def allowed(request: Request, *, identity: Policy, resource: Policy) -> bool:
    """Whether somebody of the bucket's account may, by their role's policy and the bucket's."""
    said = {identity.says(request), resource.says(request)}
    return "Allow" in said and "Deny" not in said


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    return (
        any(_like(pattern.lower(), request.action.lower()) for pattern in _many(statement["Action"]))
        and any(_like(pattern, request.resource) for pattern in _many(statement["Resource"]))
        and all(
            _OPERATORS[operator](request.context.get(key), set(_many(values)))
            for operator, conditions in statement.get("Condition", {}).items()
            for key, values in conditions.items()
        )
    )


def _like(pattern: str, text: str) -> bool:
    """`*` and `?`; square brackets are themselves, and a star goes over slashes."""
    assert "[" not in pattern
    return re.match(translate(pattern), text) is not None


def _many(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


# A key that the request does not have satisfies what is negated and nothing else.
_OPERATORS = {
    "StringEquals": lambda found, values: found in values,
    "StringLike": lambda found, values: found is not None and any(_like(value, found) for value in values),
    "Bool": lambda found, values: found in values,
    "ArnNotEquals": lambda found, values: found is None or not any(_like(value, found) for value in values),
}
