"""One tenant's road from the lake to the registry: assemble, fit, evaluate, publish, register. No Prefect in here."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from threadpoolctl import threadpool_limits

from flows.concluding import Conclusion
from flows.judging import Judge
from flows.need import NO_WISH, Need, Wish, find_need, is_there, unknown
from flows.outcome import Outcome, failure, trained_outcome
from flows.rollout_settings import RolloutSettings
from flows.settings import FlowSettings
from flows.trainers import Trainers
from flows.untrained import earlier, skipped
from registry.deletion.places import forget_own
from registry.deletion.tombstones import unless_deleted
from registry.errors import MacrofleetError, NotEnoughData, StoreError
from registry.files import scratch_folder
from registry.fleet.state import edit_fleet, in_threads, read_fleet
from registry.leases import Lease, Leases, this_process
from registry.model.runtime import limit_threads
from registry.names import check_tenant
from registry.publishing import publish_bundle, record_provenance
from registry.settings import StoreSettings, read_settings
from registry.store import ObjectStore, open_store
from registry.tracking.deletion import TrackingPlace
from registry.tracking.models import Tracking
from training.choosing import programs_of
from training.evaluation import macro_table
from training.lake import Lake
from training.record import TrainingRecord, write_record

# Of which a version's provenance has figures: those that were applied most.
MOST_MACROS = 500


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
        self._store = store
        self._tracking = tracking
        self._settings = settings
        self._trainers = Trainers(store, settings)
        self._judge = Judge(store, settings, self._trainers)
        self._conclusion = Conclusion(store, tracking, settings, rollout)
        self._git_revision = _git_revision()
        self._leases = Leases(
            store, holder=this_process(), seconds=settings.lease_seconds, longest=settings.lease_longest_seconds
        )
        self.lake = Lake(store)

    @classmethod
    def from_environment(cls) -> Retraining:
        """Compose one from `MACROFLEET_…`; nothing is connected to yet."""
        settings, store = read_settings(FlowSettings), read_settings(StoreSettings)
        tracking = Tracking.from_settings(settings, store)
        return cls(open_store(store), tracking, settings, read_settings(RolloutSettings))

    def prepare(self, programs: Iterable[str] | None = None) -> None:
        """Start what takes seconds: TensorFlow, programs (built and published where the store lacks one), MLflow.

        Args:
            programs: by name; None for what the settings name.
        """
        limit_threads()
        for name in programs_of(self._settings.program) if programs is None else programs:
            self._trainers.released(name)
        # A product of large matrices differs in its last bits by the number of threads, and a model's version with it.
        threadpool_limits(1)
        self._tracking.prepare()

    def prepare_for_others(self, programs: Iterable[str]) -> None:
        """Have in place what processes that train need and must not make at the same time: programs, MLflow's tables."""
        self._trainers.install(programs)
        self._tracking.prepare()

    def look(self, tenants: Sequence[str], *, wish: Wish) -> dict[str, Look]:
        """A first look at tenants, side by side: quick, needs nothing but the store, and changes nothing there.

        This machine's copies of champions whose tenants have left the fleet are removed: they may have been deleted.

        A tenant that cannot be looked at is left to `train`, which says what is wrong with it.

        Raises:
            StoreError: the fleet cannot be read.
        """
        fleet, now = read_fleet(self._store), _utc_now()
        entries = fleet.entries
        if fleet.generation:  # a store without a fleet is the wrong one
            with suppress(StoreError):
                self._judge.retain(entries.__contains__)

        def one(tenant: str) -> Look:
            try:
                need = find_need(self._store, tenant, entries.get(tenant), self._settings, wish, now)
            except NotEnoughData as problem:
                return Look(outcome=failure(tenant, problem))
            except Exception:  # noqa: BLE001  # whatever it is, it is one tenant's
                return Look(outcome=None)
            trains = programs_of(need.tenant.settings.program) if need.why.action == "train" else ()
            return Look(outcome=skipped(need) if need.why.action == "skip" else None, programs=trains)

        return dict(zip(tenants, in_threads(one, tenants), strict=True))

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
            TenantDeleted: it was deleted meanwhile; nothing of what was done for it is left.
            NotEnoughData: and everything else that can go wrong for one tenant.
        """
        # Before the lease, which would make a tenant of a name that nobody has.
        if not is_there(self._store, check_tenant(tenant)):
            raise unknown(self._store, tenant)
        with (
            unless_deleted(self._store, tenant, lambda: self._leave_nothing(tenant)),
            self._leases.hold(tenant) as lease,
        ):

            def told(share: float) -> None:
                lease.check()
                if progress is not None:
                    progress(share)

            return replace(self._work(lease, wish, told), lease_token=lease.token)

    def _leave_nothing(self, tenant: str) -> None:
        """Remove what a training may have written for a tenant that was deleted meanwhile."""
        forget_own(self._store, tenant)
        TrackingPlace(self._tracking).remove(tenant)
        self._judge.retain(lambda other: other != tenant)

    def _work(self, lease: Lease, wish: Wish, progress: Callable[[float], None]) -> Outcome:
        tenant, started = lease.tenant, _utc_now()
        entry = edit_fleet(self._store, [tenant], lambda found: found, write=False).before[tenant]
        need = find_need(self._store, tenant, entry, self._settings, wish, started)
        if need.why.action == "skip":
            return skipped(need)
        if need.why.action == "settle":
            outcome = earlier(need, force=wish.force)
            if outcome.state != need.record.state:
                self._record(lease, need, outcome)
            return outcome
        try:
            outcome = self._train(need, started, wish, progress)
        except Exception as problem:
            # What is wrong is what it was to say; a record that cannot be written leaves the last one, and another try.
            with suppress(MacrofleetError):
                self._record(lease, need, failure(tenant, problem))
            raise
        self._record(lease, need, outcome)
        return outcome

    def _record(self, lease: Lease, need: Need, outcome: Outcome) -> None:
        """Write down what came of a training, over the record that was found before it.

        Raises:
            LeaseLost: whoever took the tenant over writes down what comes of that, and must find the record as it was.
            PublishConflict: it is another one by now.
        """
        lease.check()
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

    def _train(self, need: Need, started: datetime, wish: Wish, progress: Callable[[float], None]) -> Outcome:
        """Train, publish and register, and have the gate decide.

        Every step can be repeated: the same data give the same version, which is published and registered once.
        What is forced serves whatever the gate says; the outcome keeps the gate's reason.
        """
        began = time.perf_counter()
        tenant, catalogue, settings = need.tenant.name, need.tenant.catalogue, need.tenant.settings
        self.prepare(programs_of(settings.program))
        with scratch_folder("macrofleet-bundle-") as folder:
            trained = self._trainers.of(settings).train(
                tenant,
                need.tenant.examples,
                folder,
                catalogue=catalogue,
                precision=settings.precision,
                progress=progress,
            )
            # Whoever was cut off until the lease ran out has been replaced: no second version comes of its work.
            progress(1.0)
            manifest = publish_bundle(self._store, folder, tenant=tenant)
        progress(1.0)
        registration = self._tracking.register(
            manifest,
            parameters={"examples": trained.examples, "macros": trained.macros},
            tags={},
            git_revision=self._git_revision,
            fleet_run=wish.fleet_run,
        )
        seconds = time.perf_counter() - began
        record_provenance(
            self._store,
            tenant=tenant,
            version=manifest.version,
            provenance={
                "by_macro": macro_table(trained.judged)[:MOST_MACROS],
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
        decision = self._judge.judge(trained, catalogue, need.entry)
        outcome = trained_outcome(trained, seconds, why=need.why.reason)
        if decision.promote:
            return outcome
        if wish.force:
            return replace(outcome, reason=f"promoted by force: {decision.reason}")
        return replace(outcome, state="not_promoted", reason=decision.reason)

    def serve(
        self,
        outcomes: list[Outcome],
        *,
        force: bool = False,
    ) -> tuple[int, list[Outcome], list[str]]:
        """Have the fleet follow a run, then MLflow: see `flows.concluding.Conclusion.serve`."""
        return self._conclusion.serve(outcomes, force=force)

    def close_fleet_run(self, name: str, outcomes: Sequence[Outcome], *, failed: bool = False) -> list[str]:
        """Close a run of the fleet in MLflow: see `flows.concluding.Conclusion.close`."""
        return self._conclusion.close(name, outcomes, failed=failed)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _git_revision() -> str | None:
    """The revision of this code where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
