"""What of a ticket a model reads; the one place, the same for training and serving.

A program gets one text, and what comes first in it is read even where the program reads only so far: the subject, the
customer's first message, then the latest. Each is cleaned to what its writer wrote, and bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from registry.text.markup import plain_text, plain_text_in_steps
from registry.text.masking import masked_in_steps
from registry.text.quoting import all_words, own_words_in_steps
from registry.text.steps import Steps, finished

# In code points. Together below the 4,000 that the program `bag` reads.
MOST_OF_SUBJECT, MOST_OF_LATEST, MOST_OF_TICKET = 300, 1_400, 3_900
_MOST_OF_RAW_SUBJECT = 2_000
_MOST_MASKED = 8_192
_ROUNDS = 4
# Of a message that is too long, this part of what is kept is its end: that is where people say what they want.
_END = 4

# Line ends of every kind; marks that have no width and hide the start of a line; and what is no character.
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_WIDTHLESS = re.compile(r"[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]+")
_ADDRESS = re.compile(r"(?<![\w.@/-])(?:https?://|www\.)[^\s<>\"\u3000-\u303f\uff00-\uffef]{1,4096}", re.IGNORECASE)
_HOST, _WWW = re.compile(r"[\w.-]*"), re.compile(r"(?:www\.)+")
_PATH_WORD = re.compile(r"[^\W\d_]{2,24}(?:[-_.][^\W\d_]{2,24}){0,5}")
_LONG_NUMBER = re.compile(r"\d{5,}")
_NO_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte <= 57)
_ANSWERED = re.compile(
    r"(?:(?:re|fwd?|aw|wg|rv|tr|sv|vs|antw|doorst|enc|res|rif|odp|ynt|ilt|回复|答复|转发|回覆|轉寄|返信|転送)"
    r"\s?(?:\[\d{1,3}\]|\(\d{1,3}\))?\s?[:\uff1a]\s?)+",
    re.IGNORECASE,
)


class Message(Protocol):
    """One message of a ticket, whoever wrote it."""

    @property
    def author(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def public(self) -> bool: ...
    @property
    def created_at(self) -> datetime | None: ...


def customer_messages(messages: Iterable[Message]) -> list[str]:
    """What the customer wrote in public, oldest first. By time where all messages have one, otherwise as they stand."""
    ordered = list(messages)
    if len(ordered) > 1 and all(message.created_at is not None for message in ordered):
        ordered.sort(key=lambda message: message.created_at)  # type: ignore[arg-type, return-value]
    return [message.body for message in ordered if message.public and message.author == "customer"]


def ticket_text(subject: str, messages: Sequence[str]) -> str:
    """The text a model is given: the subject, the customer's first message and, where there are more, the latest.

    Args:
        subject: may be empty.
        messages: the customer's public messages, oldest first; plain text or HTML, as they came in.

    Returns:
        At most 4,000 code points; empty where there is nothing to read.
    """
    return finished(_ticket_text_in_steps(subject, messages))


def _ticket_text_in_steps(subject: str, messages: Sequence[str]) -> Steps[str]:
    first = (yield from _clean_in_steps(messages[0])) if messages else ""
    latest = (yield from _clean_in_steps(messages[-1])) if len(messages) > 1 else ""
    if latest == first:
        latest = ""
    subject = clean_subject(subject)[:MOST_OF_SUBJECT]
    latest = _shortened(latest, MOST_OF_LATEST)
    first = _shortened(first, MOST_OF_TICKET - len(subject) - len(latest))
    return "\n".join(part for part in (subject, first, latest) if part)


def asked_text(subject: str, messages: Sequence[str]) -> str:
    """The text a model is given of a ticket that somebody asks about: `ticket_text`, masked as imports mask what it learns from.

    Where a message is longer than 8,192 code points, what follows is read as it came: the time that masking takes is the
    server's, and bounded so. Of a subject nothing is read beyond 2,000.

    Args:
        subject, messages: as for `ticket_text`.
    """
    return finished(asked_text_in_steps(subject, messages))


def asked_text_in_steps(subject: str, messages: Sequence[str]) -> Steps[str]:
    """What `asked_text` returns, for who has other work: no step takes more than a few milliseconds, whatever comes in."""
    read = [messages[0], messages[-1]] if len(messages) > 1 else messages
    said = yield from masked_in_steps(subject[:_MOST_OF_RAW_SUBJECT])
    bodies = []
    for message in read:
        yield
        beginning = yield from masked_in_steps(message[:_MOST_MASKED])
        bodies.append(beginning + message[_MOST_MASKED:] if len(message) > _MOST_MASKED else beginning)
    yield
    return (yield from _ticket_text_in_steps(said, bodies))


def clean_message(text: str) -> str:
    """What the writer of a message wrote: no markup, quoted messages, signature or footer, whatever the language.

    Addresses of pages lose what tracks (all but the host and the words of the path), digits of long numbers become zeros,
    spaces side by side one, empty lines none. In linear time, and the same again for what it returned. A message that is
    all quotation stays, without the marks; one that is all markup is empty.
    """
    return finished(_clean_in_steps(text))


def _clean_in_steps(text: str) -> Steps[str]:
    text = _without_odd_characters(text)
    shown = yield from _own_words(_fold((yield from plain_text_in_steps(text))))
    if not shown:
        yield
        everything = all_words(_fold((yield from plain_text_in_steps(text, foreign=True))))
        shown = (yield from _own_words(everything)) or everything
    return shown


def clean_subject(text: str) -> str:
    """A subject without "Re:" and its like, cleaned as messages are; on one line."""
    shown = " ".join(plain_text(_without_odd_characters(text[:_MOST_OF_RAW_SUBJECT]), foreign=True).split())
    answered = _ANSWERED.match(shown)
    return _fold(shown[answered.end() :] if answered and answered.end() < len(shown) else shown)


def _own_words(text: str) -> Steps[str]:
    """`own_words` until nothing changes: what is left of a header's two halves can be one."""
    for _ in range(_ROUNDS):
        before, text = text, (yield from own_words_in_steps(text))
        if text == before:
            break
        yield
    return text


def _without_odd_characters(text: str) -> str:
    if text.isascii():
        # All other ends of lines in ASCII are spaces to `str.split`.
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    return _WIDTHLESS.sub("", _LINE_END.sub("\n", text))


def _fold(text: str) -> str:
    if "://" in text or "www." in text or "WWW." in text:
        text = _ADDRESS.sub(_folded_address, text)
    # Counting digits takes a twentieth of looking for them side by side, and most tickets have few.
    if text.isascii() and len(text.encode().translate(None, _NO_DIGITS)) < 5:
        return text
    return _LONG_NUMBER.sub(_zeros, text)


def _zeros(found: re.Match[str]) -> str:
    return "0" * (found.end() - found.start())


def _folded_address(found: re.Match[str]) -> str:
    """`https://www.shop.example/orders/4f9a7c?utm_source=mail` as `shop.example/orders`."""
    address = found[0].lower().rstrip(".,;:!?)]}'\u2026")
    address = address.removeprefix("http://").removeprefix("https://")
    host, *path = re.split(r"[?#]", address, maxsplit=1)[0].split("/")
    host = _WWW.sub("", _HOST.match(host.rpartition("@")[2])[0])  # type: ignore[index]
    return "/".join([host, *(part for part in path if _PATH_WORD.fullmatch(part))]) if host else "url"


def _shortened(text: str, most: int) -> str:
    """The text, or its beginning and its end where it is longer than `most` code points."""
    if len(text) <= most:
        return text
    end = most // _END
    return f"{text[: most - end - 1]}\n{text[-end:]}"
