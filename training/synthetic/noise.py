"""What hurried people do to text: typing errors, lower case, missing accents and punctuation, bits of HTML."""

from __future__ import annotations

from training.synthetic.draws import Draws
from training.synthetic.languages import Language

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: "".join(row[max(0, at - 1) : at] + row[at + 1 : at + 2])
    + "".join(other[at : at + 1] for other in (_ROWS[line - 1 : line] if line else _ROWS[1:2]))
    for line, row in enumerate(_ROWS)
    for at, key in enumerate(row)
}
_NO_STOPS = str.maketrans(dict.fromkeys(".,!?;:。、"))
# Typing errors in a hundred letters, for one writer in eight each; most people make few and some make many.
_ERRORS = (0.0, 0.0, 0.0, 0.3, 0.6, 1.0, 1.8, 3.5)


def misspell(text: str, draws: Draws, count: int) -> str:
    """Make typing errors at random letters.

    Args:
        text: what was meant.
        draws: decides where and which.
        count: how many to try; digits and punctuation stay as they are.
    """
    letters = list(text)
    for _ in range(count):
        at = draws.below(len(letters))
        letter = letters[at]
        if not letter.isalpha():
            continue
        kind = draws.below(4)
        if kind == 0:
            letters[at] = ""
        elif kind == 1:
            letters[at] = letter * 2
        elif kind == 2 and (near := _NEIGHBOURS.get(letter.lower())):
            letters[at] = draws.pick(near)
        elif at + 1 < len(letters) and letters[at + 1].isalpha():
            letters[at], letters[at + 1] = letters[at + 1], letter
    return "".join(letters)


def roughen(text: str, draws: Draws, language: Language) -> str:
    """The text as one particular writer would have typed it.

    Args:
        text: well-formed text.
        draws: decides what kind of writer it is.
        language: has habits of its own.
    """
    writer = draws.uniform()
    if writer > 0.45:
        for proper, short in language.slang:
            if draws.chance(0.4):
                text = text.replace(proper, short)
        if draws.chance(0.45):
            for proper, short in language.folded.items():
                text = text.replace(proper, short)
    if writer > 0.98:
        text = text.upper()
    elif writer > 0.7:
        text = text.lower()
    if writer > 0.82 and draws.chance(0.6):
        text = text.translate(_NO_STOPS)
    errors = int(draws.quantile(_ERRORS) * len(text) / 100 + draws.uniform())
    return misspell(text, draws, errors) if errors and text else text


def to_html(text: str, draws: Draws) -> str:
    """The text as a mail program or form left it, with rests of HTML."""
    kind = draws.below(4)
    if kind == 0:
        return text.replace("\n", "<br>\n")
    if kind == 1:
        return "<p>" + text.replace("\n\n", "</p>\n<p>") + "</p>"
    if kind == 2:
        return "<div>" + text.replace("&", "&amp;").replace("'", "&#39;") + "</div>"
    return text.replace(". ", ".&nbsp; ")
