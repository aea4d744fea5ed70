"""What the suites took when the baseline was taken, and whether a run takes more. Pure, but for the file.

A bench fails that takes over a quarter more of its calibration than in the baseline, in every one of the runs that it
was measured in. Chance makes one run slow now and then, and hardly three; a change of the code makes all of them slow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import comb
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field

from benchmarks.ratios import Figure, Run, title
from registry.documents import Document
from registry.errors import InvalidInput

#: By how much a ratio may grow.
TOLERANCE = 0.25
# What a machine must have in common with another for their ratios to be those of one machine.
_SAME_MACHINE = ("cpu", "cores", "python", "tensorflow", "numpy")
# Where a page has the baseline's table.
_TABLE_BEGINS, _TABLE_ENDS = "<!-- baseline: make bench-accept -->", "<!-- end of the baseline -->"
# From here on a message says that the machine may be to blame.
_UNEASY = 1.5

Positive = Annotated[float, Field(gt=0)]
Kind = Literal["as before", "grown", "quicker", "new", "missing", "skipped", "other calibration"]


class Accepted(Document):
    """One bench of the baseline: medians over the runs that it was taken from.

    Attributes:
        least, most: the ratio in the lowest and the highest of these runs.
        taken, runs: on which day, from how many.
        microseconds: on the baseline's machine, for people; nothing is compared with it.
    """

    calibration: str
    ratio: Positive
    least: Positive
    most: Positive
    microseconds: Positive
    phases: dict[str, float]
    taken: date
    runs: Annotated[int, Field(ge=1)]


class Baseline(Document):
    """The file `benchmarks/baseline.json`.

    Attributes:
        machine: on which all of it was taken.
    """

    format: Annotated[int, Field(ge=1, le=1)] = 1
    machine: dict[str, Any]
    benches: dict[str, Accepted]

    def to_text(self) -> str:
        """As it lies in the repository: a line for each figure, so that a change can be read."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def to_table(self) -> str:
        """For people, in Markdown: the spread of the runs beside each figure, and the worst of them in a sentence."""
        rows = [
            f"| {title(name)} | {_time(bench.microseconds)} | {bench.ratio:.3g} of {bench.calibration} "
            f"| {bench.least / bench.ratio - 1:+.0%} | {bench.most / bench.ratio - 1:+.0%} |"
            for name, bench in sorted(self.benches.items())
        ]
        head = ["| bench | a call takes | ratio, median | lowest run | highest run |", "|---|---|---|---|---|"]
        return "\n".join([*head, *rows, "", self._spread()])

    def _spread(self) -> str:
        above = {name: bench.most / bench.ratio - 1 for name, bench in self.benches.items()}
        worst = max(sorted(above), key=above.__getitem__)
        runs = sorted({bench.runs for bench in self.benches.values()})
        return (
            f"Of {' or '.join(map(str, runs))} runs the highest lies {median(above.values()):.0%} above the median in half of "
            f"the benches, and {above[worst]:.0%} in the worst, `{title(worst)}`. {self.machine.get('cores')} cores of "
            f"{self.machine.get('cpu')}, Python {self.machine.get('python')}, TensorFlow {self.machine.get('tensorflow')}; "
            f"taken on {max(bench.taken for bench in self.benches.values())}."
        )


def chance_of_alarm(runs: Sequence[Run]) -> str:
    """How often runs of the same code look like a regression, one by one and three together, in a sentence.

    Args:
        runs: of the same code; each is compared with the median of all.
    """
    alarms = figures = alarms_of_three = threes = 0
    for name in sorted({name for run in runs for name in run.figures}):
        ratios = [run.figures[name].ratio for run in runs if name in run.figures]
        over = sum(ratio > (1 + TOLERANCE) * median(ratios) for ratio in ratios)
        figures, alarms = figures + len(ratios), alarms + over
        threes, alarms_of_three = threes + comb(len(ratios), 3), alarms_of_three + comb(over, 3)
    return (
        f"Over {TOLERANCE:.0%} above the median of their bench: {alarms} of {figures} figures, and all of three runs "
        f"in {alarms_of_three} of {threes} choices of three."
    )


def with_table(page: str, baseline: Baseline) -> str:
    """A page with the baseline's table in the place that is marked for it.

    Raises:
        InvalidInput: there is no such place.
    """
    before, found, rest = page.partition(_TABLE_BEGINS)
    _, ended, after = rest.partition(_TABLE_ENDS)
    if not (found and ended):
        raise InvalidInput(
            f"the page has no {_TABLE_BEGINS} … {_TABLE_ENDS}", remedy="Put them where the table belongs."
        )
    return f"{before}{found}\n\n{baseline.to_table()}\n\n{ended}{after}"


def _time(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g} ms" if microseconds >= 1000 else f"{microseconds:.3g} µs"


def read_baseline(data: bytes) -> Baseline:
    """Raises InvalidInput where it is none."""
    try:
        return Baseline.parse(data, what="the baseline", error=InvalidInput)
    except InvalidInput as problem:
        raise InvalidInput(str(problem), remedy="Take another one on a quiet machine: make bench-accept.") from None


