"""The evaluation that the tests of policies rest on, against what Amazon's documentation says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.infra.iam import Policy, Request, allowed

BUCKET = "arn:aws:s3:::models"


def policy(*statements: Mapping[str, object]) -> Policy:
    return Policy({"Version": "2012-10-17", "Statement": list(statements)})


READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{BUCKET}/fleet/*"}
NOTHING = policy()


def test_nothing_is_allowed_by_default() -> None:
    assert not allowed(Request("s3:GetObject", f"{BUCKET}/fleet/x"), identity=NOTHING, resource=NOTHING)


@pytest.mark.parametrize(
    ("action", "key", "expected"),
    [
        ("s3:GetObject", "fleet/root.json", True),
        ("S3:getobject", "fleet/root.json", True),
        ("s3:GetObject", "fleet/shards/00/1.json", True),
        ("s3:GetObject", "Fleet/root.json", False),
        ("s3:GetObject", "other/fleet/root.json", False),
        ("s3:GetObjectVersion", "fleet/root.json", False),
        ("s3:PutObject", "fleet/root.json", False),
    ],
)
def test_actions_have_no_case_and_resources_have(action: str, key: str, expected: bool) -> None:
    assert allowed(Request(action, f"{BUCKET}/{key}"), identity=policy(READ), resource=NOTHING) is expected


def test_a_denial_wins_whoever_says_it() -> None:
    denial = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"{BUCKET}/*"}
    request = Request("s3:GetObject", f"{BUCKET}/fleet/x")
    assert allowed(request, identity=policy(READ), resource=NOTHING)
    assert not allowed(request, identity=policy(READ), resource=policy(denial))
    assert not allowed(request, identity=policy(READ, {**denial}), resource=NOTHING)


@pytest.mark.parametrize(
    ("operator", "values", "found", "expected"),
    [
        ("StringLike", "a/*", "a/b/c", True),
        ("StringLike", ["x", "a/*"], "a/b", True),
        ("StringLike", "a/*", "b", False),
        ("StringLike", "a/*", None, False),
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a*", "ab", False),
        ("Bool", "false", "true", False),
        ("Bool", "false", None, False),
        ("ArnNotEquals", "arn:r", "arn:r", False),
        ("ArnNotEquals", "arn:r", "arn:s", True),
        ("ArnNotEquals", "arn:r", None, True),
    ],
)
def test_conditions(operator: str, values: object, found: str | None, expected: bool) -> None:
    conditional = policy({**READ, "Condition": {operator: {"key": values}}})
    context = {} if found is None else {"key": found}
    request = Request("s3:GetObject", f"{BUCKET}/fleet/x", context)
    assert allowed(request, identity=conditional, resource=NOTHING) is expected


@pytest.mark.parametrize(
    "statement", [{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}, {**READ, "Condition": {"IpAddress": {}}}]
)
def test_what_is_not_known_is_refused(statement: Mapping[str, object]) -> None:
    with pytest.raises(AssertionError):
        policy(statement)
