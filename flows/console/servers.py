"""The servers, asked over HTTP at their operator addresses: what they count, which models they hold, suggestions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from flows.console.figures import Reading, read_metrics, since, summarise
from registry.errors import InvalidInput, NotReady
from registry.fleet.state import in_threads
from registry.replicas import Refreshed, Scraped, refresh_replicas, scrape_replicas

WINDOW_SECONDS = 60.0
# Readings closer together say nothing new, whoever asks for them.
_LEAST_SECONDS = 2.0
_MODELS_SECONDS = 10.0
_TIMEOUT = httpx.Timeout(10.0, connect=2.0)
_SCRAPE_SECONDS = 3.0
_TICKET = "console"
_MODELS_A_PAGE = 10_000
Scrape = Callable[[Sequence[str], str | None], list[Scraped]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """What a server answered to a ticket.

    Attributes:
        server: which one.
        macros: `id`, `title`, `score` and `explanation` (`text`, `contribution`) of each.
    """

    server: str
    model_version: str
    abstained: bool
    reason: str | None
    macros: Sequence[Mapping[str, Any]]
    milliseconds: float


class Servers:
    """Asks servers. May be used from any thread; `close` after use.

    Args:
        urls: operator addresses; none is a state of its own, which pages say.
        key: what they are asked with, whoever is signed in; None asks with that one's own.
        client: for tests.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key: str | None = None,
        client: httpx.Client | None = None,
        scrape: Scrape | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.urls = tuple(urls)
        self._key = key
        # No proxy from the environment and no redirects: an operator address is asked itself or not at all.
        self._client = client or httpx.Client(timeout=_TIMEOUT, trust_env=False, follow_redirects=False)
        self._scrape = scrape or _scrape
        self._clock = clock
        self._lock = threading.Lock()
        self._history: dict[str, deque[Reading]] = {url: deque() for url in self.urls}
        self._figures: tuple[float, dict[str, Any]] | None = None
        self._loaded: tuple[float, dict[str, int]] | None = None

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def figures(self, key: str) -> dict[str, Any]:
        """Live figures for JSON; a reading that is two seconds old is not made again."""
        with self._lock:
            now = self._clock()
            if self._figures is None or now - self._figures[0] >= _LEAST_SECONDS:
                self._figures = (now, self._read(now, key))
            return self._figures[1]

    def _read(self, now: float, key: str) -> dict[str, Any]:
        rows, changes, windows = [], [], []
        for scraped in self._scrape(self.urls, self._key or key) if self.urls else ():
            problem, reading = scraped.problem, None
            if problem is None:
                try:
                    reading = read_metrics(scraped.text, at=now)
                except ValueError:
                    problem = "its metrics are no metrics"
            history = self._history[scraped.url]
            while history and now - history[0].at > WINDOW_SECONDS + _LEAST_SECONDS * 2:
                history.popleft()
            if reading is None:
                rows.append({"url": scraped.url, "problem": problem, "ready": False})
                continue
            before = history[0] if history else None
            changes.append(since(reading, before))
            windows.append(None if before is None else now - before.at)
            history.append(reading)
            rows.append(_row(scraped.url, reading))
        known = [window for window in windows if window is not None]
        window = max(known) if changes and len(known) == len(windows) else None
        return {
            "named": len(self.urls),
            "answering": len(changes),
            "servers": rows,
            **summarise(changes, window_seconds=window),
        }

    def loaded(self, key: str) -> dict[str, int]:
        """On how many servers each tenant's model is in memory; as of the last ten seconds."""
        with self._lock:
            now = self._clock()
            if self._loaded is None or now - self._loaded[0] >= _MODELS_SECONDS:
                counts: dict[str, int] = {}
                for tenants in in_threads(lambda url: self._ready_models(url, key), self.urls):
                    for tenant in tenants:
                        counts[tenant] = counts.get(tenant, 0) + 1
                self._loaded = (now, counts)
            return self._loaded[1]

    def _ready_models(self, url: str, key: str) -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            answer = self._get(url, "/admin/models", key, state="ready", after=after, limit=str(_MODELS_A_PAGE))
            if not isinstance(answer, dict):
                return found
            found += [str(model["tenant"]) for model in answer.get("models", ())]
            after = str(answer.get("next") or "")
            if not after:
                return found

    def models(self, tenant: str, key: str) -> list[dict[str, Any]]:
        """What each server knows of a tenant's model: its JSON beside `url`, or a `problem`."""

        def one(url: str) -> dict[str, Any]:
            answer = self._get(url, f"/admin/models/{tenant}", key)
            return {"url": url, **answer} if isinstance(answer, dict) else {"url": url, "problem": answer}

        return in_threads(one, self.urls)

    def refresh(self, key: str) -> list[Refreshed]:
        """Have them read the fleet now."""
        self._loaded = None
        return refresh_replicas(self.urls, key=self._key or key, timeout_seconds=_SCRAPE_SECONDS) if self.urls else []

    def suggest(self, tenant: str, *, subject: str, body: str, key: str) -> Suggestions:
        """Suggestions and the words behind them, from the first server that answers.

        Raises:
            NotReady: none is named, or none answers.
            InvalidInput: the ticket or the tenant is refused; says what the server said.
        """
        if not self.urls:
            raise NotReady("no server is named", remedy="Set MACROFLEET_SERVERS to the servers' operator addresses.")
        comments = [{"author": "customer", "public": True, "body": body}] if body else []
        asked = {"ticket": {"id": _TICKET, "subject": subject, "comments": comments}, "limit": 3, "explain": True}
        problem = "no answer"
        for url in self.urls:
            began = self._clock()
            try:
                answer = self._client.post(
                    f"{url.rstrip('/')}/v1/tenants/{tenant}/suggestions", json=asked, headers=self._headers(key)
                )
                told = answer.json()
            except (httpx.HTTPError, ValueError) as error:
                problem = f"{url}: no answer ({type(error).__name__})"
                continue
            if answer.status_code >= 500 or not isinstance(told, dict):
                problem = f"{url}: {answer.status_code} {_said(told)}"
                continue
            if answer.status_code != 200:
                raise InvalidInput(_said(told) or f"the server answered {answer.status_code}")
            return Suggestions(
                server=url,
                model_version=str(told.get("model_version", "")),
                abstained=bool(told.get("abstained")),
                reason=told.get("reason"),
                macros=tuple(told.get("macros", ())),
                milliseconds=round((self._clock() - began) * 1000, 1),
            )
        raise NotReady(
            f"no server answers; the last one: {problem}", remedy="Check MACROFLEET_SERVERS and the servers."
        )

    def _get(self, url: str, path: str, key: str, **query: str) -> dict[str, Any] | str:
        """A server's JSON, or what is wrong."""
        try:
            answer = self._client.get(f"{url.rstrip('/')}{path}", params=query, headers=self._headers(key))
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return f"no answer ({type(error).__name__})"
        if answer.status_code != 200 or not isinstance(told, dict):
            return _said(told) or f"it answered {answer.status_code}"
        return told

    def _headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key or key}"}


