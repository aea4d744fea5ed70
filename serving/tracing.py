"""OpenTelemetry traces, when the environment asks for them: one span a request and one for each phase of its way.

A request only notes times while it is worked on; its spans are made of them after the answer has gone out, and a
thread of the SDK's sends them. A collector that is slow, broken or not there costs spans, never requests.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_LOG = logging.getLogger(__name__)
_SERVICE = "macrofleet"
_OTLP, _TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROPAGATED: Final = (b"traceparent", b"tracestate")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_CONVERTER = re.compile(r":[a-z]+\}")
_REQUEST_ID = b"x-request-id"
# Asked for every few seconds by machines, and never what somebody looks for.
_UNTRACED: Final = frozenset({"/healthz", "/readyz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"})


class Trace:
    """What one request notes on its way. Owned by the event loop."""

    __slots__ = ("_attributes", "_began", "_caller", "_offset", "_phases")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._began = time.monotonic()
        self._offset = time.time_ns() - int(self._began * 1e9)
        self._caller: dict[str, list[str]] = {}
        for name, value in headers:
            if name in _PROPAGATED:
                self._caller.setdefault(name.decode(), []).append(value.decode("latin-1"))
        self._attributes: dict[str, str | int] = {}
        self._phases: list[tuple[str, float, float]] = []

    def phase(self, name: str, start: float, end: float) -> None:
        """A part of the request's way, named as in the metrics; both times are `time.monotonic`."""
        self._phases.append((name, start, end))

    def set(self, name: str, value: str | int) -> None:
        """Something to know of the request: its tenant, its model's version; never what anybody wrote."""
        self._attributes[name] = value


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    """The trace of the request that the current task works for; None outside of one, or without tracing."""
    return _CURRENT.get()


class Tracing:
    """Makes spans of what requests have noted, and sends them.

    Args:
        provider: of the SDK; it is closed by `close`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer(_SERVICE, importlib.metadata.version(_SERVICE))
        self._propagator = TraceContextTextMapPropagator()

    def start(self, headers: Iterable[tuple[bytes, bytes]]) -> Trace:
        """Begin a request.

        Args:
            headers: the request's, as ASGI has them; `traceparent` and `tracestate` are read (W3C Trace Context).
        """
        return Trace(headers)

    def end(self, trace: Trace, *, method: str, route: str | None, status: int | None) -> None:
        """Make the spans of a request that is over. Never raises.

        Args:
            trace: from `start`; not used again.
            method: of HTTP.
            route: the template of its path, `/v1/tenants/{tenant}/suggestions`; None for a path that is not served.
            status: of the answer; None when none was given because the caller went away.
        """
        try:
            self._end(trace, method if method in _METHODS else "_OTHER", route, status)
        except Exception:  # noqa: BLE001  # the request is answered, whatever becomes of its trace
            _LOG.exception("a request could not be traced")

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for so long at most, and stop. Blocks."""
        # The SDK's own bound is 30 seconds; a process that was told to end has no such time for an absent collector.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(seconds)
        if closing.is_alive():
            _LOG.warning("the last traces could not be sent", extra={"seconds": seconds})

    def _end(self, trace: Trace, method: str, route: str | None, status: int | None) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        attributes: dict[str, str | int] = {"http.request.method": method}
        if route is not None:
            # What semantic conventions call the same thing in a server and in its clients.
            attributes["http.route"] = attributes["url.template"] = route
        if status is not None:
            attributes["http.response.status_code"] = status
        if status is None or status >= 500:
            attributes["error.type"] = "disconnected" if status is None else str(status)
        attributes |= trace._attributes
        verb = "HTTP" if method == "_OTHER" else method
        span = self._tracer.start_span(
            f"{verb} {route}" if route else verb,
            context=self._propagator.extract(trace._caller, context=Context()),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=int(trace._began * 1e9) + trace._offset,
        )
        if span.is_recording():
            if "error.type" in attributes:
                span.set_status(StatusCode.ERROR)
            inside = set_span_in_context(span, Context())
            for name, start, end in trace._phases:
                child = self._tracer.start_span(name, context=inside, start_time=int(start * 1e9) + trace._offset)
                child.end(int(end * 1e9) + trace._offset)
            span.end(time.monotonic_ns() + trace._offset)


class TracingMiddleware:
    """ASGI middleware that traces requests, probes and scrapes apart.

    It belongs outermost, so that it sees each answer, and is only put there when tracing is on.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        trace = self._tracing.start(scope["headers"])
        status: int | None = None

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    if name == _REQUEST_ID:
                        trace.set("macrofleet.request_id", value.decode("latin-1"))
            await send(message)

        token = _CURRENT.set(trace)
        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            status = status or 500
            raise
        finally:
            _CURRENT.reset(token)
            path = getattr(scope.get("route"), "path", None)
            route = None if path is None else _CONVERTER.sub("}", path)
            self._tracing.end(trace, method=scope["method"], route=route, status=status)


def configure_tracing(environ: Mapping[str, str] | None = None) -> Tracing | None:
    """Tracing as the environment's `OTEL_…` variables say, or None when they do not ask for it.

    It is on when an OTLP endpoint is named and neither `OTEL_SDK_DISABLED=true` nor `OTEL_TRACES_EXPORTER=none` is
    there. Service name, resource, sampler, batches and the exporter's headers, certificates and time-out are read by
    the SDK itself.

    Args:
        environ: looked at for whether it is on; None takes the process's, which the SDK reads in any case.

    Returns:
        None also when they ask for what cannot be had; the log says so. A server does not stay down for its traces.
    """
    environ = os.environ if environ is None else environ
    if not (environ.get(_TRACES) or environ.get(_OTLP)):
        return None
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        _LOG.warning("traces are off: only OTLP over http/protobuf is spoken", extra={"protocol": protocol})
        return None

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    said = OTELResourceDetector().detect().attributes
    ours = {"service.name": _SERVICE, "service.version": importlib.metadata.version(_SERVICE)}
    try:
        resource = Resource.create({name: value for name, value in ours.items() if name not in said})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError:
        _LOG.exception("traces are off: one of the OTEL_ variables has a value that it cannot have")
        return None
    return Tracing(provider)
