"""Load from a process of its own: what to send and when, and what came of it.

Open loop: requests go out when their time has come, whatever is still unanswered, and a latency counts from the time
the request *should* have gone. A generator that waits for answers (a closed loop) slows down with the server and leaves
out of its figures exactly the requests that would have waited ("coordinated omission"). A closed loop is only used to
find a server's capacity.

The generator goes before everything else on its core (SCHED_FIFO), where it may. Without that it is late by as long as the
kernel lets others run, also on a core of its own: the kernel's own threads take that for milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# How late the generator itself may be, in the 99th percentile, before its figures are not the server's any more.
LAG_SECONDS = 0.001
UNANSWERED, BROKEN = 0, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the generator's process is told.

    Attributes:
        url: of the server; its path is not looked at.
        requests: whole HTTP/1.1 requests.
        picks: which of `requests` to send, one after the other.
        at: when each of `picks` is due, seconds after the start, rising; None is a closed loop.
        connections: opened before the start; a closed loop has no more.
        max_connections: an open loop opens more as it needs them; what finds none waits, its latency running.
        idle_seconds: an open loop does not use a connection again that was idle for so long; less than the five seconds
            after which uvicorn closes one, perhaps under a request just sent.
        seconds: length of a closed loop, which goes through `picks` again and again; None goes through them once.
        patience_seconds: how long the end waits for answers that are still out.
        core: the core to run on; None leaves it to the kernel.
        keep_answers: keep every answer's body.
        keep_refusals: keep the first 4 KiB of every answer that is no success, its head included.
        more_urls: servers beside `url`, for an open loop over several.
        targets: of each of `picks`, the server it goes to: 0 is `url`, 1 the first of `more_urls`; None sends all to `url`.
    """

    url: str
    requests: Sequence[bytes]
    picks: Integers
    at: Floats | None = None
    connections: int = 16
    max_connections: int = 2000
    idle_seconds: float = 3.0
    seconds: float | None = None
    patience_seconds: float = 5.0
    core: int | None = None
    keep_answers: bool = False
    keep_refusals: bool = False
    more_urls: Sequence[str] = ()
    targets: Integers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What came of every request, in the order of the plan. Times are `time.monotonic`, which processes share.

    Attributes:
        began: when the run began.
        seconds: its length, without waiting for the last answers.
        picks: which request it was.
        intended: when it was due.
        fired: when the generator got round to it.
        sent: when it was written to a connection; NaN for one that never was.
        done: when its answer had come; NaN without one.
        status: of the answer; UNANSWERED, or BROKEN where the connection was lost.
        answers: bodies, where they were asked for.
        refusals: how answers began that were no success, where that was asked for; empty for all others.
        processor_share: what the generator's process used of its core.
    """

    began: float
    seconds: float
    picks: Integers
    intended: Floats
    fired: Floats
    sent: Floats
    done: Floats
    status: Integers
    answers: Sequence[bytes] = field(default=(), repr=False)
    refusals: Sequence[bytes] = field(default=(), repr=False)
    processor_share: float = 0.0

    @property
    def latency(self) -> Floats:
        """Seconds from when a request was due until its answer had come; NaN without one."""
        return self.done - self.intended

    @property
    def lag_seconds(self) -> float:
        """How late the generator was, 99th percentile."""
        return float(np.percentile(self.fired - self.intended, 99)) if len(self.fired) else 0.0

    @property
    def kept_schedule(self) -> bool:
        """Whether the figures are the server's: a generator that is late itself measures itself."""
        return self.lag_seconds <= LAG_SECONDS

    def where(self, chosen: NDArray[np.bool_]) -> Samples:
        """Those samples alone."""

        def kept(texts: Sequence[bytes]) -> Sequence[bytes]:
            return [text for text, wanted in zip(texts, chosen, strict=True) if wanted] if texts else ()

        columns = ("picks", "intended", "fired", "sent", "done", "status")
        return Samples(
            began=self.began,
            seconds=self.seconds,
            answers=kept(self.answers),
            refusals=kept(self.refusals),
            processor_share=self.processor_share,
            **{name: getattr(self, name)[chosen] for name in columns},
        )


def joined(runs: Sequence[Samples]) -> Samples:
    """Several runs as one, one after the other; `picks` must mean the same in all of them."""
    columns = ("picks", "intended", "fired", "sent", "done", "status")
    return Samples(
        began=runs[0].began,
        seconds=sum(run.seconds for run in runs),
        answers=[answer for run in runs for answer in run.answers],
        refusals=[refusal for run in runs for refusal in run.refusals],
        processor_share=max(run.processor_share for run in runs),
        **{name: np.concatenate([getattr(run, name) for run in runs]) for name in columns},
    )


