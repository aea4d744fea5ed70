"""SageMaker's contract for containers that serve many models: the platform says what is in memory, we answer.

The calls and their statuses are Amazon's (`docs/sagemaker.md` has the table). An alias, the contract's `model_name`, is
opaque and never becomes a path; whose model it is, the bundle's manifest says.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from registry.errors import (
    BundleCorrupt,
    DeadlineExceeded,
    InvalidInput,
    MacrofleetError,
    ModelAlreadyLoaded,
    ModelNotFound,
    NotReady,
    OutOfResources,
    ProgramCorrupt,
    ProgramUntrusted,
)
from registry.model.runtime import BoundModel, Features
from serving.access import Grant, OpenDoor, PublishedAccess, add_access_metrics
from serving.engine.executor import Executor, Scores
from serving.engine.local_bundles import LocalBundles, LocalModel
from serving.engine.local_models import Loaded, LocalModels, the_only
from serving.errors import Problem, add_error_handlers, problem_response
from serving.faces.edge import CallerWatch, Edge
from serving.faces.guard import Authentication, GuardedRoute, grant_of, needs
from serving.faces.product import MacroOut, SuggestionRequest, SuggestionResponse
from serving.garbage import settle_garbage_collector
from serving.metrics import Metrics, make_metrics_router
from serving.settings import ServingSettings
from serving.suggestions.choice import choose, is_blank
from serving.suggestions.reading import TicketReader
from serving.suggestions.suggestion_id import suggestion_id
from serving.tracing import Tracing, TracingMiddleware, current_trace

TARGET_HEADER = "X-Amzn-SageMaker-Target-Model"
MAX_ALIAS = 1024
PAGE = 100

_NOT_LOADED = Problem(404, "model-not-loaded", "Model not loaded")
_BAD_REQUEST = Problem(400, "bad-request", "Malformed request")
# A sentence of its own, since the error behind it names a tenant and files; the platform passes this on to its caller.
_UNUSABLE = Problem(
    400,
    "model-unusable",
    "Model cannot be used",
    "Its files are damaged, or it needs a program that this container does not have or may not execute.",
)
_NOT_USABLE = (BundleCorrupt, ProgramCorrupt, ProgramUntrusted)
_LOG = logging.getLogger(__name__)


class _Alias(Convertor[str]):
    regex = "(?s:.+)"  # everything: slashes and line ends, too

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("alias", _Alias())


class _LoadRequest(BaseModel):
    """What `POST /models` says; what else the platform may send is not looked at."""

    model_config = ConfigDict(strict=True, frozen=True, protected_namespaces=())

    model_name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_ALIAS)]
    url: str


def create_sagemaker_app(
    settings: ServingSettings,
    *,
    programs_folder: Path,
    access: PublishedAccess | None,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """An application that speaks the multi-model container contract. It works while its lifespan lasts.

    Args:
        settings: `memory_bytes`, `request_timeout_ms`, `max_queue`, `trusted_programs` and `signing_key` count here.
        programs_folder: the programs that the image brings, each in a folder under its digest.
        access: the keys that callers are asked for: an operator's for models, a tenant's for its answers. None asks nobody:
            the platform has let in whoever reaches the container.
        metrics: counts what happens; `GET /metrics` shows it, to whoever reaches the container.
        tracing: from `configure_tracing`; whoever configured it closes it, after the lifespan.

    Raises:
        InvalidInput: there is no program in the folder that may be executed.
    """
    metrics = metrics or Metrics()
    face = _Face(settings, programs_folder, metrics)
    if access is not None:
        add_access_metrics(metrics, access)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if access is not None:
                await stack.enter_async_context(access.running())
            await stack.enter_async_context(face.running())
            yield

    app = FastAPI(title="macrofleet", lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    app.add_middleware(Authentication, doorkeeper=OpenDoor() if access is None else access, metrics=metrics)
    app.add_middleware(Edge, metrics=metrics)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing)  # outermost: it sees what the edge answers
    add_error_handlers(app)
    # Elsewhere a tenant without a model; here an alias that nothing is loaded under, which the platform may put right.
    app.add_exception_handler(ModelNotFound, _not_loaded)
    app.include_router(face.make_router())
    app.include_router(make_metrics_router(metrics, GuardedRoute))
    return app


async def _not_loaded(request: Request, error: Exception) -> Response:
    return problem_response(_NOT_LOADED, path=request.url.path, detail=str(error))


class _Face:
    def __init__(self, settings: ServingSettings, programs_folder: Path, metrics: Metrics) -> None:
        self._settings = settings
        self._key = settings.signing_key.get_secret_value().encode()
        self._metrics = metrics
        self._reader = TicketReader(timeout_seconds=settings.request_timeout_ms / 1000, metrics=metrics)
        self._bundles = LocalBundles(
            programs_folder, trusted=settings.trusted_programs, max_queue=settings.max_queue, metrics=metrics
        )
        self._models: LocalModels[LocalModel] = LocalModels(
            weigh=self._bundles.weigh, load=self._bundles.load, budget_bytes=settings.memory_bytes
        )
        self._ready = False
        memory, budget = {"tier": "memory"}, settings.memory_bytes
        metrics.gauge("macrofleet_models_loaded", "Models in memory", lambda: len(self._models))
        metrics.gauge("macrofleet_ready", "Whether requests may be sent here", lambda: float(self._ready))
        metrics.gauge("macrofleet_bytes", "Bytes of models", lambda: self._models.nbytes, labels=memory)
        metrics.gauge("macrofleet_budget_bytes", "What a tier may hold", lambda: budget, labels=memory)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Become ready while the context lasts, and let go of everything at its end."""
        starting = asyncio.create_task(self._start())
        try:
            yield
        finally:
            self._ready = False
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._models.close()
            self._bundles.close()

    async def _start(self) -> None:
        try:
            await self._bundles.open_programs()
        except Exception:  # noqa: BLE001  # red for good: the platform gives up on this container, and the log says why
            _LOG.exception("a program of this image cannot be loaded")
            return
        settle_garbage_collector()
        self._ready = True
        _LOG.info("ready")

    def make_router(self) -> APIRouter:
        """The routes of the contract."""
        router = APIRouter(route_class=GuardedRoute)
        router.add_api_route("/ping", self._ping, methods=["GET"])
        router.add_api_route("/models", self._load, methods=["POST"])
        router.add_api_route("/models", self._list, methods=["GET"])
        router.add_api_route("/models/{alias:alias}/invoke", self._invoke, methods=["POST"])
        router.add_api_route("/models/{alias:alias}", self._get, methods=["GET"])
        router.add_api_route("/models/{alias:alias}", self._unload, methods=["DELETE"])
        router.add_api_route("/invocations", self._invoke_target, methods=["POST"])
        return router

    async def _ping(self) -> Response:
        self._check_ready()
        return Response()

    async def _load(self, request: Request) -> Response:
        try:
            asked = _LoadRequest.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            return _bad(request, f"{where}: {first['msg']}")
        self._check_ready()
        try:
            await self._models.load(asked.model_name, asked.url, target=request.headers.get(TARGET_HEADER))
        except InvalidInput as error:
            return _bad(request, str(error))
        except ModelAlreadyLoaded:
            raise
        except OutOfResources:
            self._metrics.refused("out_of_resources")
            raise
        except MacrofleetError as error:
            self._metrics.load_failed(type(error).__name__)
            if not isinstance(error, _NOT_USABLE):
                raise
            _LOG.warning("a model cannot be used", extra={"alias": asked.model_name}, exc_info=error)
            return problem_response(_UNUSABLE, path=request.url.path)
        self._metrics.loaded()
        _LOG.info("model loaded", extra={"alias": asked.model_name, "models": len(self._models)})
        return JSONResponse({"status": "loaded"})

    async def _list(self, request: Request) -> Response:
        try:
            limit = int(request.query_params.get("limit", PAGE))
            token = request.query_params.get("next_page_token")
            after = None if not token else _alias_in(token)
        except ValueError:
            return _bad(request, "limit must be a number, and next_page_token one that an answer had")
        loaded, more = self._models.page(after=after, limit=limit if 1 <= limit <= PAGE else PAGE)
        answer: dict[str, object] = {"models": [_described(one) for one in loaded]}
        if more:
            answer["nextPageToken"] = _token_of(loaded[-1].alias)
        return JSONResponse(answer)

    async def _get(self, alias: str) -> Response:
        return JSONResponse(_described(self._models.find(alias)))

    async def _unload(self, alias: str) -> Response:
        began = time.monotonic()
        await self._models.unload(alias)
        self._metrics.phase("unload", time.monotonic() - began)
        self._metrics.evicted("memory", "unloaded")
        _LOG.info("model unloaded", extra={"alias": alias, "models": len(self._models)})
        return JSONResponse({"status": "unloaded"})

    @needs("suggest")
    async def _invoke(self, alias: str, request: Request) -> Response:
        return await self._answered(request, alias=alias)

    @needs("suggest")
    async def _invoke_target(self, request: Request) -> Response:
        return await self._answered(request, alias=None)

    async def _answered(self, request: Request, *, alias: str | None) -> Response:
        body = await request.body()
        self._check_ready()
        with CallerWatch(request.receive):
            answer = await self._suggest(alias, request.headers.get(TARGET_HEADER), body, grant_of(request))
        return Response(answer.model_dump_json(), media_type="application/json")

    def _find(self, alias: str | None, target: str | None, grant: Grant) -> LocalModel:
        """The model that a caller means: a tenant's caller among its own alone, whatever else is loaded."""
        if grant.tenant is None:
            return (self._models.find_by_target(target) if alias is None else self._models.find(alias)).model
        # In the same steps for another tenant's as for none. In one expression: an error would keep what a name is given to
        # in memory.
        return the_only([one.model for one in self._models.meant(alias, target) if one.model.tenant == grant.tenant])

    async def _suggest(self, alias: str | None, target: str | None, body: bytes, grant: Grant) -> SuggestionResponse:
        model = self._find(alias, target, grant)
        lent = _Lent(model.bound)
        if (trace := current_trace()) is not None:
            trace.set("macrofleet.tenant", model.tenant)
            trace.set("macrofleet.model.version", model.version)
        try:
            asked = _parse(body)
            if asked.explain:
                raise InvalidInput("explanations are not given here", remedy="Send false, or leave it out.")
            text, seconds = await self._reader.read(model.tenant, *asked.ticket.said(), timeout_seconds=None)
            scores = await self._score(lent, model.executor, text, tenant=model.tenant, seconds=seconds)
            return self._answer(model, asked, scores)
        finally:
            lent.take_back()
            del model

    async def _score(self, lent: _Lent, executor: Executor, text: str, *, tenant: str, seconds: float | None) -> Scores:
        if is_blank(text):
            raise InvalidInput("the ticket has no text", remedy="Send a subject, or a public comment of the customer.")
        if seconds is None:
            seconds = self._settings.request_timeout_ms / 1000
        try:
            async with asyncio.timeout(seconds):
                scores, job = await executor.score(lent, text, tenant=tenant, deadline=time.monotonic() + seconds)
        except TimeoutError:
            raise DeadlineExceeded("there was no answer within the deadline") from None
        if (trace := current_trace()) is not None:
            trace.phase("queue", job.queued, job.began)
            trace.phase("featurise", job.began, job.featurised)
            trace.phase("score", job.featurised, job.scored)
        return scores

    def _answer(self, model: LocalModel, asked: SuggestionRequest, scores: Scores) -> SuggestionResponse:
        manifest = model.bound.manifest
        policy = model.policy
        audience = policy.audience(asked.agent.groups if asked.agent else (), asked.ticket.locale)
        shown = policy.shown(model.version, model.bound.labels, audience)
        chosen = choose(scores, shown, exclude=asked.exclude, limit=asked.limit, threshold=manifest.threshold)
        return SuggestionResponse(
            suggestion_id=suggestion_id(
                self._key,
                tenant=manifest.tenant,
                ticket=asked.ticket.id,
                text="",  # it has an id
                revision=asked.ticket.revision,
                version=model.version,
                policy=policy.version,
                macros=[macro.id for macro in chosen.macros],
            ),
            model_version=model.version,
            abstained=not chosen.macros,
            reason=chosen.reason,
            macros=[MacroOut(id=macro.id, title=macro.title, score=macro.score) for macro in chosen.macros],
        )

    def _check_ready(self) -> None:
        if not self._ready:
            raise NotReady("the programs are being loaded")


