"""The gate of a tenant that was trained: its new model against the one that serves, and against a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flows.settings import FlowSettings
from flows.trainers import Trainers
from registry.catalogue import Catalogue
from registry.disk.tier import DiskTier
from registry.errors import BundleCorrupt, ModelNotFound, ProgramCorrupt, ProgramUntrusted
from registry.fleet.state import FleetEntry
from registry.store import ObjectStore
from training.baselines import tfidf
from training.evaluation import Judged, judge
from training.examples import Example
from training.folded_fit import featurise
from training.gate import Decision, decide
from training.trainer import Trained

# The gate's baseline need not see all of a large tenant's rows to be one.
_BASELINE_ROWS = 20_000
_CHAMPION_BYTES = 1024**3


class Judge:
    """Judges new models.

    Args:
        settings: where models that serve go on this machine.
        trainers: whose programs score.
    """

    def __init__(self, store: ObjectStore, settings: FlowSettings, trainers: Trainers) -> None:
        self._trainers = trainers
        # Beside the disk tier that programs go to, which a server may share: its models are not to make room for ours.
        self._champions = DiskTier(
            settings.disk_folder / "champions", store, trusted=trainers.trusted, budget_bytes=_CHAMPION_BYTES
        )

    def judge(self, trained: Trained, catalogue: Catalogue | None, entry: FleetEntry | None) -> Decision:
        """Compare with what serves and with the baseline, on the rows that the new model was tested on."""
        manifest = trained.manifest
        if entry is not None and entry.manifest == manifest.digest:
            return Decision(reasons=())  # it serves already
        applied = {row.macro_id for row in trained.test if row.macro_id is not None}
        active = {macro.id for macro in catalogue.macros if macro.active} if catalogue else applied
        fitted = trained.fitted[-_BASELINE_ROWS:]
        baselines = {"tfidf": tfidf(fitted, trained.test)} if trained.evaluation.rows else {}
        return decide(
            trained.judged,
            champion=self._champion(manifest.tenant, entry, trained.test),
            baselines=baselines,
            retired=frozenset(applied - active),
        )

    def retain(self, wanted: Callable[[str], bool]) -> None:
        """Remove this machine's copies of models of all other tenants. Raises StoreError."""
        self._champions.retain(wanted)

    def _champion(self, tenant: str, entry: FleetEntry | None, test: Sequence[Example]) -> Judged | None:
        """What the model that serves says of the rows; None where there is none, or one that cannot be opened."""
        if entry is None or entry.version is None or entry.manifest is None or not test:
            return None
        try:
            mapped = self._champions.open_model(tenant, entry.version, entry.manifest)
            # A champion may be of another program than its challenger.
            program = self._trainers.program(mapped.manifest.program)
            model = program.bind(mapped)
        except (BundleCorrupt, ModelNotFound, ProgramCorrupt, ProgramUntrusted):
            # What does not open serves nobody; it is no reason to keep its successor away.
            return None
        return judge(
            model.score(featurise(program, [example.text for example in test])),
            [example.macro_id for example in test],
            [label.id for label in model.labels],
            threshold=model.manifest.threshold,
        )