def interleaved(times: Sequence[Floats], columns: Sequence[Sequence[Integers]]) -> tuple[Floats, list[Integers]]:
    """Several streams of arrivals as one, in the order of time.

    Args:
        times: of each stream.
        columns: of each column, its part for each stream.
    """
    at = np.concatenate(times)
    order = np.argsort(at, kind="stable")
    return at[order], [np.concatenate(parts)[order] for parts in columns]


def http_request(
    url: str, path: str, body: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole POST of JSON, on a connection that is kept; with an API key, if there is one.

    Args:
        headers: on top, or instead of `Content-Type` and `Authorization`.
    """
    given = {"Content-Type": "application/json"}
    if key is not None:
        given["Authorization"] = f"Bearer {key}"
    given |= {name.title(): value for name, value in (headers or {}).items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def poisson_arrivals(rate: float, seconds: float, *, rng: np.random.Generator) -> Floats:
    """Arrival times in [0, seconds) of independent callers who send `rate` requests a second together."""
    expected = rate * seconds
    gaps = rng.exponential(1 / rate, int(expected + 6 * expected**0.5 + 10))
    times = np.cumsum(gaps)
    return times[times < seconds]


def zipf_shares(count: int, exponent: float = 1.0) -> Floats:
    """The share of each of `count` tenants, the first the busiest: proportional to 1 / rank^exponent."""
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    shares: Floats = weights / weights.sum()
    return shares


class Run:
    """A generator at work."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process = process
        self._output = output
        #: When it began, by `time.monotonic`.
        self.began = self._read_start()

    def ended_within(self, seconds: float) -> bool:
        """Wait so long at most; whether its samples are there, or nothing will come any more."""
        ready, _, _ = select.select([self._output], [], [], seconds)
        return bool(ready) or self._process.poll() is not None

    def stop(self) -> None:
        """Have it end now; `result` has what was sent until then."""
        self._process.send_signal(signal.SIGTERM)

    def result(self) -> Samples:
        """Wait for its end. Raises RuntimeError when it failed."""
        data = self._output.read()
        if self._process.wait() != 0:
            raise RuntimeError(f"the load generator ended with {self._process.returncode}")
        samples: Samples = pickle.loads(data)
        return samples

    def _read_start(self) -> float:
        line = self._output.readline()
        if not line:
            raise RuntimeError(f"the load generator ended with {self._process.wait()} before it began")
        return float(line)


@contextlib.contextmanager
def running(plan: Plan) -> Iterator[Run]:
    """Start a generator; the context begins when it does, and ends it if it has not ended."""
    reader, writer = os.pipe()
    with open(reader, "rb") as output:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.driver", str(writer)],
                stdin=subprocess.PIPE,
                stdout=2,  # whatever it prints; standard output is for this process's report
                pass_fds=[writer],
                start_new_session=True,  # Ctrl-C is the caller's to handle
            )
        finally:
            os.close(writer)
        try:
            assert process.stdin is not None
            # One that ended without reading it is told of below.
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pickle.dump(plan, pipe)
            yield Run(process, output)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def run_load(plan: Plan) -> Samples:
    """Run a plan to its end."""
    with running(plan) as run:
        return run.result()


def percentiles(seconds: Floats) -> dict[str, Any]:
    """Exact percentiles, from all samples, in milliseconds; what is NaN was never answered and is left out."""
    found = seconds[~np.isnan(seconds)] * 1000
    names = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}
    if not len(found):
        return dict.fromkeys(names)
    values = np.percentile(found, list(names.values()))
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)}


def per_second(count: int, seconds: float) -> float:
    """A rate for a report; 0 where no time passed."""
    return round(count / seconds, 1) if seconds else 0.0


def describe(samples: Samples) -> dict[str, Any]:
    """A run for the report: latency of what was answered with 200, how much that was, and how well the schedule was kept."""
    good = samples.status == 200
    statuses, counts = np.unique(samples.status, return_counts=True)
    names = {UNANSWERED: "unanswered", BROKEN: "broken"}
    return {
        **percentiles(samples.latency[good]),
        "requests": len(samples.status),
        "offered_rps": per_second(len(samples.status), samples.seconds),
        "rps": per_second(int(good.sum()), samples.seconds),
        "statuses": {
            names.get(int(status), str(status)): int(count) for status, count in zip(statuses, counts, strict=True)
        },
        "late": int((samples.fired - samples.intended > LAG_SECONDS).sum()),
        "lag_p99_ms": round(samples.lag_seconds * 1000, 3),
        "generator_processor_share": round(samples.processor_share, 2),
        "void": not samples.kept_schedule,
    }
