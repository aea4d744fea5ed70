"""The small language the phrases are written in, and its compiler.

A template is text with alternatives and slots: `[my|the] {product} is [broken|dead[ again|]]`. Alternatives nest and
may be empty. A slot is a name to fill in (`{order}`), a range of numbers (`{2-9}`), digits (`{ddd}`) or capitals
(`{LL}`).

A pack is a block of lines, each with a mark in front:

    $ slot: value; value             values are templates too
    % section                        starts a section of phrases
    @ key | Category | Name | other  starts an intent; `other` names one that means nearly the same
    = reply    ! subject    - core    + detail    ? ask

`- ` lines after `% section` are that section's phrases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from training.synthetic.draws import Draws

_DIGITS = "0123456789"
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
_RANGE = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value that the ticket decides."""

    name: str


@dataclass(frozen=True, slots=True)
class Symbols:
    """A place for random characters of one alphabet."""

    alphabet: str
    count: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A place for one of several templates; `plain` instead of `options` where all of them are mere text."""

    plain: tuple[str, ...]
    options: tuple[Template, ...]


Part = str | Slot | Symbols | range | Choice
Template = tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What customers of one macro write, and the macro itself."""

    key: str
    category: str
    name: str
    partner: str | None
    reply: tuple[Template, ...]
    subjects: tuple[Template, ...]
    cores: tuple[Template, ...]
    details: tuple[Template, ...]
    asks: tuple[Template, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A compiled block: intents by key, phrases by section, values by slot."""

    intents: dict[str, Intent]
    phrases: dict[str, tuple[Template, ...]]
    slots: dict[str, tuple[Template, ...]]


def _slot(name: str) -> Part:
    if bounds := _RANGE.fullmatch(name):
        return range(int(bounds[1]), int(bounds[2]) + 1)
    if not name.strip("d"):
        return Symbols(_DIGITS, len(name))
    if not name.strip("L"):
        return Symbols(_LETTERS, len(name))
    return Slot(name)


def _sequence(text: str, at: int, *, nested: bool) -> tuple[Template, int]:
    parts: list[Part] = []
    start = at
    while at < len(text):
        mark = text[at]
        if mark in "[{" or (nested and mark in "|]"):
            if at > start:
                parts.append(text[start:at])
            if mark == "{":
                close = text.index("}", at)
                parts.append(_slot(text[at + 1 : close]))
                at = close
            elif mark == "[":
                choice, at = _choice(text, at)
                parts.append(choice)
            else:
                return tuple(parts), at
            start = at + 1
        at += 1
    if nested:
        raise ValueError(f"unclosed '[' in {text!r}")
    if at > start:
        parts.append(text[start:at])
    return tuple(parts), at


def _choice(text: str, at: int) -> tuple[Choice, int]:
    options: list[Template] = []
    while text[at] != "]":
        option, at = _sequence(text, at + 1, nested=True)
        options.append(option)
    if all(not option or (len(option) == 1 and isinstance(option[0], str)) for option in options):
        return Choice(tuple(str(option[0]) if option else "" for option in options), ()), at
    return Choice((), tuple(options)), at


def compile_template(text: str) -> Template:
    """Compile one template."""
    return _sequence(text, 0, nested=False)[0]


def slots_of(template: Template) -> Iterator[str]:
    """Names of the slots that a template may ask for."""
    for part in template:
        if isinstance(part, Slot):
            yield part.name
        elif isinstance(part, Choice):
            for option in part.options:
                yield from slots_of(option)


def expand(template: Template, draws: Draws, fill: Callable[[str], str]) -> str:
    """One text of a template.

    Args:
        template: what to expand.
        draws: decides the alternatives.
        fill: gives the value of a slot.
    """
    out: list[str] = []
    for part in template:
        # Comparing types is measurably faster than `isinstance`, and this loop makes nearly all of the text.
        kind = type(part)
        if kind is str:
            out.append(part)  # type: ignore[arg-type]
        elif isinstance(part, Choice):
            out.append(draws.pick(part.plain) if part.plain else expand(draws.pick(part.options), draws, fill))
        elif isinstance(part, Slot):
            out.append(fill(part.name))
        elif isinstance(part, Symbols):
            out.extend(draws.pick(part.alphabet) for _ in range(part.count))
        elif isinstance(part, range):
            out.append(str(draws.pick(part)))
    return "".join(out)


@dataclass(slots=True)
class _Draft:
    head: list[str]
    lines: dict[str, list[Template]] = field(default_factory=dict)

    def finish(self) -> Intent:
        if len(self.head) not in (3, 4) or not all(self.lines.get(mark) for mark in "=!-"):
            raise ValueError(f"intent {self.head} is incomplete")
        part = {mark: tuple(self.lines.get(mark, ())) for mark in "=!-+?"}
        return Intent(
            key=self.head[0],
            category=self.head[1],
            name=self.head[2],
            partner=self.head[3] if len(self.head) == 4 else None,
            reply=part["="],
            subjects=part["!"],
            cores=part["-"],
            details=part["+"],
            asks=part["?"],
        )


def compile_pack(*blocks: str) -> Pack:
    """Compile blocks into one pack; of what they define twice, the later definition counts.

    Raises:
        ValueError: a line has no mark, or an intent no reply, subject or core.
    """
    drafts: dict[str, _Draft] = {}
    phrases: dict[str, list[Template]] = {}
    slots: dict[str, tuple[Template, ...]] = {}
    for block in blocks:
        target: dict[str, list[Template]] = {}
        for line in filter(None, map(str.strip, block.splitlines())):
            mark, _, rest = line.partition(" ")
            if mark == "$":
                name, _, values = rest.partition(":")
                slots[name] = tuple(compile_template(value.strip()) for value in values.split(";"))
            elif mark == "%":
                target = {"-": phrases.setdefault(rest, [])}
            elif mark == "@":
                head = [part.strip() for part in rest.split("|")]
                drafts[head[0]] = _Draft(head)
                target = drafts[head[0]].lines
            elif mark in ("=", "!", "-", "+", "?"):
                target.setdefault(mark, []).append(compile_template(rest.replace("\\n", "\n")))
            else:
                raise ValueError(f"no mark in front of {line!r}")
    return Pack(
        intents={key: draft.finish() for key, draft in drafts.items()},
        phrases={section: tuple(lines) for section, lines in phrases.items()},
        slots=slots,
    )
