"""What a data plane's parts are at the moment, as gauges that are read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable

from registry.disk.tier import DiskTier
from serving.engine.cache import ModelCache
from serving.engine.models import Models, ServedModel
from serving.engine.preload import Progress
from serving.fleet_watch import FleetWatch
from serving.metrics import Metrics
from serving.settings import ServingSettings
from serving.suggestions.answers import Answers
from serving.suggestions.asking import Answer
from serving.suggestions.catalogues import Catalogues
from serving.trials.shadows import Shadows


def add_gauges(
    metrics: Metrics,
    settings: ServingSettings,
    *,
    watch: FleetWatch,
    models: Models,
    cache: ModelCache[ServedModel],
    disk: DiskTier,
    catalogues: Catalogues,
    answers: Answers[Answer],
    shadows: Shadows,
    progress: Callable[[], Progress],
    ready: Callable[[], bool],
) -> None:
    """Have a server's metrics tell of its models, queue, fleet, budgets and preloading.

    Args:
        settings: budgets.
        progress: how far preloading is.
        ready: whether requests may be sent here.
    """
    gauge = metrics.gauge
    gauge("macrofleet_models_loaded", "Models in memory", lambda: len(cache))
    gauge(
        "macrofleet_queue_depth",
        "Tickets that wait for an executor",
        lambda: sum(running.executor.waiting for running in models.programs.values()),
    )
    gauge("macrofleet_ready", "Whether requests may be sent here", lambda: float(ready()))
    gauge(
        "macrofleet_fleet_generation",
        "Generation of the fleet that serves",
        lambda: watch.fleet.generation if watch.fleet else 0,
    )
    gauge(
        "macrofleet_fleet_age_seconds",
        "Since the store last confirmed the fleet",
        lambda: watch.age_seconds,
    )
    gauge(
        "macrofleet_catalogue_age_seconds",
        "Since the oldest catalogue in use was confirmed",
        catalogues.oldest_seconds,
    )
    gauge("macrofleet_bytes", "Bytes of models", lambda: cache.nbytes, labels={"tier": "memory"})
    gauge("macrofleet_bytes", "Bytes of models", disk.installed_bytes, labels={"tier": "disk"})
    about = "What a tier may hold"
    gauge("macrofleet_budget_bytes", about, lambda: settings.memory_bytes, labels={"tier": "memory"})
    gauge("macrofleet_budget_bytes", about, lambda: settings.disk_bytes, labels={"tier": "disk"})
    gauge("macrofleet_bytes", "Bytes of models", lambda: shadows.nbytes, labels={"tier": "shadow"})
    gauge("macrofleet_budget_bytes", about, lambda: settings.shadow_bytes, labels={"tier": "shadow"})
    gauge("macrofleet_bytes", "Bytes of models", lambda: answers.nbytes, labels={"tier": "answers"})
    gauge("macrofleet_budget_bytes", about, lambda: settings.answer_bytes, labels={"tier": "answers"})
    metrics.counters(
        "macrofleet_answer_cache_total",
        "Requests by whether their answer was remembered",
        ("outcome",),
        lambda: {("hit",): answers.hits, ("miss",): answers.misses},
    )
    states: dict[str, Callable[[Progress], int]] = {
        "planned": lambda told: told.models,
        "on_disk": lambda told: told.on_disk,
        "skipped": lambda told: told.skipped,
        "failed": lambda told: len(told.failed),
    }
    for state, read in states.items():
        gauge(
            "macrofleet_preload_models",
            "Models of the preload plan",
            lambda read=read: read(progress()),  # type: ignore[misc]
            labels={"state": state},
        )
