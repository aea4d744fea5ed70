"""What an operator asks of this replica: which models it has, to load or unload one, and to read the fleet now."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from registry.errors import OutOfResources
from serving.engine.cache import ModelCache
from serving.engine.model_status import ModelStatus
from serving.engine.models import ServedModel
from serving.fleet_watch import FleetWatch
from serving.metrics import Metrics
from serving.threads import Workers
from serving.trials.shadows import ShadowReport, Shadows


class Controls:
    """Looks at and moves what is in memory, within what the fleet names. Owned by one event loop; has no state.

    Args:
        watch: the fleet.
        cache: models that serve.
        shadows: models that are compared with those.
        pages: the one thread that gives evicted models' pages back.
        metrics: hears how long an unload took.
    """

    def __init__(
        self,
        watch: FleetWatch,
        cache: ModelCache[ServedModel],
        shadows: Shadows,
        *,
        pages: Workers,
        metrics: Metrics,
    ) -> None:
        self._watch = watch
        self._cache = cache
        self._shadows = shadows
        self._pages = pages
        self._metrics = metrics

    def models(self) -> list[ModelStatus]:
        """Every tenant's model, in the order of tenants."""
        return self.models_of(self._watch.fleet.entries if self._watch.fleet else ())

    def models_after(self, tenant: str, *, state: str | None) -> Iterator[ModelStatus]:
        """Those of the tenants that come after a name, each looked at as it is asked for: all of a fleet take 20 ms.

        Args:
            state: of the models; None is any.
        """
        fleet = self._watch.fleet
        if state in (None, "absent"):
            known: Iterable[str] = fleet.entries if fleet else ()
        else:
            known = self._cache.tenants()
        later = sorted(name for name in known if name > tenant)
        found = (self.model(name) for name in later if self._watch.serves(name))
        return (each for each in found if state in (None, each.state))

    def models_of(self, tenants: Iterable[str]) -> list[ModelStatus]:
        """The same of those of these tenants that have a model."""
        return [self.model(tenant) for tenant in sorted(tenants) if self._watch.serves(tenant)]

    def model(self, tenant: str) -> ModelStatus:
        """One tenant's model. Raises TenantNotFound, ModelNotFound and NotReady like `Answering.answer`."""
        return self._cache.status(self._watch.wanted(tenant))

    def shadow(self, tenant: str) -> ShadowReport | None:
        """What is known of a tenant's shadow; None where the fleet names none."""
        return self._shadows.report(tenant)

    async def load_model(self, tenant: str) -> ModelStatus:
        """Have a tenant's model in memory. Raises what a load raises; OutOfResources where busier ones leave it no room."""
        await self._cache.renew(tenant)
        found = self.model(tenant)
        if found.serving_version is None:
            self._metrics.refused("out_of_resources")
            raise OutOfResources("the models in memory are busier", remedy="Pin it: `macrofleet fleet pin`.")
        return found

    async def unload_model(self, tenant: str) -> None:
        """Let go of a tenant's model and its shadow; done when their memory is free. The next request loads them again.

        Raises:
            TenantNotFound, ModelNotFound, NotReady: see `Answering.answer`.
        """
        self._watch.wanted(tenant)
        began = time.monotonic()
        await self._cache.unload(tenant)
        await self._shadows.unload(tenant)
        await self._pages.run(_pages_are_back)  # after the giving back that the unload began: the thread is but one
        self._metrics.phase("unload", time.monotonic() - began)

    async def refresh_fleet(self) -> int:
        """Read the fleet now, and start to follow it. Returns its generation. Raises StoreError."""
        return (await self._watch.refresh()).generation


def _pages_are_back() -> None:
    pass
