"""A synchronisation with Zendesk as commands and flows start it: credentials from the environment, the address checked."""

from __future__ import annotations

from registry.deletion.places import forget_own
from registry.deletion.tombstones import lift, refuse_deleted, unless_deleted
from registry.errors import InvalidInput
from registry.names import check_tenant
from registry.settings import read_settings
from registry.store import ObjectStore
from training.connectors.address import help_desk_address
from training.connectors.client import HelpDesk
from training.connectors.pace import Pace
from training.connectors.settings import ZendeskSettings
from training.connectors.sync_state import SyncStore
from training.connectors.zendesk import DOMAIN, EXPORT_RATE, credentials
from training.connectors.zendesk_sync import Step, SyncOptions, SyncReport, ZendeskSync


def sync_zendesk(
    store: ObjectStore,
    tenant: str,
    *,
    subdomain: str,
    options: SyncOptions,
    step: Step,
    export_rate: float = EXPORT_RATE,
    restart: bool = False,
    base_url: str | None = None,
    allow_http: bool = False,
) -> SyncReport:
    """Bring a Zendesk account's macros and labelled tickets to a tenant.

    Args:
        export_rate: requests a minute to the incremental exports; 0 for no limit.
        restart: forget how far earlier runs came; a tenant that was deleted comes back.
        base_url, allow_http: see `help_desk_address`.

    Raises:
        InvalidInput: subdomain, base URL or credentials cannot be used.
        TenantDeleted: the tenant was deleted, before or meanwhile; nothing of what was written is left.
        HelpDeskRefused, HelpDeskUnavailable, PublishConflict: see `ZendeskSync.run`.
    """
    check_tenant(tenant)
    address = help_desk_address(subdomain, DOMAIN, base_url=base_url, allow_http=allow_http)
    settings = read_settings(ZendeskSettings)
    if settings.email is not None and ("@" not in settings.email or not settings.email.isprintable()):
        raise InvalidInput("MACROFLEET_ZENDESK_EMAIL is no e-mail address", remedy="Mend it, or unset it for OAuth.")
    headers = credentials(settings.secret(), settings.email)
    if restart:
        lift(store, tenant)
        SyncStore(store, tenant, "zendesk").forget()
    # What a schedule repeats brings nobody back who wanted to be forgotten.
    refuse_deleted(store, tenant, remedy="If it is to come back, run it with --restart.")
    with unless_deleted(store, tenant, lambda: forget_own(store, tenant)), HelpDesk(address, headers) as desk:
        run = ZendeskSync(
            store, tenant, desk, account=subdomain, options=options, exports=Pace(export_rate or None), step=step
        )
        return run.run()
