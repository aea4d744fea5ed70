"""`python -m benchmarks.report [--check]`: write the generated parts of the documents, or say which files are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.build import DOCUMENTS, build_report, stale_files, write_report
from benchmarks.report.stored import read_results
from registry.errors import MacrofleetError


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of JSON files")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the documents")
    arguments = parser.parse_args(given)
    docs: Path = arguments.docs
    try:
        documents = {name: (docs / name).read_text(encoding="utf-8") for name in DOCUMENTS}
        report = build_report(read_results(arguments.results), documents)
    except (MacrofleetError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.check:
        stale = stale_files(report, docs)
        for path in stale:
            sys.stderr.write(f"{path} is not what the results say: make bench-report\n")
        return 1 if stale else 0
    for path in write_report(report, docs):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
