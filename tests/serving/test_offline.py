from __future__ import annotations

from collections.abc import Callable

import pytest

from registry.errors import InvalidInput
from registry.store.local import LocalStore
from serving.offline import suggest_offline
from serving.settings import ServingSettings

MakeSettings = Callable[..., ServingSettings]


@pytest.mark.parametrize("text", ["", " \n", "\u200b"])
def test_a_text_without_anything_to_see_is_refused_as_a_server_would(
    store: LocalStore, make_settings: MakeSettings, text: str
) -> None:
    with pytest.raises(InvalidInput, match="the text is empty"):
        suggest_offline(store, "acme", text, settings=make_settings())
