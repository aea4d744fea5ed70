"""One tenant's road from the lake to the registry: assemble, fit, evaluate, publish, register. No Prefect in here."""

from __future__ import annotations

import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from flows.need import NO_WISH, Need, Wish, find_need, fit_settings, is_there, settle, unknown
from flows.rollout_settings import RolloutSettings
from flows.servers import HttpServers
from flows.settings import FlowSettings
from flows.staging import Promotion, Staging, held_reason
from registry.catalogue import Catalogue
from registry.disk_tier import DiskTier
from registry.errors import (
    BundleCorrupt,
    LeaseHeld,
    MacrofleetError,
    ModelNotFound,
    NotEnoughData,
    ProgramCorrupt,
    ProgramUntrusted,
    TenantNotFound,
)
from registry.fleet import FleetEntry, edit_fleet, in_threads, read_fleet
from registry.leases import Leases, this_process
from registry.names import check_tenant
from registry.program import RELEASED_PROGRAMS
from registry.publishing import publish_bundle, record_provenance
from registry.runtime import Program, limit_threads
from registry.settings import StoreSettings, read_settings
from registry.store import ObjectStore, open_store
from registry.tenant_settings import Weights, read_tenant_settings
from registry.tracking import Tracking
from training.baselines import tfidf
from training.choosing import ChoosingTrainer, TenantTrainer, programs_of
from training.evaluation import Judged, judge
from training.examples import Example
from training.folded_fit import featurise
from training.gate import Decision, decide
from training.lake import Lake
from training.programs.release import build_and_publish
from training.record import TrainingRecord, write_record
from training.settings import TrainingSettings
from training.trainer import Trained, Trainer