def accept(runs: Sequence[Run], before: Baseline | None, *, taken: date, only: bool) -> Baseline:
    """The baseline that these runs make.

    Args:
        runs: of the same code, one after the other.
        before: the baseline until now. What was skipped keeps its figure there.
        only: the runs are of some benches; all others keep theirs.

    Raises:
        InvalidInput: figures would come from different machines.
    """
    kept: dict[str, Accepted] = {}
    if before is not None:
        skipped = set(runs[0].skipped)
        kept = {name: bench for name, bench in before.benches.items() if only or name in skipped}
        if kept and (other := differences(before.machine, runs[0].machine)):
            raise InvalidInput(
                f"the other benches' figures are from another machine ({'; '.join(other)})",
                remedy="Take all of them here: make bench-accept, with MACROFLEET_ENCODER_WHEEL set, and no BENCH_ARGS.",
            )
    names = {name for run in runs for name in run.figures}
    found = {name: [run.figures[name] for run in runs if name in run.figures] for name in names}
    benches = kept | {name: _accepted(figures, taken) for name, figures in found.items()}
    return Baseline(machine=dict(runs[0].machine), benches=benches)


def _accepted(figures: Sequence[Figure], taken: date) -> Accepted:
    ratios = [figure.ratio for figure in figures]
    phases = {name for figure in figures for name in figure.phases}
    return Accepted(
        calibration=figures[0].calibration,
        ratio=_digits(median(ratios)),
        least=_digits(min(ratios)),
        most=_digits(max(ratios)),
        microseconds=_digits(median(figure.microseconds for figure in figures)),
        taken=taken,
        runs=len(figures),
        phases={name: _digits(median(figure.phases.get(name, 0.0) for figure in figures)) for name in sorted(phases)},
    )


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one bench.

    Attributes:
        growth: of its ratio, as a fraction, in the run in which it was least; None where there is nothing to compare.
        message: a sentence.
    """

    bench: str
    kind: Kind
    growth: float | None
    message: str

    @property
    def fails(self) -> bool:
        """Whether a change must not come in like that."""
        return self.kind in {"grown", "missing", "other calibration"}


def compare(baseline: Baseline, runs: Sequence[Run], *, only: bool = False) -> list[Verdict]:
    """What became of every bench, those that fail first.

    Args:
        runs: the first is of all benches, later ones of those that had grown.
        only: the first run is of some benches, so that none is missing.
    """
    first = runs[0]
    verdicts = []
    for name in sorted(baseline.benches.keys() | first.figures.keys()):
        accepted = baseline.benches.get(name)
        figures = [run.figures[name] for run in runs if name in run.figures]
        if accepted is None:
            verdicts.append(_new(name, figures[0]))
        elif figures:
            verdicts.append(_judged(name, accepted, figures))
        elif name in first.skipped:
            verdicts.append(_without(name, "skipped", f"was not measured: {first.skipped[name]}"))
        elif not only:
            verdicts.append(
                _without(name, "missing", "is in the baseline and was not measured: if it is gone, make bench-accept")
            )
    return sorted(verdicts, key=lambda verdict: (not verdict.fails, verdict.bench))


def _new(name: str, figure: Figure) -> Verdict:
    what = f"has no baseline yet: {figure.ratio:.3g} of {figure.calibration}; make bench-accept BENCH_ARGS='--only …'"
    return _without(name, "new", what)


def _without(name: str, kind: Kind, what: str) -> Verdict:
    return Verdict(bench=name, kind=kind, growth=None, message=f"{title(name)} {what}")


def _judged(name: str, accepted: Accepted, figures: Sequence[Figure]) -> Verdict:
    if figures[0].calibration != accepted.calibration:
        what = (
            f"is measured beside {figures[0].calibration} now, and was beside {accepted.calibration}: make bench-accept"
        )
        return _without(name, "other calibration", what)
    least = min(figures, key=lambda figure: figure.ratio)
    growth = least.ratio / accepted.ratio - 1
    kind: Kind = "grown" if growth > TOLERANCE else "quicker" if growth < -TOLERANCE else "as before"
    message = f"{title(name)} {growth:+.0%}: {accepted.ratio:.3g} of {accepted.calibration}, now {least.ratio:.3g}"
    if kind == "grown":
        message = f"{title(name)} {growth:+.0%}: {_what_grew(title(name), accepted, least)}"
        if len(figures) > 1:
            message += f" (the least of {len(figures)} runs)"
        if least.unrest > _UNEASY:
            message += (
                f". The machine was busy: {least.calibration} itself took {least.unrest:.1f}x as long most of the time"
            )
    return Verdict(bench=name, kind=kind, growth=growth, message=message)


def _what_grew(name: str, accepted: Accepted, figure: Figure) -> str:
    """The phase that most of the growth is in; the bench itself, where it is of one phase."""
    grown = {phase: part - accepted.phases.get(phase, 0.0) for phase, part in figure.phases.items()}
    if not grown or max(grown.values()) <= 0:
        return f"{name} grew {_times(accepted.ratio, figure.ratio, accepted.calibration)}"
    phase = max(grown, key=grown.__getitem__)
    before, now = accepted.phases.get(phase, 0.0), figure.phases[phase]
    share = grown[phase] / (figure.ratio - accepted.ratio)
    return f"{phase} grew {_times(before, now, accepted.calibration)}, {min(share, 1):.0%} of it"


def _times(before: float, now: float, calibration: str) -> str:
    figures = f"{before:.3g} to {now:.3g} of {calibration}"
    return f"from {figures}" if before < 0.01 * now else f"{now / before:.1f}x ({figures})"


def differences(baseline: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In what one machine differs from another, as far as ratios may."""
    return [
        f"{key} {baseline.get(key)} there, {here.get(key)} here"
        for key in _SAME_MACHINE
        if baseline.get(key) != here.get(key)
    ]
