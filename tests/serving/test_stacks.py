"""Where an error was raised is told without keeping what was there."""

from __future__ import annotations

import gc
import json
import logging
import sys
import weakref

from registry.errors import BundleCorrupt
from serving.logs import JsonFormatter
from serving.stacks import stack_of, without_frames

# Put together, since lines of code are told.
WORDS = "-".join(["secret", "ticket"])


class Held:
    """Something large."""


def _raised(error: Exception, *, of: Exception | None = None) -> tuple[Exception, weakref.ref[Held]]:
    held = Held()
    try:
        try:
            raise of or KeyError(WORDS)
        except Exception as first:
            raise error from first
    except Exception as caught:  # noqa: BLE001  # which is what is handed on
        return caught, weakref.ref(held)


def test_frames_go_and_the_place_stays() -> None:
    gc.disable()
    try:
        error, held = _raised(ValueError(WORDS))
        assert held() is not None
        assert without_frames(error) is error
        assert held() is None, "neither its own frames nor those of what led to it"
    finally:
        gc.enable()
    assert "raise error from first" in stack_of(error)
    assert without_frames(error) is error
    assert stack_of(error).count("raise error from first") == 1


def test_the_log_has_the_place_and_no_words() -> None:
    error, _ = _raised(ValueError(WORDS))
    error.add_note(f"a library's note of {WORDS}")
    try:
        raise without_frames(error)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "p", 1, "failed", (), sys.exc_info())
    line = JsonFormatter().format(record)
    assert WORDS not in line
    stack = json.loads(line)["stack"]
    assert stack.index("raise without_frames(error)") < stack.index("raise error from first")


def test_the_domains_errors_need_no_place() -> None:
    error, _ = _raised(BundleCorrupt("it is"))
    assert stack_of(without_frames(error)) == ""