def followed(answers: Sequence[Refreshed], generation: int) -> str:
    """How many servers have a generation of the fleet, in words; empty where none is named."""
    if not answers:
        return ""
    there = sum(one.generation is not None and one.generation >= generation for one in answers)
    rest = "" if there == len(answers) else "; the others at their next poll"
    return f"{there} of {len(answers)} servers follow it already{rest}"


def _scrape(urls: Sequence[str], key: str | None) -> list[Scraped]:
    return scrape_replicas(urls, key=key, timeout_seconds=_SCRAPE_SECONDS)


def _row(url: str, reading: Reading) -> dict[str, Any]:
    gauges = reading.gauges
    return {
        "url": url,
        "problem": None,
        "ready": gauges.get("ready", 0) == 1,
        "generation": round(gauges.get("fleet_generation", 0)),
        "models": round(gauges.get("models_loaded", 0)),
        "memory_bytes": round(gauges.get("bytes.memory", 0)),
        "budget_bytes": round(gauges.get("budget_bytes.memory", 0)),
    }


def _said(told: Any) -> str:
    """What a server's problem says; nothing of what it was asked."""
    if not isinstance(told, dict):
        return ""
    found = next((told[name] for name in ("detail", "title") if isinstance(told.get(name), str)), "")
    return found[:300]
