"""`docs/quality.md`'s figures: what `macrofleet evaluate` says of the public data sets, as a table and reliability plots.

    python -m training.quality --data FOLDER [--program bag --program encoder] [--seeds 3] [--out docs]

Each figure is what the command beside it prints. They are kept in `quality/figures.json`, so that programs can be measured
one at a time; what is not measured again stays, and the page says of every row which revision it was measured with.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput
from training.evaluation import BINS

_BEGIN, _END = "<!-- figures: written by training/quality.py -->", "<!-- end of figures -->"
_DASH = "-"
_COLUMNS = (
    "test split", "rows", "top-1 (95 %)", "top-3", "MRR", "ECE", "shown", "right of those",
    "out of scope: silent / in scope: right", "TF-IDF top-1 / top-3", "fit s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One use of `macrofleet evaluate`.

    Attributes:
        file: below the folder of data sets.
        options: beside --data, --program, --seeds, --baselines and --json.
    """

    name: str
    file: str
    options: tuple[str, ...] = ()

    def command(self, folder: Path, program: str, seeds: int) -> list[str]:
        """The command line, without the interpreter."""
        path = str(folder / self.file)
        return [
            "macrofleet", "evaluate", "--data", path, *self.options,
            "--program", program, "--seeds", str(seeds), "--baselines", "--json",
        ]  # fmt: skip

    @property
    def slug(self) -> str:
        """Its name in file names."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name.lower())


def _shots(name: str, file: str, options: tuple[str, ...]) -> list[Run]:
    few = [
        Run(name=f"{name} {shots}-shot", file=file, options=(*options, "--few-shot", shots)) for shots in ("10", "5")
    ]
    return [Run(name=name, file=file, options=options), *few]


RUNS = (
    *_shots("BANKING77", "banking77/banking77.csv", ()),
    *_shots("CLINC150", "clinc150/clinc150.csv", ("--single-tenant",)),
    *_shots("HWU64", "hwu64/hwu64.csv", ("--single-tenant",)),
    Run(name="HINT3 v2", file="hint3/hint3.csv", options=("--where", "version=v2")),
)


def measure(folder: Path, programs: Sequence[str], *, seeds: int, names: Sequence[str], out: Path) -> None:
    """Run what is asked for, keep the figures after each run, and write the page.

    Args:
        names: of `RUNS`; none for all.

    Raises:
        InvalidInput: no such run, no file of any, or a run that failed.
    """
    unknown = set(names) - {run.name for run in RUNS}
    if unknown:
        raise InvalidInput(f"no run is named {sorted(unknown)}", remedy=f"Runs: {', '.join(run.name for run in RUNS)}.")
    chosen = [run for run in RUNS if (not names or run.name in names) and (folder / run.file).is_file()]
    if not chosen:
        raise InvalidInput(f"{folder} has none of the data sets", remedy="It needs banking77/banking77.csv, say.")
    kept = out / "quality" / "figures.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    for program in programs:
        for run in chosen:
            print(f"{program}: {run.name}", file=sys.stderr, flush=True)  # noqa: T201  # minutes pass
            report = _evaluate(run.command(folder, program, seeds))
            shown = " ".join(run.command(Path(), program, seeds))
            figures.setdefault(program, {})[run.name] = {"command": shown, "report": report}
            kept.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
            write_page(figures, out)


def write_page(figures: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Write the table between its marks in `quality.md`, and a reliability plot for each run beside it.

    Raises:
        InvalidInput: the page has no place for it.
    """
    page = out / "quality.md"
    text = page.read_text() if page.exists() else f"# Quality\n\n{_BEGIN}\n{_END}\n"
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise InvalidInput(f"{page} has no place for the figures", remedy=f"It needs the lines {_BEGIN} and {_END}.")
    for program, runs in figures.items():
        for run in RUNS:
            if run.name in runs:
                plot = reliability_svg(f"{run.name}, {program}", runs[run.name]["report"])
                (out / "quality" / f"{program}-{run.slug}.svg").write_text(plot)
    page.write_text(f"{before}{_BEGIN}\n{_markdown(figures)}\n{_END}{after}")


