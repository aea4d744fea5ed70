"""`macrofleet tenants …`: what tenants want of their training and suggestions, and which of them are eligible for a model.

Nothing but typer is imported before a command runs. Other modules add commands to `tenants`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from registry.console_output import open_configured_store, print_json, print_table

if TYPE_CHECKING:
    from flows.settings import FlowSettings
    from flows.standing import Standing
    from registry.tenant_settings import TenantSettings

tenants = typer.Typer(
    no_args_is_help=True, help="Say what tenants want of training and suggestions, and see who is eligible."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Tenant = Annotated[str, typer.Argument(metavar="TENANT")]
Tenants = Annotated[list[str], typer.Argument(metavar="TENANT…", help="One or more.")]


@tenants.command("list")
def list_tenants(as_json: Json = False) -> None:
    """Every tenant with tickets or a place in the fleet: whether it is eligible for a model, and if not, why.

    Exit code 1 if one of them cannot be judged.

    Example: macrofleet tenants list
    """
    from flows.settings import FlowSettings
    from flows.standing import standings
    from registry.settings import read_settings

    found = standings(open_configured_store(), read_settings(FlowSettings))
    if as_json:
        print_json({"tenants": [one.as_dict() for one in found]})
    else:
        print_table(["tenant", "eligible", "tickets", "macros", "serves", "reason"], [_line(one) for one in found])
    if any(one.eligible is None for one in found):
        raise typer.Exit(1)


def _line(one: Standing) -> list[str]:
    judged = one.eligible is not None
    return [
        one.tenant,
        {True: "yes", False: "no", None: "?"}[one.eligible],
        str(one.tickets) if judged else "-",
        str(one.macros) if judged else "-",
        one.version or "-",
        one.reason,
    ]


@tenants.command("settings")
def show_settings(tenant: Tenant, as_json: Json = False) -> None:
    """What holds for a tenant: its own settings, and for its training the environment's or the defaults for the others.

    Example: macrofleet tenants settings acme
    """
    from flows.settings import FlowSettings
    from registry.settings import read_settings
    from registry.tenant_settings import check_known, read_tenant_settings

    store = open_configured_store()
    check_known(store, tenant)
    _print_settings(tenant, read_settings(FlowSettings), read_tenant_settings(store, tenant), as_json)


@tenants.command("set")
def change_settings(
    names: Tenants,
    program: Annotated[
        Literal["auto", "bag", "encoder"] | None, typer.Option(help="What its models are fitted for.")
    ] = None,
    precision: Annotated[
        float | None, typer.Option(help="How often one of the three macros shown shall be right: 0.8.")
    ] = None,
    weights: Annotated[
        Literal["float32", "int8"] | None, typer.Option(help="int8 makes models of a quarter of the size.")
    ] = None,
    least_tickets: Annotated[int | None, typer.Option(help="Tickets with a shared macro that are needed.")] = None,
    least_macros: Annotated[int | None, typer.Option(help="Macros used in them that are needed.")] = None,
    months: Annotated[int | None, typer.Option(help="How far back tickets and macros are counted.")] = None,
    keep_months: Annotated[
        int | None, typer.Option(help="Tickets and feedback are removed when they are so old: 24. See garbage lake.")
    ] = None,
    retrain_after_days: Annotated[int | None, typer.Option(help="Train again after so long in any case.")] = None,
    least_acceptance: Annotated[
        float | None, typer.Option(help="Train again where agents apply one of the macros shown less often: 0.2.")
    ] = None,
    promotion: Annotated[
        Literal["auto", "manual", "shadow"] | None,
        typer.Option(help="How a model that passes the gate comes to serve."),
    ] = None,
    exclude_macros: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A macro that is never suggested. Repeatable: these, and no others any more."),
    ] = None,
    off_groups: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A group whose members get no suggestions. Repeatable, like --exclude-macros."),
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="SETTING", help="No longer the tenant's own: months, say. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give tenants settings of their own, or take them away; what is not named stays. The next training follows them.

    Servers follow --exclude-macros and --off-groups within a minute, without training (MACROFLEET_CATALOGUE_SECONDS).

    Example: macrofleet tenants set acme --least-tickets 50 --unset precision
    """
    from registry.errors import InvalidInput
    from registry.tenant_settings import edit_tenant_settings

    given = {
        "program": program,
        "precision": precision,
        "weights": weights,
        "least_tickets": least_tickets,
        "least_macros": least_macros,
        "months": months,
        "keep_months": keep_months,
        "retrain_after_days": retrain_after_days,
        "least_acceptance": least_acceptance,
        "promotion": promotion,
        "exclude_macros": sorted(set(exclude_macros)) if exclude_macros else None,
        "off_groups": sorted(set(off_groups)) if off_groups else None,
    }
    changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    taken = [name.replace("-", "_") for name in unset or ()]
    if not changes and not taken:
        raise InvalidInput("nothing to set", remedy="Give a setting, --months 12, say, or --unset one.")
    both = sorted(changes.keys() & set(taken))
    if both:
        raise InvalidInput(f"{both[0]} is both set and unset", remedy="Give either.")
    changes |= dict.fromkeys(taken)
    edits = edit_tenant_settings(open_configured_store(), names, changes)
    if as_json:
        rows = [
            {"tenant": name, "before": _own(edit.before), "after": _own(edit.after)} for name, edit in edits.items()
        ]
        print_json({"tenants": rows})
        return
    for name, edit in edits.items():
        before, after = edit.before.model_dump(), edit.after.model_dump()
        steps = [f"{key} {_text(before[key])} -> {_text(after[key])}" for key in before if before[key] != after[key]]
        typer.echo(f"{name}: {', '.join(steps) or 'as before'}")


def _print_settings(tenant: str, run: FlowSettings, own: TenantSettings, as_json: bool) -> None:
    from registry.tenant_settings import TenantSettings

    rows: dict[str, dict[str, Any]] = {}
    for name, value in run.overlaid(own).model_dump().items():
        from_run = "environment" if name in run.model_fields_set else "default"
        rows[name] = {"value": value, "from": from_run if getattr(own, name) is None else "tenant"}
    for name in sorted(TenantSettings.model_fields.keys() - rows.keys()):
        value = getattr(own, name)
        rows[name] = {"value": [] if value is None else list(value), "from": "default" if value is None else "tenant"}
    if as_json:
        print_json({"tenant": tenant, "settings": rows})
        return
    cells = [[name, _text(row["value"]), _source(name, row["from"])] for name, row in rows.items()]
    print_table(["setting", "value", "from"], cells)


def _source(name: str, source: str) -> str:
    return f"MACROFLEET_{name.upper()}" if source == "environment" else source


def _own(settings: TenantSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_none=True)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "unset" if value is None else str(value)
