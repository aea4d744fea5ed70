"""What one machine does, out of the reports of our own benches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput

#: Reports that are kept with the code.
RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One server process on one core; memory in bytes, times in seconds.

    Attributes:
        model_bytes: of a tenant's weights, mapped.
        tenant_bytes: anonymous memory that a tenant adds on top.
        process_bytes: anonymous memory of a server over a few tenants.
        rps: requests a second that fill the core, many tenants at once.
        warm_seconds: an answer, one request at a time, the model in memory.
        disk_seconds: a first answer from local disk, the median.
        store_seconds: a first answer from the object store (loopback), the median.
        disk_p99_seconds, store_p99_seconds: the same, 99th percentile.
        disk_core_seconds, store_core_seconds: what a first answer takes of the processor beyond a later one, by that process;
            None where it was not measured.
        sources: for each bench its command, when, and how busy the machine was.
    """

    model_bytes: float
    tenant_bytes: float
    process_bytes: float
    rps: float
    warm_seconds: float
    disk_seconds: float
    store_seconds: float
    disk_p99_seconds: float
    store_p99_seconds: float
    sources: tuple[Mapping[str, Any], ...]
    disk_core_seconds: float | None = None
    store_core_seconds: float | None = None


def read_report(folder: Path, bench: str) -> dict[str, Any]:
    """The stored report of a bench. Raises InvalidInput: there is none, or it is no report of that bench."""
    path = folder / f"{bench}.json"
    remedy = f"macrofleet bench {bench} --json >{path}"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InvalidInput(f"there is no report {path}", remedy=remedy) from None
    except ValueError:
        raise InvalidInput(f"{path} is no JSON", remedy=remedy) from None
    if not isinstance(report, dict) or report.get("bench") != bench:
        raise InvalidInput(f"{path} is no report of `macrofleet bench {bench}`", remedy=remedy)
    return report


def read_measured(folder: Path = RESULTS) -> Measured:
    """What `warm.json`, `cold.json` and `scale.json` in a folder say.

    Raises:
        InvalidInput: one is not there, or lacks something; says the command that makes it.
    """
    warm, cold, scale = (read_report(folder, bench) for bench in ("warm", "cold", "scale"))
    try:
        few, many = scale["with_10_models"], scale["with_all_models"]
        more = scale["models"] - 10
        core = cold.get("processor_ms", {})
        grown = 1e6 * (many["rss_anon_mb"] - few["rss_anon_mb"])
        return Measured(
            model_bytes=float(scale["settings"]["model_bytes"]),
            tenant_bytes=max(0.0, grown / more) if more > 0 else 0.0,
            process_bytes=1e6 * few["rss_anon_mb"],
            rps=float(warm["rps"]),
            warm_seconds=cold["disk_warm"]["p50_ms"] / 1000,
            disk_seconds=cold["disk"]["p50_ms"] / 1000,
            store_seconds=cold["s3"]["p50_ms"] / 1000,
            disk_p99_seconds=cold["disk"]["p99_ms"] / 1000,
            store_p99_seconds=cold["s3"]["p99_ms"] / 1000,
            disk_core_seconds=core["disk"] / 1000 if core else None,
            store_core_seconds=core["s3"] / 1000 if core else None,
            sources=tuple(
                {name: report.get(name) for name in ("command", "began", "load_average_before", "void")}
                for report in (warm, cold, scale)
            ),
        )
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"a report in {folder} lacks {error}", remedy="Run the bench again.") from None
