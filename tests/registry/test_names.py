"""A tenant's name in texts: by itself, and wherever a stream was cut."""

from __future__ import annotations

import io

from hypothesis import example, given
from hypothesis import strategies as st

from registry.names import mentioned_in, mentions


@given(
    parts=st.lists(st.sampled_from(["acme", "acme-2", "ac", "me", "a", " ", '"', "é", "-", "x" * 9])),
    chunk=st.integers(1, 12),
)
@example(parts=["acme"], chunk=4)
@example(parts=["-", "acme"], chunk=5)
@example(parts=["acme", "-"], chunk=4)
@example(parts=[" ", "acme"], chunk=1)
def test_a_stream_mentions_what_its_text_does(parts: list[str], chunk: int) -> None:
    text = "".join(parts)
    assert mentioned_in("acme", io.BytesIO(text.encode()), chunk=chunk) == mentions("acme", text)
