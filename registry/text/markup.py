"""HTML to the text that a reader sees: of mail programs and help desks, in linear time whatever comes in.

Made for this because the parsers at hand are not bounded: 64 KiB of `<a ` cost Python's own html.parser 43 s, and 13,000
nested elements cost selectolax, a C extension, 0.25 s. Here one regular expression with possessive quantifiers finds the
tags, each character is looked at a bounded number of times, and only so many tags are read.
"""

from __future__ import annotations

import re
from html.entities import html5
from itertools import islice

from registry.text.steps import Steps, finished

# More than any mail has that fits into a request; what lies beyond is not read.
_MOST_TAGS = 4_000
# Of a step: tags, and code points of their attributes.
_TAGS_A_STEP, _ATTRIBUTES_A_STEP = 250, 8_000
# In code points; several times what a program reads of a message.
_MOST_SHOWN = 16_000
# Of a tag, in code points; what marks a quotation stands well before, and a picture within a tag has 50,000.
_MOST_OF_ATTRIBUTES = 2_000
_ROUNDS = 4
_BLOCKS = frozenset(
    "address article blockquote br center dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr li main "
    "nav ol option p pre section table tbody tr ul".split()
)
_CELLS = frozenset(("td", "th"))
_INLINE = frozenset(
    "a abbr b base big body bdi bdo button caption cite code col colgroup del em figcaption font html i img input ins "
    "kbd label link mark meta q s samp small span strike strong sub sup tfoot thead time tt u wbr".split()
)
_VOID = frozenset(("br", "hr", "img", "input", "link", "meta"))
_FLOWING = frozenset(("br", "html", "p"))
# Elements whose content no reader sees.
_UNSEEN = frozenset("head noscript object script style svg template title".split())
_KNOWN = _BLOCKS | _CELLS | _INLINE | _UNSEEN
_TOKEN = re.compile(r"<!--|<[!?][^<>]*+>|<(/?)([A-Za-z][A-Za-z0-9:]{0,20}+)(?=[\s/>])([^<>]*+)>")
# How the mail programs mark what the writer of a message did not write: the message answered and the signature.
_FOREIGN = re.compile(
    r"gmail_quote|gmail_attr|gmail_signature|yahoo_quoted|moz-cite-prefix|moz-signature|protonmail_quote|"
    r"protonmail_signature|tutanota_quote|OutlookMessageHeader|zmail_extra|mail-editor-reference-message|"
    r"data-smartmail|type=[\"']?cite|display:\s{0,3}none",
    re.IGNORECASE,
)
# Outlook marks where its copy of the message answered begins, and does not enclose it.
_REST_IS_FOREIGN = re.compile(r"id=[\"']?(?:x_)*(?:appendonsend|divRplyFwdMsg|mail-editor-reference)", re.IGNORECASE)
_AMPERSAND = re.compile(r"&(?:(?:amp|AMP|#0{0,5}38|#[xX]0{0,4}26);)+")
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def plain_text(text: str, *, foreign: bool = False) -> str:
    """What a reader sees of a text that may be HTML, or partly, or escaped once too often; plain text stays as it is.

    Args:
        foreign: keep what mail programs mark as quoted or as a signature.

    Returns:
        At most 16,000 code points, with line breaks where blocks end. Given to this function again they stay the same.
    """
    return finished(plain_text_in_steps(text, foreign=foreign))


def plain_text_in_steps(text: str, *, foreign: bool = False) -> Steps[str]:
    """What `plain_text` returns; of 64 KiB a step takes about 2 ms at most."""
    for _ in range(_ROUNDS):
        if "<" not in text and "&" not in text:
            return text[:_MOST_SHOWN]
        bare = yield from _without_tags(text, foreign=foreign)
        shown = _entities(bare[:_MOST_SHOWN])
        if shown == text:
            return text
        text = shown
        yield
    # Escaped again and again: nobody's text, and what it would become does not matter.
    return text.replace("<", " ").replace("&", " ")


def _without_tags(text: str, *, foreign: bool) -> Steps[str]:
    tags = yield from _tags(text)
    names = {(tag[2] or "").lower() for tag in tags}
    if not (names & _KNOWN or any(tag[2] is None for tag in tags)):
        return text
    if names & _FLOWING:
        # The lines of the source are not the reader's. A text with a stray tag or two keeps its own.
        text = text.replace("\n", " ")
    parts: list[str] = []
    looked_at = 0
    end, unseen, depth = 0, "", 0  # what was read; the element whose content is left out, and how deep in it we are
    for place, tag in enumerate(tags, 1):
        if not place % _TAGS_A_STEP or looked_at > _ATTRIBUTES_A_STEP:
            looked_at = 0
            yield
        name, attributes = (tag[2] or "").lower(), (tag[3] or "")[:_MOST_OF_ATTRIBUTES]
        if tag.start() < end or (name and name not in _KNOWN and ":" not in name):
            continue  # inside a comment, or words: <jane@example.com>, <order 12>
        looked_at += len(attributes)
        if not unseen:
            parts.append(text[end : tag.start()])
        end = _end_of_comment(text, tag.end()) if tag[0] == "<!--" else tag.end()
        opens = not tag[1] and not (tag[3] or "").endswith("/")
        if unseen:
            depth += (name == unseen) * (1 if opens else -bool(tag[1]))
            unseen = unseen if depth else ""
        elif opens and (name in _UNSEEN or (not foreign and _is_foreign(name, attributes))):
            unseen, depth = name, 1
        elif not foreign and _REST_IS_FOREIGN.search(attributes):
            return "".join(parts)
        else:
            parts.append("\n" if name in _BLOCKS else " " if name in _CELLS else "")
    if not unseen and len(tags) < _MOST_TAGS:
        parts.append(text[end:])
    return "".join(parts)


def _tags(text: str) -> Steps[list[re.Match[str]]]:
    tags: list[re.Match[str]] = []
    found = _TOKEN.finditer(text)
    while more := list(islice(found, min(_TAGS_A_STEP, _MOST_TAGS - len(tags)))):
        tags += more
        if len(more) == _TAGS_A_STEP:
            yield
    return tags


def _end_of_comment(text: str, start: int) -> int:
    found = text.find("-->", start)
    return len(text) if found < 0 else found + 3


def _is_foreign(name: str, attributes: str) -> bool:
    if name == "blockquote":
        return True
    return bool(attributes) and name not in _VOID and bool(_FOREIGN.search(attributes))


def _entities(text: str) -> str:
    return _ENTITY.sub(_character, _AMPERSAND.sub("&", text)) if "&" in text else text


def _character(found: re.Match[str]) -> str:
    name = found[1]
    if name[0] != "#":
        return html5.get(f"{name};", found[0])
    number = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    return chr(number) if 0 < number < 0xD800 or 0xE000 <= number < 0x110000 else " "
