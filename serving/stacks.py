"""Where errors were raised, told without keeping anything alive."""

from __future__ import annotations

import traceback

from registry.errors import MacrofleetError

# Ours alone: another note may be a library's, and quote a ticket.
_NOTE = "macrofleet: raised at\n"


def without_frames(error: Exception) -> Exception:
    """An error without its frames, for whoever hands it on as a value; where it was raised stays for `stack_of`.

    A traceback keeps its frames, each frame the one that called it, and each of them all that its function had. Where one of
    these holds the error in turn, as the outcome of a job or in a list, that is a cycle: a model that it holds stays mapped
    until garbage is collected, which a server does seldom.
    """
    told = any(note.startswith(_NOTE) for note in _notes(error))  # the same error may be raised again and again
    if error.__traceback__ is not None and not told and not isinstance(error, MacrofleetError):
        error.add_note(_NOTE + "".join(traceback.format_tb(error.__traceback__)))
    seen: set[int] = set()
    earlier: list[BaseException | None] = [error]
    while earlier:
        one = earlier.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            earlier += [one.__cause__, one.__context__]
    return error


def stack_of(error: BaseException) -> str:
    """The lines of code that an error went through, outermost first, without any values."""
    before = [note.removeprefix(_NOTE) for note in _notes(error) if note.startswith(_NOTE)]
    return "".join([*traceback.format_tb(error.__traceback__), *before])


def _notes(error: BaseException) -> list[str]:
    return [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