# The gate's baseline need not see all of a large tenant's rows to be one.
_BASELINE_ROWS = 20_000
_CHAMPION_BYTES = 1024**3
_ALIASES = {"trained": "champion"} | dict.fromkeys(("not_promoted", "waiting", "shadowed", "halted"), "challenger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one tenant.

    Attributes:
        state: "trained"; "not_promoted" (trained and registered, but the gate refused it); "held" (the same, but a
            roll-back holds another version); "waiting" (passed, and waits for a person to promote it); "shadowed" (is
            compared with what serves); "halted" (passed, but its roll-out was halted); "fenced" (trained, but a later run has
            published another version, or the tenant was deleted); "busy" (another run works on it); "unchanged" (not
            trained: nothing asks for it); "not_eligible" (too little data); "unknown" (no such tenant); "failed".
        reason: why it was not trained, or does not serve. Never an exception's text that is not ours, which could quote a ticket.
        why: why it was trained (new, or what changed), or what an earlier training came to is used.
        program_reason: why that program; empty where nothing was to be chosen.
        top1, top3: None where there were no rows to judge on.
        lease_token: of the lease that it was trained under.
    """

    tenant: str
    state: str
    reason: str = ""
    why: str = ""
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
    lease_token: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a first look at a tenant says.

    Attributes:
        outcome: its outcome where nothing is to be done; None where `Retraining.train` has something to do.
        programs: that it may be fitted for, where it is to be trained, and for that alone.
    """

    outcome: Outcome | None
    programs: tuple[str, ...] = ()


class Retraining:
    """Everything a training process holds: the store, MLflow, a loaded program and its trainer. One thread's own."""

    def __init__(
        self, store: ObjectStore, tracking: Tracking, settings: FlowSettings, rollout: RolloutSettings
    ) -> None:
        self._rollout = rollout
        self._store = store
        self._tracking = tracking
        self._settings = settings
        self._released = frozenset(RELEASED_PROGRAMS.values())
        # Beside the disk tier that programs go to, which a server may share: its models are not to make room for ours.
        self._champions = DiskTier(
            settings.disk_folder / "champions", store, trusted=self._released, budget_bytes=_CHAMPION_BYTES
        )
        self._programs: dict[str, Program] = {}
        self._trainers: dict[tuple[str, Weights], Trainer] = {}
        self._git_revision = _git_revision()
        self._leases = Leases(
            store, holder=this_process(), seconds=settings.lease_seconds, longest=settings.lease_longest_seconds
        )
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
        return cls(open_store(store), tracking, settings, read_settings(RolloutSettings))

    def prepare(self, programs: Iterable[str] | None = None) -> None:
        """Start what takes seconds: TensorFlow, programs (built and published where the store lacks one), MLflow.

        Args:
            programs: by name; None for what the settings name.
        """
        limit_threads()
        for name in programs_of(self._settings.program) if programs is None else programs:
            self._released_program(name)
        # A product of large matrices differs in its last bits by the number of threads, and a model's version with it.
        threadpool_limits(1)
        self._tracking.prepare()

    def prepare_for_others(self, programs: Iterable[str]) -> None:
        """Have in place what processes that train need and must not make at the same time: programs, MLflow's tables."""
        tier = DiskTier(self._settings.disk_folder, self._store, trusted=self._released)
        for name in programs:
            try:
                tier.install_program(RELEASED_PROGRAMS[name])
            except ProgramCorrupt:
                build_and_publish(name, self._store)
        self._tracking.prepare()

    def look(self, tenants: Sequence[str], *, wish: Wish) -> dict[str, Look]:
        """A first look at tenants, side by side: quick, needs nothing but the store, and changes nothing.

        A tenant that cannot be looked at is left to `train`, which says what is wrong with it.

        Raises:
            StoreError: the fleet cannot be read.
        """
        entries, now = read_fleet(self._store).entries, _utc_now()

        def one(tenant: str) -> Look:
            try:
                need = find_need(self._store, tenant, entries.get(tenant), self._settings, wish, now)
            except NotEnoughData as problem:
                return Look(outcome=failure(tenant, problem))
            except Exception:  # noqa: BLE001  # whatever it is, it is one tenant's
                return Look(outcome=None)
            trains = programs_of(need.tenant.settings.program) if need.why.action == "train" else ()
            return Look(outcome=_skipped(need) if need.why.action == "skip" else None, programs=trains)

        return dict(zip(tenants, in_threads(one, tenants), strict=True))

    def _trainer(self, name: str, settings: TrainingSettings) -> Trainer:
        """The trainer for a program and a type of weights, opened when first asked for."""
        key = (name, settings.weights)
        if key not in self._trainers:
            self._trainers[key] = Trainer(self._released_program(name), fit_settings(settings))
        return self._trainers[key]

    def _trainer_of(self, settings: TrainingSettings) -> TenantTrainer:
        """What trains a tenant of these settings."""
        names = programs_of(settings.program)
        if len(names) == 1:
            return self._trainer(names[0], settings)
        budget = self._settings.latency_budget_milliseconds
        return ChoosingTrainer({name: self._trainer(name, settings) for name in names}, budget_milliseconds=budget)

    def train(
        self,
        tenant: str,
        *,
        wish: Wish = NO_WISH,
        progress: Callable[[float], None] | None = None,
    ) -> Outcome:
        """Do for one tenant, under its lease, what is to be done, and record what came of it; the fleet is not touched yet.

        Args:
            progress: told the finished share of fitting.

        Raises:
            LeaseHeld: another run works on the tenant.
            LeaseLost: this one took too long, or could not renew its lease; another one may have replaced it.
            NotEnoughData: and everything else that can go wrong for one tenant.
        """
        # Before the lease, which would make a tenant of a name that nobody has.
        if not is_there(self._store, check_tenant(tenant)):
            raise unknown(self._store, tenant)
        with self._leases.hold(tenant) as lease:

            def told(share: float) -> None:
                lease.check()
                if progress is not None:
                    progress(share)

            return replace(self._work(tenant, wish, told), lease_token=lease.token)

    def _work(self, tenant: str, wish: Wish, progress: Callable[[float], None]) -> Outcome:
        started = _utc_now()
        entry = edit_fleet(self._store, [tenant], lambda found: found, write=False).before[tenant]
        need = find_need(self._store, tenant, entry, self._settings, wish, started)
        if need.why.action == "skip":
            return _skipped(need)
        if need.why.action == "settle":
            outcome = _earlier(need, force=wish.force)
            if outcome.state != need.record.state:
                self._record(need, outcome)
            return outcome
        try:
            outcome = self._train(need, started, force=wish.force, progress=progress)
        except Exception as problem:
            # What is wrong is what it was to say; a record that cannot be written leaves the last one, and another try.
            with suppress(MacrofleetError):
                self._record(need, failure(tenant, problem))
            raise
        self._record(need, outcome)
        return outcome

    def _record(self, need: Need, outcome: Outcome) -> None:
        """Write down what came of a training, over the record that was found before it. Raises PublishConflict."""
        record = TrainingRecord(
            state=outcome.state,
            reason=outcome.reason,
            inputs=need.inputs.digest,
            parts=need.inputs,
            version=outcome.version or None,
            manifest=outcome.manifest or None,
            program=outcome.program,
            examples=outcome.examples,
            macros=outcome.macros,
            top1=outcome.top1,
            top3=outcome.top3,
            finished_at=_utc_now(),
        )
        write_record(self._store, need.tenant.name, record, etag=need.found.etag)

    def _train(
        self, need: Need, started: datetime, *, force: bool, progress: Callable[[float], None] | None
    ) -> Outcome:
        """Train, publish and register, and have the gate decide.

        Every step can be repeated: the same data give the same version, which is published and registered once.

        Args:
            force: have it serve whatever the gate says; the outcome keeps the gate's reason.
        """
        began = time.perf_counter()
        tenant, catalogue, settings = need.tenant.name, need.tenant.catalogue, need.tenant.settings
        self.prepare(programs_of(settings.program))
        with tempfile.TemporaryDirectory(prefix="macrofleet-bundle-") as folder:
            trained = self._trainer_of(settings).train(
                tenant,
                need.tenant.examples,
                Path(folder),
                catalogue=catalogue,
                precision=settings.precision,
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
                "why": need.why.reason,
            },
        )
        decision = self._gate(trained, catalogue, need.entry)
        outcome = replace(_outcome(trained, seconds), why=need.why.reason)
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

    def _released_program(self, name: str) -> Program:
        """A program by name; built and published where the store lacks it."""
        digest = RELEASED_PROGRAMS[name]
        try:
            return self._program(digest)
        except ProgramCorrupt:
            build_and_publish(name, self._store)
            return self._program(digest)

    def _program(self, digest: str) -> Program:
        """A released program, loaded once. Raises ProgramCorrupt and ProgramUntrusted."""
        if digest not in self._programs:
            tier = DiskTier(self._settings.disk_folder, self._store, trusted=self._released)
            self._programs[digest] = Program(tier.install_program(digest), trusted=self._released)
        return self._programs[digest]

    def serve(
        self,
        outcomes: list[Outcome],
        *,
        force: bool = False,
    ) -> tuple[int, list[Outcome], list[str]]:
        """Have the fleet follow a run, in stages where the settings say so; then MLflow's aliases, which only follow.

        Args:
            force: no stages.

        Returns:
            The fleet's generation; the outcomes, "held" where the fleet holds another version than was trained, "fenced"
            where a later run was quicker, and whatever else kept it from serving; and what MLflow did not take: a rerun
            sets it.
        """
        servers = HttpServers(self._rollout.servers, key=self._rollout.operator_key)
        staging = Staging(
            self._store,
            self._rollout,
            servers=servers,
            promotion_of=self._promotion_of,
            exists=lambda tenant: is_there(self._store, tenant),
        )
        served = staging.serve(outcomes, force=force)
        warnings = []
        settled = [(o.tenant, o.manifest) for o in served.outcomes if o.state == "held"]
        for outcome in served.outcomes:
            alias = _ALIASES.get(outcome.state)
            if alias is not None and outcome.manifest:
                try:
                    self._tracking.set_alias(outcome.tenant, alias, manifest_digest=outcome.manifest)
                    settled.append((outcome.tenant, outcome.manifest))
                except MacrofleetError as problem:
                    what = "serves" if outcome.state == "trained" else "is trained"
                    warnings.append(
                        f"tenant {outcome.tenant} {what}, but MLflow's alias {alias} was not set: {problem}"
                    )
        return served.generation, served.outcomes, warnings + settle(self._store, settled)

    def _promotion_of(self, tenant: str) -> Promotion:
        return self._settings.overlaid(read_tenant_settings(self._store, tenant)).promotion


