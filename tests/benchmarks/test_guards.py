"""What the bench of the guards compares: a catalogue in which much is hidden, and a server that hides nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.guards import _agent_bodies, _guarded
from registry.catalogue import Macro, make_catalogue, parse_catalogue
from registry.model.bundle import Label
from serving.suggestions.policy import Policy

MACROS = [Macro(id=f"m-{number}", title=f"Macro {number}") for number in range(100)]


def test_an_agent_of_the_load_may_use_some_of_the_macros() -> None:
    policy = Policy(parse_catalogue(_guarded(make_catalogue(MACROS).to_bytes()), what="it").macros)
    asked = json.loads(_agent_bodies()[0])
    audience = policy.audience(asked["agent"]["groups"], asked["ticket"]["locale"])
    shown = policy.shown("v", [Label(id=macro.id, title=macro.title) for macro in MACROS], audience)
    assert audience.groups
    assert audience.language == "en"
    assert shown.mask is not None
    assert 20 < int(shown.mask.sum()) < 60


@pytest.mark.parametrize("masks", [False, True])
def test_the_other_servers_hide_nothing_and_one_masks(masks: bool) -> None:
    """In a process of its own: it changes what it imports."""
    code = (
        f"masks = {masks}"
        """
import macrofleet
from benchmarks import unguarded
macrofleet.main = lambda: None
unguarded.main(masks=masks)
from registry.model.bundle import Label
from registry.catalogue import Macro
from registry.text.ticket import asked_text
from serving.suggestions.policy import Policy
policy = Policy([Macro(id="a", title="A", active=False)])
labels = [Label(id="a", title="A"), Label(id="b", title="B")]
assert policy.shown("v", labels, policy.audience(["1"], "en")).mask is None
assert not policy.is_off(["1"])
assert ("jo@shop.example" in asked_text("write to jo@shop.example", [])) is not masks
"""
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
