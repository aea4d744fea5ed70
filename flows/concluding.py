"""The end of a run: the fleet follows what was trained, and MLflow follows the fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flows.need import last_token, settle
from flows.outcome import Outcome
from flows.rollout_settings import RolloutSettings
from flows.servers import HttpServers
from flows.settings import FlowSettings
from flows.staging import Promotion, Staging
from registry.errors import MacrofleetError
from registry.store import ObjectStore
from registry.tenant_settings import read_tenant_settings
from registry.tracking.models import Tracking

_ALIASES = {"trained": "champion"} | dict.fromkeys(("not_promoted", "waiting", "shadowed", "halted"), "challenger")


class Conclusion:
    """Has the fleet and MLflow follow runs."""

    def __init__(
        self, store: ObjectStore, tracking: Tracking, settings: FlowSettings, rollout: RolloutSettings
    ) -> None:
        self._store = store
        self._tracking = tracking
        self._settings = settings
        self._rollout = rollout

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
            last_token=lambda tenant: last_token(self._store, tenant),
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

    def close(self, name: str, outcomes: Sequence[Outcome], *, failed: bool = False) -> list[str]:
        """Have MLflow say how many tenants of a run ended how; what it did not take is returned, as a warning.

        Where no model was registered no run was opened, and MLflow is not asked.
        """
        figures = Counter(f"tenants_{outcome.state}" for outcome in outcomes)
        try:
            self._tracking.runs.finish(name, figures=figures, failed=failed)
        except MacrofleetError as problem:
            return [f"MLflow's run {name} of the fleet was not closed: {problem}"]
        return []

    def _promotion_of(self, tenant: str) -> Promotion:
        return self._settings.overlaid(read_tenant_settings(self._store, tenant)).promotion