def _utc_now() -> datetime:
    return datetime.now(UTC)


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
    states = {LeaseHeld: "busy", NotEnoughData: "not_eligible", TenantNotFound: "unknown"}
    return Outcome(tenant=tenant, state=states.get(type(problem), "failed"), reason=str(problem))


def _earlier(need: Need, *, force: bool) -> Outcome:
    """What an earlier training came to, as this run's outcome: only the fleet and the alias are left to do."""
    record = need.record
    forced = force and record.state == "not_promoted"
    return replace(
        _recorded(need),
        state="trained" if forced else record.state,
        reason=need.why.reason if forced else record.reason,
        why="" if forced else need.why.reason,
    )


def _skipped(need: Need) -> Outcome:
    """The outcome of a tenant with nothing to do."""
    record = need.record
    if record.state == "not_eligible":
        return replace(_recorded(need), state=record.state, reason=record.reason)
    entry, reason = need.entry, need.why.reason
    if entry is not None and entry.hold_version and entry.manifest != record.manifest:
        reason = f"{reason}; {held_reason(need.tenant.name, entry)}"
    return replace(_recorded(need), state="unchanged", reason=reason)


def _recorded(need: Need) -> Outcome:
    record = need.record
    return Outcome(
        tenant=need.tenant.name,
        state=record.state,
        examples=record.examples,
        macros=record.macros,
        top1=record.top1,
        top3=record.top3,
        program=record.program,
        version=record.version or "",
        manifest=record.manifest or "",
    )


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
