"""What documents name is there: commands with their options, files, modules, and where links lead."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import macrofleet

ROOT = Path(__file__).parents[1]
RUNBOOKS = ROOT / "docs" / "runbooks"
# Of the copy of click that typer has for itself.
USAGE_ERROR: Any = typer.BadParameter.__base__


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_in(text: str) -> Iterator[tuple[list[str], bool]]:
    """The commands in a document, word by word, and whether each is to be typed as it stands: in a block.

    Comments and what a pipe leads to are left out, and the brackets of `[--json]`.
    """
    inline = re.findall(r"`(macrofleet\s[^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    found = [(line, False) for line in inline]
    for block in re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL):
        lines = re.sub(r"(?:^|\s)#.*", "", block.replace("\\\n", " "))
        for part in re.split(r"\n|&&|[|;]|\$\(", lines):
            found += [(line, True) for line in re.findall(r"^\s*(?:\S+=\S+ )*(macrofleet [^)]*)", part)]
    for line, typed in found:
        plain = re.sub(r"\[(--[^\]]*)\]", r"\1", re.split(r"\s#|\\?\||[>&;]", line)[0])
        yield [word for word in shlex.split(plain)[1:] if word != "…"], typed


@functools.cache
def whole_command() -> Any:
    return typer.main.get_command(macrofleet.app)


def wrong_with(words: list[str], *, whole: bool) -> str | None:
    """Why the program would not take these words; None where it would.

    Args:
        whole: whether everything has to be said that it cannot do without.
    """
    command = whole_command()
    rest = list(words)
    while rest and rest[0].startswith("--"):  # --store URL, for every command
        rest = rest[2:]
    while rest and hasattr(command, "commands"):  # typer has a copy of click of its own
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no {name}"
        command = command.commands[name]
    if hasattr(command, "commands"):
        return None
    context = command.context_class(command, info_name="macrofleet")
    try:
        given, left, _ = command.make_parser(context).parse_args(list(rest))
    except USAGE_ERROR as error:
        if not whole and rest and rest[-1].startswith("--"):  # an option that is named in a sentence
            return wrong_with([*words, "1"], whole=False)
        return str(error)
    if left:
        return f"it takes no {' '.join(left)}"
    lacking = [each.name for each in command.params if each.required and given.get(each.name) in (None, ())]
    return f"it lacks {', '.join(lacking)}" if whole and lacking else None


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_commands_in_documents_are_there(path: Path) -> None:
    """What is to be typed as it stands, and all of a runbook, is complete."""
    for words, typed in commands_in(path.read_text()):
        wrong = wrong_with(words, whole=typed or path.parent == RUNBOOKS)
        assert wrong is None, f"{path.name}: macrofleet {' '.join(words)}: {wrong}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("macrofleet fleet pim acme", "there is no pim"),
        ("macrofleet fleet show --jason", "--jason"),
        ("macrofleet report --tenant", "--tenant"),
        ("macrofleet tenants delete acme beta", "it takes no beta"),
        ("macrofleet flows deploy", "it lacks pool"),
    ],
)
def test_a_command_that_is_none_would_be_found(line: str, wrong: str) -> None:
    ((words, typed),) = commands_in(f"```sh\n{line}  # and why\n```")
    assert typed
    assert wrong in (wrong_with(words, whole=True) or "")


@pytest.mark.parametrize("path", [path for path in documents() if path.stem != "CHANGELOG"], ids=lambda path: path.stem)
def test_files_and_modules_in_documents_are_there(path: Path) -> None:
    """The changelog tells what once was."""
    text = path.read_text()
    for name in re.findall(r"`((?:benchmarks|flows|infra|registry|serving|tests|training)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name.startswith("infra/compose/secrets"), f"{path.name}: there is no {name}"
    for name in re.findall(r"python -m ((?:benchmarks|flows|infra|registry|serving|training)[\w.]*)", text):
        module = ROOT / name.replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), f"{path.name}: no {name}"


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        name, _, place = target.partition("#")
        document = path if not name else (path.parent / name)
        assert document.exists(), f"{path.name} links to {target}"
        if place:
            text = document.read_text()
            headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
            places = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert place in places | set(re.findall(r'<a id="([\w-]+)">', text)), target
