"""A bundle: one tenant's model at rest. Data only: weights, the label table, and a manifest that names its program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from registry.documents import Document, sha256
from registry.errors import BundleCorrupt
from registry.files import Digest, FileDigest, file_digest
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.tensors import write_tensors
from registry.names import check_tenant

FORMAT = 1
MAX_LABEL_BYTES = 4 * 1024 * 1024
MAX_MANIFEST_BYTES = 1024 * 1024

MacroId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Title = Annotated[str, StringConstraints(max_length=512)]


class Label(Document):
    """What one column of the kernel stands for: a macro's id, and its title at training time."""

    id: MacroId
    title: Title


class Labels(Document):
    """The label table: index to macro."""

    macros: tuple[Label, ...]


class Manifest(Document):
    """What a model version is. Deterministic content only: its digest is the version's identity.

    Attributes:
        format: version of this layout.
        tenant: whose model it is; must match where it is found.
        program: digest of the program that featurises and scores.
        files: every other file of the bundle.
        data_fingerprint: digest over the examples it was fitted on.
        settings: what else decides the outcome (seed, epochs and the like).
        metrics: figures on held-out rows, as fractions.
        threshold: abstain when the best score is below it.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    tenant: str
    program: Digest
    files: dict[str, FileDigest]
    data_fingerprint: Digest
    settings: dict[str, str | int | float]
    metrics: dict[str, float]
    threshold: Annotated[float, Field(ge=0, le=1)]

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes."""
        return sha256(self.to_bytes())

    @property
    def version(self) -> str:
        """The model version: the first 16 hex digits of the digest."""
        return self.digest[:16]


def parse_manifest(data: bytes, *, tenant: str, digest: str | None, what: str) -> Manifest:
    """Read a manifest and check that it is the one that was asked for.

    Args:
        data: the file's bytes.
        tenant: whose it must be.
        digest: what its SHA-256 must be, where the fleet says so.
        what: where it came from, for messages.

    Raises:
        BundleCorrupt: another digest, another tenant, missing files, or not a manifest.
    """
    if digest is not None and sha256(data) != digest:
        raise BundleCorrupt(f"{what} does not have the digest {digest[:16]}… that the fleet names")
    manifest = Manifest.parse(data, what=what, error=BundleCorrupt)
    if manifest.to_bytes() != data:
        raise BundleCorrupt(f"{what} is not in canonical form")
    if manifest.tenant != tenant:
        raise BundleCorrupt(f"{what} belongs to another tenant")
    if set(manifest.files) != {WEIGHTS, LABELS}:
        raise BundleCorrupt(f"{what} must name exactly {WEIGHTS} and {LABELS}")
    return manifest


def parse_labels(data: bytes, *, what: str) -> Labels:
    """Read a label table; ids must be unique, and at least two. Raises BundleCorrupt."""
    labels = Labels.parse(data, what=what, error=BundleCorrupt)
    if len({label.id for label in labels.macros}) != len(labels.macros) or len(labels.macros) < 2:
        raise BundleCorrupt(f"{what} must name at least two macros, each once")
    return labels


def write_bundle(
    folder: Path,
    *,
    tenant: str,
    program: str,
    tensors: Mapping[str, NDArray[Any]],
    macros: Sequence[Label],
    data_fingerprint: str,
    settings: Mapping[str, str | int | float],
    metrics: Mapping[str, float],
    threshold: float,
) -> Manifest:
    """Write a model to an existing, empty folder, the manifest last.

    Returns:
        The manifest, whose `version` names the model from now on.
    """
    write_tensors(folder / WEIGHTS, tensors)
    (folder / LABELS).write_bytes(Labels(macros=tuple(macros)).to_bytes())
    manifest = Manifest(
        tenant=check_tenant(tenant),
        program=program,
        files={name: file_digest(folder / name) for name in (WEIGHTS, LABELS)},
        data_fingerprint=data_fingerprint,
        settings=dict(settings),
        metrics=dict(metrics),
        threshold=threshold,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return manifest
