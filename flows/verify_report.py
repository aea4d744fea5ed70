"""What a verification found, for people: a page in Prefect and a sentence a difference."""

from __future__ import annotations

from registry.verify.reconcile import Finding, Verification

# A page of so many rows still opens; `macrofleet fleet verify --json` has them all.
MAX_ROWS = 1000


def found_text(found: Verification) -> str:
    """A verification in one sentence."""
    report = found.as_dict()
    said = (
        f"{found.tenants} tenants: {len(found.findings)} differences, {report['mended']} mended, {report['open']} open"
    )
    return f"{said}; left out, since others work on them: {', '.join(found.left_out)}" if found.left_out else said


def open_lines(found: Verification) -> list[str]:
    """What somebody has to see to, a sentence each."""
    return [
        f"tenant {one.difference.tenant} {one.difference.kind}: {_said(one)}"
        if one.difference.tenant
        else f"{one.difference.kind}: {_said(one)}"
        for one in found.open
    ]


def differences_page(found: Verification) -> str:
    """A verification as a page: how many, then a row a difference, first those that somebody has to see to."""
    left = {id(one) for one in found.open}
    shown = sorted(found.findings, key=lambda one: id(one) not in left)[:MAX_ROWS]
    rows = [
        " | ".join(
            ("", one.difference.tenant or "-", one.difference.kind, _cell(one.difference.what), _state(one), "")
        ).strip()
        for one in shown
    ]
    more = [f"\nand {len(found.findings) - len(shown)} more"] if len(found.findings) > len(shown) else []
    table = ["| tenant | difference | what | state |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join([f"{found_text(found)}\n", *table, *more])


def _said(finding: Finding) -> str:
    difference = finding.difference
    return f"{difference.what}. {finding.problem or difference.remedy}"


def _state(finding: Finding) -> str:
    if finding.mended:
        return "mended"
    return _cell(finding.problem or finding.difference.remedy)


def _cell(text: str) -> str:
    return text.replace("|", " ").replace("\n", " ")
