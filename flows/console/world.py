"""What the console's pages ask: put together once, by `flows.console.app`, and given to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.console.acceptance import AcceptanceSource
from flows.console.cookies import Cookies
from flows.console.fleet_index import FleetIndex
from flows.console.prefect_rest import PrefectRest
from flows.console.rendering import Pages
from flows.console.servers import Servers
from flows.console.sessions import Sessions
from flows.console.tracked_view import TrackedSource
from flows.settings import FlowSettings
from registry.store import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What pages ask.

    Attributes:
        flow_settings: what tenants get that have no settings of their own.
        prefect: None where no server of Prefect's is named.
        metrics_tenants: whom metrics tell of by name.
        copy: the store's copy in another region.
    """

    store: ObjectStore
    index: FleetIndex
    servers: Servers
    sessions: Sessions
    cookies: Cookies
    tracked: TrackedSource
    acceptance: AcceptanceSource
    prefect: PrefectRest | None
    flow_settings: FlowSettings
    pages: Pages
    metrics_tenants: Sequence[str] = ()
    copy: ObjectStore | None = None
