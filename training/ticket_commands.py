"""`macrofleet tickets`: the commands. What brings tickets and macros in is imported when one runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from registry.console_output import (
    column_values,
    names_of,
    open_configured_store,
    print_report,
    progress,
    waiting,
)

if TYPE_CHECKING:
    from registry.catalogue import Macro
    from training.connectors.client import HelpDesk
    from training.connectors.pace import Pace

tickets = typer.Typer(no_args_is_help=True, help="Bring labelled tickets and macros in.")
sync = typer.Typer(no_args_is_help=True, help="From a help desk's API: Zendesk's macros and tickets, others' macros.")
tickets.add_typer(sync, name="sync")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Tenant = Annotated[str, typer.Option("--tenant", help="The tenant: lower-case letters, digits, '_' and '-'.")]
Subdomain = Annotated[str, typer.Option("--subdomain", help="S where the account's address is https://S.…")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="A stand-in's address instead; on loopback, unless --allow-http.")
]
AllowHttp = Annotated[
    bool, typer.Option("--allow-http", help="Allow a base URL on another machine. It is sent the credentials.")
]
NoMask = Annotated[
    bool,
    typer.Option(
        "--no-mask", help="Keep e-mail addresses, phone, card and account numbers and tokens as they came in."
    ),
]


@tickets.command("import")
def tickets_import(
    path: Annotated[Path, typer.Argument(help="The file.")],
    tenant: Tenant,
    file_format: Annotated[str | None, typer.Option("--format", help="csv or jsonl; by default from the name.")] = None,
    mapping: Annotated[
        Path | None, typer.Option("--mapping", help="TOML or JSON that says which column is which field.")
    ] = None,
    macros: Annotated[
        Path | None, typer.Option(help="The tenant's macro catalogue as JSON; replaces the old one.")
    ] = None,
    add_macros: Annotated[bool, typer.Option("--add-macros", help="Labels in no catalogue become macros.")] = False,
    label_separator: Annotated[
        str | None, typer.Option(help="What stands between the labels of one row, where it has several.")
    ] = None,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Leave out rows that cannot be used.")] = False,
    where: Annotated[list[str] | None, typer.Option("--where", help="Keep rows with COLUMN=VALUE. Repeatable.")] = None,
    out_of_scope: Annotated[
        str, typer.Option("--out-of-scope", help="Labels that are no macros, separated by commas.")
    ] = "oos,NO_NODES_DETECTED,outofdomain",
    no_mask: NoMask = False,
    as_json: Json = False,
) -> None:
    """Import labelled tickets (CSV with a header, or JSON lines): all of them or none. Personal data are masked.

    Example: macrofleet tickets import --tenant acme --format csv tickets.csv
    """
    from registry.names import check_tenant
    from training.importers import read_tickets
    from training.mapping import read_mapping
    from training.tenants import import_examples, read_catalogue_file

    check_tenant(tenant)
    with waiting(f"importing {path.name}"):
        found = read_tickets(
            path,
            file_format=file_format,
            where=column_values(where),
            out_of_scope=names_of(out_of_scope),
            label_separator=label_separator or None,
            skip_invalid=skip_invalid,
            mapping=read_mapping(mapping) if mapping else None,
            mask=not no_mask,
        )
        merge = import_examples(
            open_configured_store(),
            tenant,
            found.examples,
            titles=found.titles,
            catalogue=read_catalogue_file(macros) if macros else None,
            add_macros=add_macros,
        )
    for problem in found.problems:
        typer.echo(f"left out: {problem}", err=True)
    report = {"tenant": tenant, "added": merge.added, "changed": merge.changed, "unchanged": merge.unchanged,
              "total": merge.total, "left_out": len(found.problems)}  # fmt: skip
    print_report(report, as_json)


@sync.command()
def zendesk(
    tenant: Tenant,
    subdomain: Subdomain,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Tickets that changed since; a year by default. Counts once."),
    ] = None,
    audits: Annotated[
        int | None, typer.Option(min=1, help="Read so many tickets at most, the newest; the next run goes on.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, help="Requests a minute; by default half of what the account may. 0: as fast as it lets us."
        ),
    ] = None,
    export_rate: Annotated[
        float,
        typer.Option(min=0, help="Requests a minute to the exports; 30 with the High Volume add-on. 0: no limit."),
    ] = 10,
    threads: Annotated[int, typer.Option(min=1, max=32, help="Requests under way at once.")] = 4,
    no_mask: NoMask = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Forget how far it came, and begin again. The lake keeps what it has. Brings a deleted tenant back.",
        ),
    ] = False,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    as_json: Json = False,
) -> None:
    """Bring a Zendesk account's macros and labelled tickets in, and later what has changed since.

    The token is read from MACROFLEET_ZENDESK_TOKEN, or from the file that MACROFLEET_ZENDESK_TOKEN_FILE names; with it
    MACROFLEET_ZENDESK_EMAIL, unless it is an OAuth token. Ctrl-C loses nothing: the next run goes on.

    Example: macrofleet tickets sync zendesk --tenant acme --subdomain acme-support
    """
    from training.connectors.zendesk_run import sync_zendesk
    from training.connectors.zendesk_sync import SYNCED_DAYS, SyncOptions

    begin = since.replace(tzinfo=UTC) if since else datetime.now(UTC) - timedelta(days=SYNCED_DAYS)
    options = SyncOptions(since=int(begin.timestamp()), audits=audits, mask=not no_mask, rate=rate, threads=threads)
    with progress(quiet=False) as step:
        report = sync_zendesk(
            open_configured_store(),
            tenant,
            subdomain=subdomain,
            options=options,
            export_rate=export_rate,
            restart=restart,
            base_url=base_url,
            allow_http=allow_http,
            step=step,
        )
    print_report(report.as_dict(), as_json)


@sync.command()
def gorgias(
    tenant: Tenant, subdomain: Subdomain, base_url: BaseUrl = None, allow_http: AllowHttp = False, as_json: Json = False
) -> None:
    """Bring a Gorgias account's macros in: MACROFLEET_GORGIAS_TOKEN (or …_TOKEN_FILE) and MACROFLEET_GORGIAS_EMAIL.

    Example: macrofleet tickets sync gorgias --tenant acme --subdomain acme
    """
    from registry.errors import InvalidInput
    from registry.settings import read_settings
    from training.connectors.address import help_desk_address
    from training.connectors.macro_catalogues import GORGIAS_DOMAIN, gorgias_credentials, read_gorgias
    from training.connectors.settings import GorgiasSettings

    address = help_desk_address(subdomain, GORGIAS_DOMAIN, base_url=base_url, allow_http=allow_http)
    settings = read_settings(GorgiasSettings)
    if not settings.email:
        raise InvalidInput("there is no e-mail address for the API key", remedy="Set MACROFLEET_GORGIAS_EMAIL.")
    _sync_macros(tenant, address, gorgias_credentials(settings.secret(), settings.email), read_gorgias, as_json)


@sync.command()
def intercom(
    tenant: Tenant,
    region: Annotated[Literal["us", "eu", "au"], typer.Option(help="Where the workspace is.")] = "us",
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    as_json: Json = False,
) -> None:
    """Bring an Intercom workspace's macros in: MACROFLEET_INTERCOM_TOKEN (or …_TOKEN_FILE).

    Example: macrofleet tickets sync intercom --tenant acme --region eu
    """
    from registry.settings import read_settings
    from training.connectors.address import help_desk_address
    from training.connectors.macro_catalogues import INTERCOM_HOSTS, intercom_credentials, read_intercom
    from training.connectors.settings import IntercomSettings

    subdomain, _, domain = INTERCOM_HOSTS[region].partition(".")
    address = help_desk_address(subdomain, domain, base_url=base_url, allow_http=allow_http)
    token = read_settings(IntercomSettings).secret()
    _sync_macros(tenant, address, intercom_credentials(token), read_intercom, as_json)


@sync.command()
def chatwoot(
    tenant: Tenant,
    base_url: Annotated[str, typer.Option("--base-url", help="Of the installation; https, unless --allow-http.")],
    account: Annotated[int, typer.Option("--account", min=1, help="The account's number there.")],
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Allow http to another machine.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a Chatwoot account's macros in: MACROFLEET_CHATWOOT_TOKEN (or …_TOKEN_FILE).

    Example: macrofleet tickets sync chatwoot --tenant acme --base-url https://app.chatwoot.com --account 7
    """
    from registry.settings import read_settings
    from training.connectors.address import own_address
    from training.connectors.macro_catalogues import chatwoot_credentials, read_chatwoot
    from training.connectors.settings import ChatwootSettings

    def read(desk: HelpDesk, pace: Pace) -> list[Macro]:
        return read_chatwoot(desk, pace, account=account)

    address = own_address(base_url, allow_http=allow_http)
    token = read_settings(ChatwootSettings).secret()
    _sync_macros(tenant, address, chatwoot_credentials(token), read, as_json)


def _sync_macros(tenant: str, address: str, headers: dict[str, str], read: Any, as_json: bool) -> None:
    from registry.catalogue import make_catalogue
    from registry.deletion.places import forget_own
    from registry.deletion.tombstones import refuse_deleted, unless_deleted
    from registry.names import check_tenant
    from training.connectors.client import HelpDesk
    from training.connectors.pace import Pace
    from training.tenants import replace_catalogue

    check_tenant(tenant)
    store = open_configured_store()
    refuse_deleted(store, tenant, remedy="If it is to come back, import its tickets first.")
    with waiting("reading macros"), HelpDesk(address, headers) as desk:
        macros = read(desk, Pace(60))
        with unless_deleted(store, tenant, lambda: forget_own(store, tenant)):
            changed = replace_catalogue(store, tenant, make_catalogue(macros))
    report = {"tenant": tenant, "macros": len(macros), "catalogue_changed": changed}
    print_report({**report, "requests": desk.traffic.requests}, as_json)
