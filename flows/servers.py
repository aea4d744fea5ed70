"""The servers that a roll-out is watched on, asked at their operator addresses."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from flows.rollout import HEARD, OUTCOMES, Counts, Heard, ServerCounts
from registry.replicas import refresh_replicas, scrape_replicas

_ANSWERS, _CANARIES, _MODELS = "macrofleet_answers_total", "macrofleet_canary_answers", "macrofleet_canary_models"
_JUDGED, _CANARIES_JUDGED = "macrofleet_suggestions_judged_total", "macrofleet_canary_judged"
_WANTED = (_ANSWERS, _CANARIES, _MODELS, _JUDGED, _CANARIES_JUDGED)
_LOG = logging.getLogger(__name__)


class HttpServers:
    """Servers by their operator addresses; one that does not answer is left out and logged.

    Args:
        urls: `http://127.0.0.1:8001` and so on.
        key: an operator's API key; None asks without one.
        timeout_seconds: for each step of a request.
    """

    def __init__(self, urls: Sequence[str], *, key: SecretStr | None = None, timeout_seconds: float = 10.0) -> None:
        self._urls = urls
        self._key = None if key is None else key.get_secret_value()
        self._timeout_seconds = timeout_seconds

    def refresh(self) -> None:
        """Have them read the fleet now; one that does not will at its next poll."""
        for told in refresh_replicas(self._urls, key=self._key, timeout_seconds=self._timeout_seconds):
            if told.problem is not None:
                _LOG.warning("server %s did not read the fleet: %s", told.url, told.problem)

    def counts(self) -> dict[str, ServerCounts]:
        """What they have counted, by address."""
        found = {}
        for scraped in scrape_replicas(self._urls, key=self._key, timeout_seconds=self._timeout_seconds):
            try:
                if scraped.problem is None:
                    found[scraped.url] = read_counts(scraped.text)
                    continue
                problem = scraped.problem
            except ValueError:
                problem = "its metrics are no metrics"
            _LOG.warning("server %s cannot be asked: %s", scraped.url, problem)
        return found


def read_counts(text: str) -> ServerCounts:
    """What a server's `/metrics` say of its answers; what is not there counts as none.

    Raises:
        ValueError: the text is not of Prometheus's format.
    """
    # Parsing all of it takes longer than making it.
    wanted = "".join(line for line in text.splitlines(keepends=True) if line.startswith(_WANTED))
    values = {
        (sample.name, frozenset(sample.labels.items())): int(sample.value)
        for family in text_string_to_metric_families(wanted)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> int:
        return values.get((name, frozenset(labels.items())), 0)

    def counts(name: str, **labels: str) -> Counts:
        return Counts(**{outcome: value(name, outcome=outcome, **labels) for outcome in OUTCOMES})

    def heard(name: str, **labels: str) -> Heard:
        return Heard(**{outcome: value(name, outcome=outcome, **labels) for outcome in HEARD})

    return ServerCounts(
        every_heard=heard(_JUDGED),
        new_heard=heard(_CANARIES_JUDGED, version="new"),
        before_heard=heard(_CANARIES_JUDGED, version="before"),
        every=counts(_ANSWERS),
        new=counts(_CANARIES, version="new"),
        before=counts(_CANARIES, version="before"),
        serving=value(_MODELS, state="serving"),
        unloadable=value(_MODELS, state="failed"),
    )