class _Lent:
    """A model for the time of a request. What may live longer holds this and not the model: the executor's queue, and
    the frames of an error that somebody keeps, a log perhaps. An unload would wait for them.
    """

    __slots__ = ("_model",)

    def __init__(self, model: BoundModel) -> None:
        self._model: BoundModel | None = model

    def take_back(self) -> None:
        """End the loan; a call that is under way in another thread goes on."""
        self._model = None

    def score_ticket(self, features: Features, index: int) -> Scores:
        """See `BoundModel.score_ticket`."""
        if self._model is None:
            raise NotReady("nobody waits for this any more")
        try:
            return self._model.score_ticket(features, index)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            raise


def _parse(body: bytes) -> SuggestionRequest:
    try:
        return SuggestionRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(found) from None


def _bad(request: Request, detail: str) -> Response:
    return problem_response(_BAD_REQUEST, path=request.url.path, detail=detail)


def _described(loaded: Loaded[LocalModel]) -> dict[str, str]:
    return {"modelName": loaded.alias, "modelUrl": loaded.url}


def _token_of(alias: str) -> str:
    """A page token names the last alias of its page: what is loaded and unloaded meanwhile neither repeats nor hides."""
    return base64.urlsafe_b64encode(alias.encode()).decode()


def _alias_in(token: str) -> str:
    """Raises ValueError where no answer had such a token."""
    return base64.b64decode(token, altchars=b"-_", validate=True).decode()
