"""The ASGI applications, composed: the product's and the operator's faces over one data plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.deletion.tombstones import buried_among
from registry.store import ObjectStore
from serving.access import (
    ANY_SUGGESTION,
    EVERYTHING,
    Doorkeeper,
    OpenDoor,
    PublishedAccess,
    add_access_metrics,
    open_access,
)
from serving.data_plane import DataPlane
from serving.errors import add_error_handlers
from serving.faces.admin import make_admin_router
from serving.faces.batch import BatchRequest, make_batch_router
from serving.faces.early import Headers
from serving.faces.edge import Edge, QuickEdge
from serving.faces.feedback import FeedbackRequest, make_feedback_router
from serving.faces.guard import Authentication, GuardedRoute
from serving.faces.oip import make_oip_router
from serving.faces.product import SuggestionFace, add_schemas, make_health_router, make_router
from serving.feedback.journal import journals_folder
from serving.feedback.log import FeedbackLog, add_feedback_metrics
from serving.feedback.shipping import Shipper
from serving.metrics import Metrics, make_metrics_router
from serving.observing import Observer
from serving.settings import ServingSettings
from serving.stores import add_store_metrics, home_of
from serving.suggestions.reading import TicketReader
from serving.suggestions.views import Views
from serving.tracing import Tracing, TracingMiddleware


class _App(FastAPI):
    """FastAPI's application with a face of its own outside of it.

    Every layer costs each request; the busiest route needs none of them.
    """

    def __init__(self, face: SuggestionFace, metrics: Metrics, doorkeeper: Doorkeeper, **more: Any) -> None:
        super().__init__(**more)
        self._edge = QuickEdge(super().__call__, metrics, face, doorkeeper)
        self._outermost: ASGIApp = self._edge

    def trace_with(self, tracing: Tracing) -> None:
        """Trace requests, outside of everything else."""
        self._outermost = TracingMiddleware(self._outermost, tracing)

    def early_answer(self, scope: Scope) -> tuple[int, Headers, bytes] | None:
        """See `serving.faces.early`. What is traced goes the usual way, so that refusals are traced too."""
        return self._edge.early_answer(scope) if self._outermost is self._edge else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        made_before = self.openapi_schema is not None
        schema = super().openapi()
        if not made_before:
            add_schemas(schema, BatchRequest, FeedbackRequest)
        return schema


@dataclass(frozen=True, slots=True)
class Apps:
    """The two applications of a server.

    Attributes:
        public: the product API and health; its lifespan runs the data plane.
        operator: `/admin`, `/metrics`, `/v2` and health; works while the lifespan of `public` lasts.
        access: the API keys; None where nobody is asked for one.
        feedback: on its way to the store.
    """

    public: FastAPI
    operator: FastAPI
    data_plane: DataPlane
    access: PublishedAccess | None
    feedback: FeedbackLog


def create_apps(
    settings: ServingSettings,
    store: ObjectStore,
    tracing: Tracing | None = None,
    *,
    observer: Observer | None = None,
) -> Apps:
    """The applications that serve the fleet of `store`.

    Args:
        settings: the addresses are not looked at.
        store: feedback is written to it, or to the home store of two, and nothing else.
        tracing: from `configure_tracing`; whoever configured it closes it, after the lifespan.
        observer: hears of every view, instead of the journal of feedback.
    """
    access = open_access(settings, store) if settings.access == "keys" else None
    data_plane = DataPlane(settings, store, also_ready=lambda: access is None or access.ready)
    add_store_metrics(data_plane.metrics, store)
    home = home_of(store)
    feedback = FeedbackLog(
        journals_folder(settings.disk_folder, home.url),
        Shipper(home, is_known=data_plane.knows, deleted_among=lambda tenants: buried_among(home, tenants)),
        max_bytes=settings.feedback_bytes,
        segment_bytes=settings.feedback_segment_bytes,
        segment_seconds=settings.feedback_segment_seconds,
        tenant_seconds=3600 / settings.feedback_objects_per_hour,
    )
    add_feedback_metrics(data_plane.metrics, feedback)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if access is not None:
                await stack.enter_async_context(access.running())
            await stack.enter_async_context(data_plane.running())
            await stack.enter_async_context(feedback.running())
            yield

    doorkeepers: dict[str, Doorkeeper]
    if access is not None:
        doorkeepers = {"public": access, "operator": access}
        add_access_metrics(data_plane.metrics, access)
    else:
        # Whoever reaches a loopback address can reach the operator's as well.
        doorkeepers = {"public": OpenDoor(ANY_SUGGESTION if settings.insecure else EVERYTHING), "operator": OpenDoor()}
    reader = TicketReader(timeout_seconds=settings.request_timeout_ms / 1000, metrics=data_plane.metrics)
    views = Views(observer or feedback, share_of=data_plane.holdback_share, salt=settings.holdback_salt)
    face = SuggestionFace(data_plane.answering, views, reader)
    public = _App(
        face,
        data_plane.metrics,
        doorkeepers["public"],
        title="macrofleet",
        summary="Macro suggestions for support tickets, from one model per tenant",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # the page fetches its scripts from elsewhere; /openapi.json is there
        redoc_url=None,
    )
    operator = FastAPI(
        title="macrofleet operator",
        summary="One replica: its models, its metrics, and the Open Inference Protocol",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    if tracing is not None:
        public.trace_with(tracing)
    for name, app in (("public", public), ("operator", operator)):
        app.add_middleware(Authentication, doorkeeper=doorkeepers[name], metrics=data_plane.metrics)
        app.add_middleware(Edge, metrics=data_plane.metrics)
        if tracing is not None and app is operator:
            app.add_middleware(TracingMiddleware, tracing=tracing)  # outermost: it sees what the edge answers
        add_error_handlers(app)
        app.include_router(make_health_router(data_plane))
    public.include_router(make_router(face))
    public.include_router(make_batch_router(face))
    public.include_router(make_feedback_router(data_plane.answering, data_plane.outcomes, feedback))
    operator.include_router(make_router(face), include_in_schema=False)
    operator.include_router(make_batch_router(face), include_in_schema=False)
    operator.include_router(make_admin_router(data_plane.controls, access))
    operator.include_router(make_metrics_router(data_plane.metrics, GuardedRoute))
    operator.include_router(
        make_oip_router(
            data_plane.answering, data_plane.controls, reader, is_ready=lambda: data_plane.readiness().ready
        )
    )
    return Apps(public, operator, data_plane, access, feedback)


def create_app(settings: ServingSettings, store: ObjectStore) -> FastAPI:
    """The public application alone; see `create_apps`."""
    return create_apps(settings, store).public
