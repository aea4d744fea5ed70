"""Looking for words in whatever a test has gathered: text, files, databases, and what is packed in them."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import polars as pl

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"


class Lines(logging.Handler):
    """Every record as a process would print it.

    Attributes:
        text: what was printed.
        printed_by: what formats records now; a server and a command have other formatters.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text: list[str] = []
        self.printed_by: logging.Formatter = logging.Formatter("%(name)s %(levelname)s %(message)s %(extra)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, and what was passed along."""
        record.extra = {
            name: value for name, value in record.__dict__.items() if name not in logging.makeLogRecord({}).__dict__
        }
        exc_text = record.exc_text  # of another handler's formatter
        record.exc_text = None
        self.text.append(self.printed_by.format(record))
        record.exc_text = exc_text


def spellings(word: str) -> list[bytes]:
    """A word as it may be written down; found whatever the case."""
    found = {word, quote(word), quote_plus(word), json.dumps(word)[1:-1]}
    return sorted({each.lower().encode() for each in found} | {word.lower().encode("utf-16-le")})


def found_in(words: Mapping[str, str], data: bytes) -> list[str]:
    """The names of those words that are in there, packed or not."""
    names = {each: name for name, word in words.items() for each in spellings(word)}
    # At once: a model has ten million bytes, and there are dozens of spellings.
    any_of = re.compile(b"|".join(map(re.escape, names)))
    return sorted({names[found] for layer in _layers(data) for found in any_of.findall(layer.lower())})


def files_below(folder: Path, *, but: Callable[[str], bool] = lambda _: False) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, by its path in it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not but(name):
            yield name, path.read_bytes()


def leaks(words: Mapping[str, str], surfaces: Iterable[tuple[str, bytes]]) -> list[str]:
    """What was found where."""
    return [f"{name} in {where}" for where, data in surfaces for name in found_in(words, data)]


def _layers(data: bytes) -> Iterator[bytes]:
    yield data
    if data.startswith(_GZIP):
        yield gzip.decompress(data)
    elif data[:1] == b"\x78":
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return
    elif data.startswith(_PARQUET):
        yield pl.read_parquet(io.BytesIO(data)).write_ndjson().encode()
