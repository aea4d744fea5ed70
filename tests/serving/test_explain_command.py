import json
from typing import Any

import pytest
from typer.testing import CliRunner

import macrofleet

REPORT: dict[str, Any] = {
    "tenant": "acme",
    "model_version": "0" * 16,
    "abstained": True,
    "reason": "below_threshold",
    "threshold": 0.5,
    "text": "where is it",
    "macros": [
        {
            "id": "m1",
            "title": "Shipping",
            "score": 0.25,
            "explanation": [{"text": "where is", "contribution": 2.0}, {"text": "it", "contribution": -0.5}],
        }
    ],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> list[Any]:
    calls: list[Any] = []

    def explain_offline(_store: object, *arguments: str, settings: object, **options: str | None) -> dict[str, Any]:
        calls.append((*arguments, options))
        return REPORT

    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path))
    monkeypatch.setattr("serving.offline.explain_offline", explain_offline)
    return calls


def test_a_report_for_people(asked: list[Any]) -> None:
    result = CliRunner().invoke(macrofleet.app, ["explain", "--tenant", "acme", "--subject", "s", "where is it"])
    assert asked == [("acme", "where is it", {"subject": "s", "macro": None})]
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "read: 'where is it'",
        "none of these would be shown: the best is below the threshold of 0.50",
    ]
    assert lines[3].split() == ["0.25", "Shipping", "[m1]"]
    assert lines[4].split() == ["+2.00", "+" * 24, "where", "is"]
    assert lines[5].split() == ["-0.50", "-" * 6, "it"]


def test_a_report_for_programs(asked: list[Any]) -> None:
    result = CliRunner().invoke(macrofleet.app, ["explain", "--tenant", "acme", "--json", "--macro", "m1", "where"])
    assert json.loads(result.stdout) == REPORT
    assert asked[0][2] == {"subject": "", "macro": "m1"}
