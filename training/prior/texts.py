"""The sentences a prior is distilled on; whoever has the project installed has them all.

Requests that `training.prior.requests` makes, and the documentation inside botocore (Apache-2.0, which boto3 brings):
three hundred thousand sentences on accounts, payments, calls, devices, travel, health and what else is sold as a
service. No row of any labelled data set is among them.
"""

from __future__ import annotations

import gzip
import html
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.prior.requests import requests

_TAG, _SPACE, _END = re.compile(r"<[^>]+>"), re.compile(r"\s+"), re.compile(r"(?<=[.?!]) ")
_WORD = re.compile(r"[a-z]{3,}")
# The most usual words of a vocabulary in order of frequency are its first whole words, after signs and letters.
_FIRST_WORD, _LAST_WORD = 1996, 20_000
_LEAST_WORDS, _MOST_WORDS = 3, 16


def sentences(
    vocabulary: Sequence[str],
    *,
    number: int,
    made: int = 90_000,
    read: int = 45_000,
    services: str = "*",
    seed: int = 0,
) -> list[str]:
    """Sentences in chance order.

    Args:
        vocabulary: of the encoder.
        number: how many to draw of all.
        made: how many requests to make.
        read: how many sentences to draw from the documentation.
        services: whose documentation to read, as a pattern for names of folders.
    """
    words = [word for word in vocabulary[_FIRST_WORD:_LAST_WORD] if _WORD.fullmatch(word)]
    draw = random.Random(f"{seed} sentences")  # noqa: S311  # nothing is secret
    written = sorted(set(_documentation(services)))
    found = [*requests(made, seed=seed, words=words), *draw.sample(written, min(read, len(written)))]
    draw.shuffle(found)
    return found[:number]


def _documentation(services: str) -> Iterator[str]:
    import botocore

    for service in sorted((Path(botocore.__file__).parent / "data").glob(services)):
        versions = sorted(service.glob("*/service-2.json.gz"))
        if versions:
            with gzip.open(versions[-1]) as file:
                for text in _texts(json.load(file)):
                    plain = _SPACE.sub(" ", html.unescape(_TAG.sub(" ", text)))
                    for sentence in _END.split(plain):
                        if _LEAST_WORDS <= len(sentence.split()) <= _MOST_WORDS:
                            yield sentence.strip()


def _texts(node: Any) -> Iterator[str]:
    """Everything that a service description has to say in words."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "documentation" and isinstance(value, str):
                yield value
            else:
                yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
