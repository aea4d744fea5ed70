from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from registry.errors import InvalidInput
from registry.model.bundle import Label
from registry.store.local import LocalStore
from serving import offline
from serving.offline import explain_offline, suggest_offline
from serving.settings import ServingSettings
from serving.suggestions.choice import Shown

MakeSettings = Callable[..., ServingSettings]


@pytest.mark.parametrize("text", ["", " \n", "\u200b"])
def test_a_text_without_anything_to_see_is_refused_as_a_server_would(
    store: LocalStore, make_settings: MakeSettings, text: str
) -> None:
    with pytest.raises(InvalidInput, match="the text is empty"):
        suggest_offline(store, "acme", text, settings=make_settings())


@pytest.mark.parametrize(
    ("macro", "threshold", "shown", "reason"),
    [(None, 0.5, ["low"], "below_threshold"), (None, 0.1, ["low"], None), ("off", 0.5, ["off"], "below_threshold")],
)
def test_a_macro_that_may_not_be_shown_does_not_make_the_others_good_enough(
    monkeypatch: pytest.MonkeyPatch, macro: str | None, threshold: float, shown: list[str], reason: str | None
) -> None:
    labels = [Label(id="off", title="Switched off"), Label(id="low", title="Low")]
    model = SimpleNamespace(
        labels=labels,
        manifest=SimpleNamespace(threshold=threshold),
        featurise=lambda texts: texts,
        score=lambda texts: np.array([[0.8, 0.2]] * len(texts), np.float32),
    )
    opened = SimpleNamespace(version="0" * 16, model=model, shown=Shown.of(labels, {"low": "Low"}))
    monkeypatch.setattr(offline, "_open", lambda *_: opened)
    nothing = cast(Any, None)
    report = explain_offline(nothing, "acme", "where is my parcel?", macro=macro, settings=nothing)
    assert [one["id"] for one in report["macros"]] == shown
    assert (report["abstained"], report["reason"]) == (reason is not None, reason)
