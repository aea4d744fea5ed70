from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from registry.errors import BundleCorrupt
from serving.logs import REQUEST_ID, TENANT, JsonFormatter, configure_logs


def formatted(*arguments: object, error: Exception | None = None, **extra: object) -> dict[str, Any]:
    exc_info = None
    if error is not None:
        try:
            raise error
        except type(error):
            exc_info = sys.exc_info()
    record = logging.getLogger("some.room").makeRecord(
        "some.room", logging.WARNING, __file__, 1, "said %s", arguments, exc_info, extra=extra
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    made: dict[str, Any] = json.loads(line)
    return made


def test_a_line_is_one_object_with_what_was_passed_along() -> None:
    token = REQUEST_ID.set("r-1")
    try:
        line = formatted("a\nb", tenant="acme", version="1")
    finally:
        REQUEST_ID.reset(token)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "some.room",
        "message": "said a\nb",
        "request_id": "r-1",
        "tenant": "acme",
        "version": "1",
    }


def test_the_domain_says_what_went_wrong_and_others_only_where() -> None:
    assert formatted("x", error=BundleCorrupt("weights are short"))["problem"] == "weights are short"
    line = formatted("x", error=ValueError("My parcel has not arrived"))
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["stack"]
    assert "parcel" not in json.dumps(line)


def test_outside_of_a_request_there_is_no_id() -> None:
    assert not {"request_id", "tenant", "replica"} & set(formatted("x"))


def test_the_tenant_of_a_request_is_in_its_lines_and_a_line_may_name_another() -> None:
    token = TENANT.set("acme")
    try:
        assert formatted("x")["tenant"] == "acme"
        assert formatted("x", tenant="globex")["tenant"] == "globex"
    finally:
        TENANT.reset(token)


def test_a_replica_signs_its_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setenv("MACROFLEET_REPLICA", "3")
    configure_logs()
    logging.getLogger("some.room").info("hello")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["replica"] == "3"
