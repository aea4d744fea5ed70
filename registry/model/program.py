"""Programs at rest: what a program says of itself, its digest, and whether this process may execute it.

A program is code, so it is trusted, not just verified: a digest stands in the settings, or it is not loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from registry.documents import Document, sha256
from registry.errors import ProgramCorrupt, ProgramUntrusted
from registry.files import FileDigest, file_digest, put_immutable, put_immutable_file
from registry.layout import PROGRAM_FILES, program_key
from registry.store import ObjectStore

SPEC = "program.json"
# Differs between exports of the same module and is not needed to load one.
_LEFT_OUT = {"fingerprint.pb"}

# The programs of this release, by name; built by `macrofleet programs build`, which a test holds to these digests.
RELEASED_PROGRAMS: dict[str, str] = {
    "bag": "b5100bba57a20c67ab33dc9f582b8e79c7219cd336ecac77288bfe721162373d",
    "encoder": "0b35343a32ec5ec42bae29470b6bc430e285839c89c0b655e248a632a19c1411",
}

ProgramPath = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*){0,3}$", max_length=200)
]


class TensorSpec(Document):
    """Type and dimensions of one tensor: numbers are fixed, names are symbols that agree within a call."""

    dtype: Literal["string", "float32", "float16", "int8", "int32", "uint16"]
    shape: tuple[int | str, ...]


class Signature(Document):
    """A function of the program."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


class ProgramSpec(Document):
    """`program.json`: everything the runtime knows of a program.

    Attributes:
        name: family, for people and logs.
        scorer: the arithmetic of `score_*`, where the runtime may know a quicker equal of it.
        least_tensorflow: the least TensorFlow version that loads it.
        signatures: `featurise` and one `score_<precision>` or more. Inputs of a scoring function that are not outputs
            of `featurise` are a tenant's weights.
    """

    format: Literal[1] = 1
    name: str
    scorer: str | None = None
    least_tensorflow: str
    signatures: dict[str, Signature]

    @property
    def scoring(self) -> tuple[str, ...]:
        """The names of its scoring functions, one a precision."""
        return tuple(name for name in self.signatures if name.startswith("score_"))

    def weights(self, signature: str) -> dict[str, TensorSpec]:
        """The tensors a tenant's bundle must hold for a scoring signature."""
        features = self.signatures["featurise"].outputs
        return {name: spec for name, spec in self.signatures[signature].inputs.items() if name not in features}


class ProgramFiles(Document):
    """`files.json`: every file of a program; its digest is the program's."""

    format: Literal[1] = 1
    files: Annotated[dict[ProgramPath, FileDigest], Field(max_length=100)]


def read_spec(folder: Path) -> ProgramSpec:
    """What an exported program says of itself. Raises ProgramCorrupt."""
    try:
        return ProgramSpec.parse((folder / SPEC).read_bytes(), what=str(folder / SPEC), error=ProgramCorrupt)
    except OSError as problem:
        raise ProgramCorrupt(f"{folder / SPEC} cannot be read ({problem.strerror})") from None


def describe_files(folder: Path) -> ProgramFiles:
    """The file list of an exported program."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _LEFT_OUT)
    names = {path.relative_to(folder).as_posix(): path for path in paths if path.name != PROGRAM_FILES}
    return ProgramFiles(files={name: file_digest(path) for name, path in names.items()})


def program_digest(folder: Path) -> str:
    """The digest of an exported program: canonical over names and contents of its files."""
    return sha256(describe_files(folder).to_bytes())


def parse_program_files(data: bytes, *, digest: str, what: str) -> ProgramFiles:
    """Read a program's file list. Raises ProgramCorrupt when it is not the one that `digest` names."""
    if sha256(data) != digest:
        raise ProgramCorrupt(f"{what} does not have the digest {digest[:16]}…")
    files = ProgramFiles.parse(data, what=what, error=ProgramCorrupt)
    if SPEC not in files.files or "saved_model.pb" not in files.files:
        raise ProgramCorrupt(f"{what} names no {SPEC} or no saved_model.pb")
    return files


def named_programs(named: str | None) -> frozenset[str]:
    """The programs that `MACROFLEET_TRUSTED_PROGRAMS` names (digests with commas between them); else the released."""
    given = frozenset(filter(None, (digest.strip() for digest in (named or "").split(","))))
    return given or frozenset(RELEASED_PROGRAMS.values())


def check_trusted(digest: str, trusted: frozenset[str]) -> None:
    """Raises ProgramUntrusted unless `digest` may be executed here."""
    if digest not in trusted:
        raise ProgramUntrusted(
            f"program {digest[:16]}… is not trusted by this process",
            remedy="If you released it, add its digest to MACROFLEET_TRUSTED_PROGRAMS.",
        )


def publish_program(store: ObjectStore, folder: Path) -> str:
    """Write an exported program to the store, its file list last; again is harmless. Returns the digest."""
    listing = describe_files(folder)
    digest = sha256(listing.to_bytes())
    for name in listing.files:
        put_immutable_file(store, program_key(digest, name), folder / name)
    put_immutable(store, program_key(digest, PROGRAM_FILES), listing.to_bytes())
    return digest
