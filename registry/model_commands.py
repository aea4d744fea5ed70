"""`macrofleet models …`: what was trained, what serves, and a model's way to another platform.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry.console_output import open_configured_store, print_json, print_report, print_table

models = typer.Typer(no_args_is_help=True, help="See what was trained and what serves, and export it.")

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """What each tenant of the fleet serves, or why it serves nothing.

    Example: macrofleet models list --json
    """
    from registry.fleet import read_fleet

    found = read_fleet(open_configured_store())
    rows = [
        {"tenant": tenant, "version": entry.version, "previous": entry.previous, "reason": entry.reason}
        for tenant, entry in sorted(found.entries.items())
    ]
    if as_json:
        print_json({"generation": found.generation, "models": rows})
    else:
        print_table(
            ["tenant", "version", "previous", "reason"], [[value or "" for value in row.values()] for row in rows]
        )


@models.command("show")
def show(tenant: Tenant, as_json: Json = False) -> None:
    """A tenant's serving version: its manifest and where it came from.

    Example: macrofleet models show acme
    """
    from registry.models import describe_model

    print_report(describe_model(open_configured_store(), tenant), as_json)


@models.command("export")
def export(
    tenant: Tenant,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Gets TENANT.tar.gz; made if missing.")],
    sagemaker: Annotated[
        bool, typer.Option("--sagemaker", help="The archive of a SageMaker multi-model endpoint; the only form.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write what a tenant serves to a file for another platform, and print what that platform is to be told.

    Everything is verified while it is read. An archive that is there already is left alone.

    Example: macrofleet models export acme --sagemaker --out archives
    """
    from registry.errors import InvalidInput
    from registry.sagemaker_export import export_sagemaker

    if not sagemaker:
        raise InvalidInput("an export needs its form, and SageMaker's is the only one", remedy="Add --sagemaker.")
    made = export_sagemaker(open_configured_store(), tenant, folder=out, replace=False)
    print_report(made.as_dict(), as_json)
