"""What a tenant's model is made of, part by part, as digests: the same inputs make the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry.catalogue import Catalogue
from registry.documents import Document, canonical_json, sha256
from registry.files import Digest
from training.examples import Example, fingerprint


class Inputs(Document):
    """Digests of what a model is made of.

    Attributes:
        data: the tickets, as far as training reads them.
        catalogue: which of the macros that were applied may be learned, their titles and their replies.
        program: the program, or those that are to be chosen from.
        settings: what else decides the outcome.
    """

    data: Digest
    catalogue: Digest
    program: Digest
    settings: Digest

    @property
    def digest(self) -> str:
        """Of all parts."""
        return sha256(self.to_bytes())

    def changed_since(self, before: Inputs) -> list[str]:
        """The parts that differ, by name."""
        return [name for name in Inputs.model_fields if getattr(self, name) != getattr(before, name)]


def inputs_of(
    examples: Sequence[Example],
    catalogue: Catalogue | None,
    *,
    programs: Mapping[str, str],
    settings: Mapping[str, str | int | float],
) -> Inputs:
    """The inputs of a model.

    Args:
        examples: in any order.
        programs: name to digest, of the one or of those that are to be chosen from.
        settings: all that goes into fitting, calibrating and choosing.
    """
    return Inputs(
        data=fingerprint(examples),
        catalogue=_catalogue_digest(examples, catalogue),
        program=sha256(canonical_json(dict(programs))),
        settings=sha256(canonical_json(dict(settings))),
    )


def _catalogue_digest(examples: Sequence[Example], catalogue: Catalogue | None) -> str:
    """Of what training reads of a catalogue: a macro that was never applied, or which groups see one, changes no model."""
    used = {macro for example in examples for macro in example.macro_ids}
    macros = catalogue.macros if catalogue else ()
    read = sorted([macro.id, macro.title, macro.reply] for macro in macros if macro.shared and macro.id in used)
    return sha256(canonical_json({"known": catalogue is not None, "macros": read}))
