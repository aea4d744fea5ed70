"""Who runs which flow, by what the flow has to be allowed in the object store: an identity is a role of `infra/aws`, a service
account of `infra/kubernetes` and a set of keys in `infra/compose.yaml`, and has a work pool of its own.

`tests/infra/test_flow_rights.py` runs every flow as its identity, against a store that refuses, and holds that none could run
with less.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Identity(StrEnum):
    """Who a worker is.

    Attributes:
        TRAINING: writes models, lake, fleet and records of runs.
        OPERATIONS: keys, tombstones and what collectors say to each other, too.
        COPIER: reads the home store and writes its copy.
    """

    TRAINING = "training"
    OPERATIONS = "operations"
    COPIER = "copier"


# By the flow's name; all others are training's.
_MORE = {
    # Writes `garbage/`, by which collectors and copiers keep out of each other's way.
    "collect_garbage": Identity.OPERATIONS,
    # Writes `deleted/` and `access/`, and has the database of keys.
    "delete_tenant": Identity.OPERATIONS,
    "copy_region": Identity.COPIER,
}


def identity_of(flow: str) -> Identity:
    """Whose a flow is, by its name."""
    return _MORE.get(flow, Identity.TRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """The work pool of each identity.

    Attributes:
        training: of those that train; of everybody, where no other is named.
        operations: of what only operations may do.
        copier: of what copies to another region; operations' where none is named, who then needs keys of the copy's store.

    Example:
        >>> Pools(training="macrofleet", operations="macrofleet-operations").of("delete_tenant")
        'macrofleet-operations'
    """

    training: str
    operations: str | None = None
    copier: str | None = None

    def of(self, flow: str) -> str:
        """The pool that a flow's runs go to, by the flow's name."""
        beyond = self.operations or self.training
        match identity_of(flow):
            case Identity.TRAINING:
                return self.training
            case Identity.OPERATIONS:
                return beyond
            case Identity.COPIER:
                return self.copier or beyond

    @property
    def names(self) -> list[str]:
        """Every pool once."""
        return sorted({self.training, *filter(None, (self.operations, self.copier))})
