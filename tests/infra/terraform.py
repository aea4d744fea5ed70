"""infra/aws as python-hcl2 reads it: quotes off, comments away."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2

from tests.infra.images import INFRA

AWS = INFRA / "aws"
SCHEMAS = json.loads((Path(__file__).parent / "schemas" / "terraform-aws.json").read_text())
# Of every block of Terraform's, not of the provider.
META = {"for_each", "count", "depends_on", "lifecycle", "provider"}


def read() -> dict[str, list[dict[str, Any]]]:
    """All blocks of all files, by kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(AWS.glob("*.tf")):
        with path.open() as file:
            for kind, blocks in _plain(hcl2.load(file)).items():
                found.setdefault(kind, []).extend(blocks)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.strip('"'): _plain(each) for key, each in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


class Configuration:
    """Resources and data by address, and what else there is."""

    def __init__(self, blocks: dict[str, list[dict[str, Any]]]) -> None:
        self.blocks = blocks
        self.variables = {name: body for each in blocks["variable"] for name, body in each.items()}
        self.outputs = {name: body for each in blocks["output"] for name, body in each.items()}
        self.locals = {name: value for each in blocks["locals"] for name, value in each.items()}
        self.resources = dict(self._addressed("resource", ""))
        self.data = dict(self._addressed("data", "data."))

    def _addressed(self, kind: str, before: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for each in self.blocks[kind]:
            for type_, named in each.items():
                for name, body in named.items():
                    yield f"{before}{type_}.{name}", body

    def texts(self) -> Iterator[str]:
        """Everything that is written in it."""
        yield from _texts(self.blocks)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def problems(type_: str, body: dict[str, Any]) -> list[str]:
    """What the provider would not take of a resource: arguments that it does not know, and those that are missing."""
    return list(_problems(SCHEMAS[type_], body, type_))


def _problems(schema: dict[str, Any], body: dict[str, Any], where: str) -> Iterator[str]:
    given = dict(body)
    for dynamic in given.pop("dynamic", ()):
        for name, made in dynamic.items():
            given[name] = made["content"]
    for name, value in given.items():
        if name in META:
            continue
        if name not in schema:
            yield f"{where} has no {name}"
        elif "block" in schema[name] and isinstance(value, list) and all(isinstance(each, dict) for each in value):
            for each in value:
                yield from _problems(schema[name]["block"], each, f"{where}.{name}")
    for name, argument in schema.items():
        if argument.get("required") and name not in given:
            yield f"{where} lacks {name}"


def references(text: str) -> set[str]:
    """What an expression names: `var.x`, `local.x`, `aws_….x`, `data.aws_….x`."""
    found = set(re.findall(r"\b(?:var|local)\.\w+", text))
    found |= set(re.findall(r"\bdata\.aws_\w+\.\w+", text))
    return found | set(re.findall(r"(?<![\w.])aws_\w+\.\w+", text))