def _evaluate(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    if done.returncode != 0:
        raise InvalidInput(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for program, runs in figures.items():
        lines += [
            f"## Program `{program}`",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        measured = [run for run in RUNS if run.name in runs]
        for run in measured:
            report = runs[run.name]["report"]
            lines.append(_row(run.name, report))
            lines += [
                _row(f"{run.name}: {name}", found)
                for name, found in report.get("tenants", {}).items()
                if found["top1"] is not None
            ]
        lines += ["", *(f"![Reliability of {run.name}](quality/{program}-{run.slug}.svg)" for run in measured), ""]
        lines += ["```", *(runs[run.name]["command"] for run in measured), "```", ""]
    return "\n".join(lines).rstrip()


def _row(name: str, report: Mapping[str, Any]) -> str:
    low, high = report["interval"]["top1"]
    outside = _DASH
    if "oos_recall" in report:
        outside = f"{_percent(report['oos_recall'])} / {_percent(report['in_scope_accuracy'])}"
    tfidf = report["baselines"]["tfidf"]
    cells = [
        name,
        str(report["test_rows"]),
        f"{_percent(report['top1'])} ({_percent(low)}{_DASH}{_percent(high)})",
        _percent(report["top3"]),
        f"{report['mrr']:.3f}",
        f"{report['ece']:.3f}",
        _percent(report["coverage"]),
        _percent(report.get("precision_at_threshold")),
        outside,
        f"{_percent(tfidf['top1'])} / {_percent(tfidf['top3'])}",
        f"{report['fit_seconds']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _percent(share: float | None) -> str:
    return _DASH if share is None else f"{100 * share:.1f}"


def reliability_svg(title: str, report: Mapping[str, Any]) -> str:
    """A reliability diagram: a bar for each bin of confidence, as high as the share of its rows that were right.

    The shade says how many rows a bin has; a calibrated model's bars end on the diagonal.
    """
    size, margin = 220, 34
    bins = report["reliability"]
    most = max(one["rows"] for one in bins)
    width = size / BINS
    shapes = []
    for one in bins:
        left = margin + size * one["confidence"] - width / 2
        height = size * one["accuracy"]
        shade = 0.25 + 0.75 * (one["rows"] / most) ** 0.5
        shapes.append(
            f'<rect x="{left:.1f}" y="{margin + size - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="#2b6cb0" fill-opacity="{shade:.2f}"><title>{one["rows"]} rows: said {one["confidence"]:.2f}, '
            f"right {one['accuracy']:.2f}</title></rect>"
        )
    end, middle = margin + size, margin + size / 2
    whole = size + 2 * margin
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{whole}" viewBox="0 0 {whole} {whole}">',
            "<style>text { font: 11px sans-serif }</style>",
            f'<rect width="{whole}" height="{whole}" fill="#fff"/>',
            f'<text x="{middle}" y="16" text-anchor="middle">{title}</text>',
            f'<text x="{middle}" y="29" text-anchor="middle" fill="#555">ECE {report["ece"]:.3f}</text>',
            f'<rect x="{margin}" y="{margin}" width="{size}" height="{size}" fill="none" stroke="#999"/>',
            *shapes,
            f'<line x1="{margin}" y1="{end}" x2="{end}" y2="{margin}" stroke="#c05621" stroke-dasharray="4 3"/>',
            *(
                f'<text x="{margin + size * at}" y="{end + 13}" text-anchor="middle">{at:g}</text>'
                f'<text x="{margin - 4}" y="{end - size * at + 4}" text-anchor="end">{at:g}</text>'
                for at in (0, 0.5, 1)
            ),
            f'<text x="{middle}" y="{end + 27}" text-anchor="middle">confidence</text>',
            f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">right</text>',
            "</svg>\n",
        ]
    )


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.quality", description="Measure, and write the page.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--program", action="append", help="repeatable; by default bag")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="a run's name (BANKING77 10-shot); repeatable")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    try:
        measure(given.data, given.program or ["bag"], seeds=given.seeds, names=given.only, out=given.out)
    except InvalidInput as problem:
        sys.exit(f"macrofleet: {problem}")


if __name__ == "__main__":
    _main()
