"""When the fleet is retrained by itself; no Prefect in here, so that the command line has it at once."""

from __future__ import annotations

from dataclasses import dataclass

NIGHTLY = "0 2 * * *"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When `retrain_fleet` runs by itself.

    Attributes:
        cron: five fields, as a crontab has them; None for never.
        timezone: IANA's name: Europe/Berlin, say.
    """

    cron: str | None = NIGHTLY
    timezone: str = "UTC"
