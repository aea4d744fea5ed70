"""`macrofleet explain`: what drove a suggestion. Nothing but typer is imported before the command runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from registry.console_output import open_configured_store, print_json

_BAR = 24


def explain(
    text: Annotated[str, typer.Argument(help="The ticket's text, as it came in.")],
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant.")],
    subject: Annotated[str, typer.Option(help="The ticket's subject.")] = "",
    macro: Annotated[str | None, typer.Option(help="Explain this macro's score, instead of the three best.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Show which words of a ticket spoke for a suggestion, and which against it.

    Each figure is what the macro's log-odds lose when the words are left out: 0.7 halves the odds, 2.3 leaves a tenth.

    Example: macrofleet explain --tenant acme "where is my parcel?"
    """
    from registry.settings import read_settings
    from serving.offline import explain_offline
    from serving.settings import ServingSettings

    report = explain_offline(
        open_configured_store(), tenant, text, subject=subject, macro=macro, settings=read_settings(ServingSettings)
    )
    if as_json:
        print_json(report)
        return
    typer.echo("\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> list[str]:
    """The report for a terminal."""
    lines = [f"read: {report['text']!r}"]
    if report["reason"] == "below_threshold":
        lines.append(f"none of these would be shown: the best is below the threshold of {report['threshold']:.2f}")
    elif not report["macros"]:
        lines.append("no macro may be shown")
    contributions = [one for macro in report["macros"] for one in macro["explanation"]]
    scale = max((abs(one["contribution"]) for one in contributions), default=1.0)
    for macro in report["macros"]:
        lines += ["", f"{macro['score']:.2f}  {macro['title']}  [{macro['id']}]"]
        for one in macro["explanation"]:
            bar = ("+" if one["contribution"] > 0 else "-") * max(1, round(_BAR * abs(one["contribution"]) / scale))
            lines.append(f"  {one['contribution']:+6.2f}  {bar:<{_BAR}}  {one['text']}")
    return lines
