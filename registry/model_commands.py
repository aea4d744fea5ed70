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
    from registry.fleet.state import read_fleet

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

    told = describe_model(open_configured_store(), tenant)
    if not as_json and isinstance(told["provenance"], dict):
        told["provenance"].pop("by_macro", None)  # a row for each macro: the console shows them, and --json
    print_report(told, as_json)


@models.command("export")
def export(
    tenant: Tenant,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Gets TENANT.tar.gz or TENANT/NUMBER; made if missing.")
    ],
    sagemaker: Annotated[
        bool, typer.Option("--sagemaker", help="The archive of a SageMaker multi-model endpoint.")
    ] = False,
    saved_model: Annotated[
        bool, typer.Option("--saved-model", help="A SavedModel, program and weights, for any TensorFlow server.")
    ] = False,
    number: Annotated[
        int, typer.Option("--number", min=1, help="The SavedModel's version, as TensorFlow Serving counts.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Write what a tenant serves to a file for another platform, and print what that platform is to be told.

    Everything is verified while it is read. What is there already is left alone.

    Example: macrofleet models export acme --sagemaker --out archives

    Example: macrofleet models export acme --saved-model --out saved-models
    """
    from registry.errors import InvalidInput

    if sagemaker == saved_model:
        raise InvalidInput("an export has one form", remedy="Add --sagemaker or --saved-model.")
    store = open_configured_store()
    if sagemaker:
        from registry.model.sagemaker_export import export_sagemaker

        print_report(export_sagemaker(store, tenant, folder=out, replace=False).as_dict(), as_json)
        return
    import os

    from registry.model.program import named_programs
    from registry.model.saved_model_export import export_saved_model

    trusted = named_programs(os.environ.get("MACROFLEET_TRUSTED_PROGRAMS"))
    print_report(export_saved_model(store, tenant, folder=out, number=number, trusted=trusted).as_dict(), as_json)
