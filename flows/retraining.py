"""One tenant's road from the lake to the registry: assemble, fit, evaluate, publish, register. No Prefect in here."""

from __future__ import annotations

import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.settings import FlowSettings
from registry.catalogue import Catalogue, read_catalogue
from registry.disk_tier import DiskTier
from registry.errors import (
    BundleCorrupt,
    MacrofleetError,
    ModelNotFound,
    NotEnoughData,
    ProgramCorrupt,
    ProgramUntrusted,
    TenantNotFound,
)
from registry.fleet import Change, FleetEntry, edit_fleet, read_fleet
from registry.names import check_tenant
from registry.program import RELEASED_PROGRAMS
from registry.publishing import publish_bundle, record_provenance
from registry.runtime import Program, limit_threads
from registry.settings import StoreSettings, read_settings
from registry.store import ObjectStore, open_store
from registry.tracking import Tracking
from training.baselines import tfidf
from training.choosing import ChoosingTrainer, TenantTrainer, programs_of
from training.evaluation import Judged, judge
from training.examples import Example
from training.folded_fit import featurise
from training.gate import Decision, decide
from training.lake import Lake
from training.programs.release import build_and_publish
from training.trainer import Trained, Trainer

# What callers of the API are told; the run's own report says more.
_FAILED = "the last training run failed"
_NOT_PROMOTED = "the last trained model was not good enough to serve"
# The gate's baseline need not see all of a large tenant's rows to be one.
_BASELINE_ROWS = 20_000
_CHAMPION_BYTES = 1024**3
_REASONS = {"failed": _FAILED, "not_promoted": _NOT_PROMOTED}
_ALIASES = {"trained": "champion", "not_promoted": "challenger"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one tenant.

    Attributes:
        state: "trained"; "not_promoted" (trained and registered, but the gate refused it); "held" (the same, but a
            roll-back holds another version); "not_eligible" (too little data); "unknown" (no such tenant); "failed".
        reason: why it was not trained, or does not serve. Never an exception's text that is not ours, which could quote a ticket.
        program_reason: why that program; empty where nothing was to be chosen.
        top1, top3: None where there were no rows to judge on.
    """

    tenant: str
    state: str
    reason: str = ""
    examples: int = 0
    macros: int = 0
    top1: float | None = None
    top3: float | None = None
    fit_seconds: float = 0.0
    model_bytes: int = 0
    program: str = ""
    program_reason: str = ""
    version: str = ""
    manifest: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


class Retraining:
    """Everything a training process holds: the store, MLflow, a loaded program and its trainer. One thread's own."""

    def __init__(self, store: ObjectStore, tracking: Tracking, settings: FlowSettings) -> None:
        self._store = store
        self._tracking = tracking
        self._settings = settings
        self._released = frozenset(RELEASED_PROGRAMS.values())
        # Beside the disk tier that programs go to, which a server may share: its models are not to make room for ours.
        self._champions = DiskTier(
            settings.disk_folder / "champions", store, trusted=self._released, budget_bytes=_CHAMPION_BYTES
        )
        self._programs: dict[str, Program] = {}
        self._trainers: dict[str, Trainer] = {}
        self._git_revision = _git_revision()
        self.lake = Lake(store)

    @classmethod
    def from_environment(cls) -> Retraining:
        """Compose one from `MACROFLEET_…`; nothing is connected to yet."""
        settings, store = read_settings(FlowSettings), read_settings(StoreSettings)
        tracking = Tracking(
            tracking_uri=settings.tracking_uri,
            store=store,
            experiment=settings.experiment,
            artifact_location=settings.artifact_location,
        )
        return cls(open_store(store), tracking, settings)

    def prepare(self) -> None:
        """Start what takes seconds: TensorFlow, the program (built and published where the store lacks it), MLflow."""
        limit_threads()
        for name in programs_of(self._settings.program):
            self._trainer(name)
        self._tracking.prepare()
        self.forget_tenants()

    def forget_tenants(self) -> None:
        """Remove this machine's copies of champions whose tenants have left the fleet: they may have been deleted."""
        fleet = read_fleet(self._store)
        if fleet.generation:
            self._champions.retain(fleet.entries.__contains__)

    def _trainer(self, name: str) -> Trainer:
        """The trainer for a program, opened when first asked for."""
        if name not in self._trainers:
            digest = RELEASED_PROGRAMS[name]
            try:
                program = self._program(digest)
            except ProgramCorrupt:
                build_and_publish(name, self._store)
                program = self._program(digest)
            self._trainers[name] = Trainer(program)
        return self._trainers[name]

    def _trainer_of(self, tenant: str) -> TenantTrainer:
        """What trains a tenant, by its program or the one of all."""
        names = programs_of(self._settings.programs.get(tenant, self._settings.program))
        if len(names) == 1:
            return self._trainer(names[0])
        budget = self._settings.latency_budget_milliseconds
        return ChoosingTrainer({name: self._trainer(name) for name in names}, budget_milliseconds=budget)

    def train(
        self,
        tenant: str,
        *,
        force: bool = False,
        precision: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Outcome:
        """Train, publish and register one tenant, and have the gate decide; the fleet is not touched yet.

        Every step can be repeated: the same data give the same version, which is published and registered once.

        Args:
            force: have it serve whatever the gate says; the outcome keeps the gate's reason.
            precision: that the threshold is chosen for; by default the tenant's, else the settings'.
            progress: told the finished share of fitting.

        Raises:
            NotEnoughData: and everything else that can go wrong for one tenant.
        """
        began, started = time.perf_counter(), datetime.now(UTC)
        check_tenant(tenant)
        entry = edit_fleet(self._store, [tenant], lambda found: found, write=False).before[tenant]
        examples = self.lake.read(tenant)
        found = read_catalogue(self._store, tenant)
        catalogue = found[0] if found else None
        if not examples and found is None:
            raise TenantNotFound(
                f"tenant {tenant} has no tickets and no macros in {self._store.url}",
                remedy="Check the name, or import its tickets: macrofleet tickets import.",
            )
        with tempfile.TemporaryDirectory(prefix="macrofleet-bundle-") as folder:
            trained = self._trainer_of(tenant).train(
                tenant,
                examples,
                Path(folder),
                catalogue=catalogue,
                precision=precision or (entry and entry.precision) or self._settings.precision,
                progress=progress,
            )
            manifest = publish_bundle(self._store, Path(folder), tenant=tenant)
        registration = self._tracking.register(
            manifest,
            parameters={"examples": trained.examples, "macros": trained.macros},
            tags={},
            git_revision=self._git_revision,
        )
        seconds = time.perf_counter() - began
        record_provenance(
            self._store,
            tenant=tenant,
            version=manifest.version,
            provenance={
                "created_at": started.isoformat(),
                "fit_seconds": round(trained.fit_seconds, 3),
                "git_revision": self._git_revision,
                "mlflow_run_id": registration.run_id,
                "mlflow_version": registration.version,
                "program": trained.program,
                "program_reason": trained.program_reason,
                "python": platform.python_version(),
                "seconds": round(seconds, 3),
            },
        )
        decision = self._gate(trained, catalogue, entry)
        outcome = _outcome(trained, seconds)
        if decision.promote:
            return outcome
        if force:
            return replace(outcome, reason=f"promoted by force: {decision.reason}")
        return replace(outcome, state="not_promoted", reason=decision.reason)

    def _gate(self, trained: Trained, catalogue: Catalogue | None, entry: FleetEntry | None) -> Decision:
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

    def _champion(self, tenant: str, entry: FleetEntry | None, test: Sequence[Example]) -> Judged | None:
        """What the model that serves says of the rows; None where there is none, or one that cannot be opened."""
        if entry is None or entry.version is None or entry.manifest is None or not test:
            return None
        try:
            mapped = self._champions.open_model(tenant, entry.version, entry.manifest)
            # A champion may be of another program than its challenger.
            program = self._program(mapped.manifest.program)
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

    def _program(self, digest: str) -> Program:
        """A released program, loaded once. Raises ProgramCorrupt and ProgramUntrusted."""
        if digest not in self._programs:
            tier = DiskTier(self._settings.disk_folder, self._store, trusted=self._released)
            self._programs[digest] = Program(tier.install_program(digest), trusted=self._released)
        return self._programs[digest]

    def serve(self, outcomes: list[Outcome]) -> tuple[int, list[Outcome], list[str]]:
        """One write of the fleet for a whole run; then MLflow's aliases, which only follow.

        Returns:
            The fleet's generation; the outcomes, "held" where the fleet holds another version than was trained; and
            what MLflow did not take: a rerun sets it.
        """
        changes: dict[str, Change] = {}
        for outcome in outcomes:
            if outcome.state == "trained":
                changes[outcome.tenant] = _serving(outcome.version, outcome.manifest)
            elif outcome.state == "not_eligible":
                changes[outcome.tenant] = _not_serving(outcome.reason)
            elif outcome.state in _REASONS:
                changes[outcome.tenant] = _not_serving(_REASONS[outcome.state])

        def edit(found: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
            return {tenant: changes[tenant](entry) for tenant, entry in found.items()}

        edited = edit_fleet(self._store, changes, edit)
        served = [_held(outcome, edited.after.get(outcome.tenant)) for outcome in outcomes]
        warnings = []
        for outcome in served:
            alias = _ALIASES.get(outcome.state)
            if alias is not None:
                try:
                    self._tracking.set_alias(outcome.tenant, alias, manifest_digest=outcome.manifest)
                except MacrofleetError as problem:
                    what = "serves" if outcome.state == "trained" else "is trained"
                    warnings.append(
                        f"tenant {outcome.tenant} {what}, but MLflow's alias {alias} was not set: {problem}"
                    )
        return edited.generation, served, warnings


def _git_revision() -> str | None:
    """The revision of this code where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def failure(tenant: str, problem: Exception) -> Outcome:
    """The outcome of a tenant that could not be trained."""
    if not isinstance(problem, MacrofleetError):
        return Outcome(tenant=tenant, state="failed", reason=f"{type(problem).__name__}; where is in this run's log")
    states = {NotEnoughData: "not_eligible", TenantNotFound: "unknown"}
    return Outcome(tenant=tenant, state=states.get(type(problem), "failed"), reason=str(problem))


def _outcome(trained: Trained, seconds: float) -> Outcome:
    manifest = trained.manifest
    return Outcome(
        tenant=manifest.tenant,
        state="trained",
        examples=trained.examples,
        macros=trained.macros,
        top1=trained.evaluation.top1,
        top3=trained.evaluation.top3,
        fit_seconds=round(trained.fit_seconds, 3),
        model_bytes=sum(file.size for file in manifest.files.values()),
        program=trained.program,
        program_reason=trained.program_reason,
        version=manifest.version,
        manifest=manifest.digest,
        seconds=round(seconds, 3),
    )


def _held(outcome: Outcome, entry: FleetEntry | None) -> Outcome:
    """The outcome after the fleet was written."""
    if outcome.state != "trained" or entry is None or entry.manifest == outcome.manifest:
        return outcome
    reason = f"the fleet holds version {entry.version}: macrofleet fleet rollback {outcome.tenant} --release lifts that"
    return replace(outcome, state="held", reason=reason)


def _serving(version: str, manifest: str) -> Change:
    return lambda entry: (entry or FleetEntry()).published(version, manifest)


def _not_serving(reason: str) -> Change:
    def change(entry: FleetEntry | None) -> FleetEntry:
        # A model that serves goes on serving: too little new data is no reason to take it away.
        before = entry or FleetEntry()
        return before if before.serves else before.model_copy(update={"reason": reason})

    return change
