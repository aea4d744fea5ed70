"""The Open Inference Protocol v2 (HTTP) over the data plane. A tenant is a model; `docs/open-inference.md` has the rest."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from registry.errors import InvalidInput, MacrofleetError, ModelNotFound
from serving.engine.model_status import ModelStatus
from serving.errors import inference_error, problem_for, problem_headers, retry_headers
from serving.faces.edge import MAX_BODY_BYTES, CallerWatch
from serving.faces.guard import GuardedRoute, grant_of, needs
from serving.faces.oip_tensors import (
    InferenceRequest,
    RequestedOutput,
    Tensor,
    decode_request,
    decompress,
    encode_response,
)
from serving.suggestions.asking import Answer
from serving.suggestions.choice import SuggestedMacro, is_blank
from serving.suggestions.reading import TicketReader

MAX_TICKETS = 32  # of one request: each counts against its tenant's limits like a request of its own
MAX_MACROS = 3
HEADER_LENGTH = "Inference-Header-Content-Length"
_EXTENSIONS = ["binary_tensor_data", "model_repository", "parameters"]
_INPUTS = [
    {"name": "TEXT", "datatype": "BYTES", "shape": [-1]},
    {"name": "LIMIT", "datatype": "INT32", "shape": [1], "optional": True},
]
_OUTPUTS = [
    {"name": "MACRO_ID", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "TITLE", "datatype": "BYTES", "shape": [-1, -1]},
    {"name": "SCORE", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "ABSTAINED", "datatype": "BOOL", "shape": [-1]},
    {"name": "SUGGESTION_ID", "datatype": "BYTES", "shape": [-1]},
]
_OUTPUT_NAMES = [str(output["name"]) for output in _OUTPUTS]
_ATTEMPTS = 3
_MAX_SECONDS = 60
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,4}")
_LOG = logging.getLogger(__name__)


class OipAnswering(Protocol):
    """What this face asks of `serving.answering.Answering`."""

    def ask(self, tenant: str) -> None:
        """Refuse a ticket of a tenant that is over its limits."""
        ...

    async def answer(
        self,
        tenant: str,
        text: str,
        *,
        ticket: str | None,
        limit: int,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Suggestions for one ticket."""
        ...


class OipControls(Protocol):
    """What this face asks of `serving.controls.Controls`."""

    def models(self) -> Sequence[ModelStatus]:
        """Every tenant of the fleet that has a model."""
        ...

    def models_of(self, tenants: Iterable[str]) -> Sequence[ModelStatus]:
        """Those of them that are of these tenants."""
        ...

    def model(self, tenant: str) -> ModelStatus:
        """One of them."""
        ...

    async def load_model(self, tenant: str) -> Any:
        """Done when the model is in memory."""
        ...

    async def unload_model(self, tenant: str) -> None:
        """Done when its memory is given back."""
        ...


class _RepositoryRequest(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    ready: bool = False
    parameters: dict[str, Any] = {}


class _OipRoute(GuardedRoute):
    """A route whose failures are answered as this protocol has it: `{"error": …}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except MacrofleetError as error:
                return _domain_error(request, error)
            except HTTPException as error:
                return inference_error(error.status_code, error.detail, error.headers)

        return answer


def make_oip_router(
    answering: OipAnswering, controls: OipControls, reader: TicketReader, *, is_ready: Callable[[], bool]
) -> APIRouter:
    """The routes of `/v2`.

    Args:
        is_ready: whether requests may be sent here.
    """
    # The protocol's own documents describe it better than a schema made of what FastAPI sees.
    router = APIRouter(prefix="/v2", route_class=_OipRoute, include_in_schema=False)

    # The first, since it is asked the most; what it reads, it reads itself, in half of FastAPI's time.
    @router.post("/models/{tenant}/infer")
    @router.post("/models/{tenant}/versions/{version}/infer")
    @needs("suggest")
    async def infer(request: Request) -> Response:
        tenant: str = request.path_params["tenant"]
        version: str | None = request.path_params.get("version")
        headers = request.headers
        body = _plain(await request.body(), headers.get("Content-Encoding"))
        asked = decode_request(body, header_length=headers.get(HEADER_LENGTH))
        messages, limit = _inputs(asked.inputs)
        wanted = _wanted(asked)
        timeout_seconds = _timeout_seconds(asked, headers.get("X-Request-Timeout-Ms"))
        if version is not None:
            _model(controls, tenant, version)
        with CallerWatch(request.receive):
            for _ in messages:
                answering.ask(tenant)
            texts, timeout_seconds = await _read(reader, tenant, messages, timeout_seconds)
            answers = await _suggest(
                answering,
                tenant,
                texts,
                request_id=asked.id,
                limit=limit,
                timeout_seconds=timeout_seconds,
            )
        served = answers[0].model_version
        if version not in {None, served}:
            raise _wrong_version(tenant, served)
        head: dict[str, Any] = {"model_name": tenant, "model_version": served}
        if asked.id is not None:
            head["id"] = asked.id
        if asked.parameters:
            head["parameters"] = asked.parameters
        tensors = _outputs(answers, limit)
        content, header_length = encode_response(head, [(tensors[output.name], output.binary) for output in wanted])
        if header_length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(header_length)})

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready() -> Response:
        return _ready(is_ready())

    @router.get("")
    @router.get("/")
    @needs("suggest")
    async def server() -> dict[str, Any]:
        return {
            "name": "macrofleet",
            "version": importlib.metadata.version("macrofleet"),
            "extensions": _EXTENSIONS,
        }

    @router.get("/models/{tenant}")
    @router.get("/models/{tenant}/versions/{version}")
    @needs("suggest")
    async def metadata(tenant: str, version: str | None = None) -> dict[str, Any]:
        model = _model(controls, tenant, version)
        return {
            "name": model.tenant,
            "versions": [_version(model)],
            "platform": "macrofleet",
            "inputs": _INPUTS,
            "outputs": _OUTPUTS,
        }

    @router.get("/models/{tenant}/ready")
    @router.get("/models/{tenant}/versions/{version}/ready")
    @needs("suggest")
    async def model_ready(tenant: str, version: str | None = None) -> Response:
        model = _model(controls, tenant, version)
        return _ready(model.serving_version is not None, name=model.tenant)

    @router.post("/repository/index")
    @needs("suggest")
    async def index(request: Request) -> Response:
        asked = _repository_request(await request.body())
        tenant = grant_of(request).tenant
        models = controls.models() if tenant is None else controls.models_of([tenant])
        return JSONResponse([_indexed(model) for model in models if model.serving_version or not asked.ready])

    @router.post("/repository/models/{tenant}/load")
    @needs("operator")
    async def load(tenant: str, request: Request) -> Response:
        if _repository_request(await request.body()).parameters:
            raise InvalidInput("a load takes no parameters", remedy="The fleet alone says what is served.")
        await controls.load_model(tenant)
        return Response(media_type="application/json")

    @router.post("/repository/models/{tenant}/unload")
    @needs("operator")
    async def unload(tenant: str, request: Request) -> Response:
        _repository_request(await request.body())  # "unload_dependents": no model has any
        await controls.unload_model(tenant)
        return Response(media_type="application/json")

    @router.api_route("/{rest:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    @needs("suggest")
    async def unknown() -> Response:
        raise HTTPException(404, "There is no such endpoint.")

    return router


def _domain_error(request: Request, error: MacrofleetError) -> Response:
    problem = problem_for(error)
    if problem.status >= 500:
        extra = {"tenant": request.path_params.get("tenant"), "status": problem.status}
        _LOG.warning(problem.title, extra=extra, exc_info=error)
    status = problem.status
    if isinstance(error, InvalidInput):
        status = 400
    elif isinstance(error, ModelNotFound):
        status = 404  # a model is all that there is of a tenant here
    return inference_error(status, problem.detail or str(error), {**problem_headers(problem), **retry_headers(error)})


def _ready(is_ready: bool, **more: str) -> Response:
    """The protocol says false with a status of 4xx, where our own /readyz has 503."""
    return JSONResponse({**more, "ready": is_ready}, status_code=200 if is_ready else 400)


def _version(model: ModelStatus) -> str:
    """What an inference would be answered by."""
    return model.serving_version or model.version


def _model(controls: OipControls, tenant: str, version: str | None) -> ModelStatus:
    model = controls.model(tenant)
    if version not in {None, _version(model)}:
        raise _wrong_version(tenant, _version(model))
    return model


def _wrong_version(tenant: str, served: str) -> ModelNotFound:
    return ModelNotFound(
        f"this server serves version {served} of {tenant} and no other",
        remedy="Leave the version out; the fleet says which one serves.",
    )


def _indexed(model: ModelStatus) -> dict[str, str]:
    reason = ""
    if model.serving_version:
        state = "READY"
    elif model.state == "fetching":
        state = "LOADING"
    else:
        state = "UNAVAILABLE"
        # What the error says names files and addresses.
        reason = "the last load failed; the log says why" if model.error else "unloaded; the next request loads it"
    return {"name": model.tenant, "version": _version(model), "state": state, "reason": reason}


def _repository_request(body: bytes) -> _RepositoryRequest:
    if not body:
        return _RepositoryRequest()
    try:
        return _RepositoryRequest.model_validate_json(body)
    except ValidationError:
        raise InvalidInput(
            "the body is not a request of the model repository extension",
            remedy='Send nothing, {"ready": true} to an index, or {"parameters": {}}.',
        ) from None


def _plain(body: bytes, encoding: str | None) -> bytes:
    match (encoding or "identity").strip().lower():
        case "identity":
            return body
        case "gzip" | "deflate" as known:
            content = decompress(body, known, max_bytes=MAX_BODY_BYTES)
        case _:
            raise HTTPException(
                415, "The body may be compressed with gzip or deflate.", {"Accept-Encoding": "gzip, deflate, identity"}
            )
    if content is None:
        raise HTTPException(413, f"A request's body may have {MAX_BODY_BYTES} bytes, uncompressed as well.")
    return content


def _inputs(tensors: Sequence[Tensor]) -> tuple[Sequence[str], int]:
    """The tickets' texts as they came, and how many macros are wanted for each."""
    found = {(tensor.name, tensor.datatype): tensor for tensor in tensors}
    text = found.pop(("TEXT", "BYTES"), None)
    limit = found.pop(("LIMIT", "INT32"), None)
    if text is None or found:
        raise InvalidInput("the inputs are TEXT, of datatype BYTES, and where it is wanted LIMIT, of datatype INT32")
    if len(text.shape) not in {1, 2} or text.shape[1:] not in {(), (1,)}:
        raise InvalidInput("the shape of TEXT is [tickets] or [tickets, 1]")
    if not 1 <= len(text.values) <= MAX_TICKETS:
        raise InvalidInput(f"a request has 1 to {MAX_TICKETS} tickets")
    if limit is not None and (limit.shape != (1,) or not 1 <= limit.values[0] <= MAX_MACROS):
        raise InvalidInput(f"LIMIT is one number, of shape [1], from 1 to {MAX_MACROS}")
    return text.values, MAX_MACROS if limit is None else limit.values[0]


async def _read(
    reader: TicketReader, tenant: str, messages: Sequence[str], timeout_seconds: float | None
) -> tuple[list[str], float | None]:
    """What a model reads of each, and how long the caller waits from then on."""
    texts, timeout_seconds = await reader.read_all(tenant, [("", [message]) for message in messages], timeout_seconds)
    for index, said in enumerate(texts):
        if is_blank(said):
            raise InvalidInput(f"element {index} of TEXT has nothing to read")
    return texts, timeout_seconds


def _wanted(asked: InferenceRequest) -> Sequence[RequestedOutput]:
    if not asked.outputs:
        return [RequestedOutput(name, asked.binary_output) for name in _OUTPUT_NAMES]
    if any(output.name not in _OUTPUT_NAMES for output in asked.outputs):
        raise InvalidInput(f"the outputs are {', '.join(_OUTPUT_NAMES)}")
    return asked.outputs


def _timeout_seconds(asked: InferenceRequest, milliseconds: str | None) -> float | None:
    """The sooner of the protocol's `timeout` and our own header; None without either."""
    given = []
    timeout = asked.parameters.get("timeout", 0)
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise InvalidInput("the parameter timeout is not a number of microseconds")
    if timeout:
        given.append(min(timeout / 1e6, _MAX_SECONDS))
    if milliseconds is not None:
        if not _MILLISECONDS.fullmatch(milliseconds) or int(milliseconds) > _MAX_SECONDS * 1000:
            raise InvalidInput(f"X-Request-Timeout-Ms is not a number from 1 to {_MAX_SECONDS * 1000}")
        given.append(int(milliseconds) / 1e3)
    return min(given, default=None)


async def _suggest(
    answering: OipAnswering,
    tenant: str,
    texts: Sequence[str],
    *,
    request_id: str | None,
    limit: int,
    timeout_seconds: float | None,
) -> list[Answer]:
    """An answer for each text, all of one version; after `ask`. Tickets of a request without an id are known by their texts.

    Each takes a lease of its own, so a swap may come between two of them: then all are answered again, which costs the
    tenant nothing of its rate.
    """

    async def answered(text: str, ticket: str | None, left: float | None) -> Answer:
        return await answering.answer(tenant, text, ticket=ticket, limit=limit, timeout_seconds=left)

    tickets = [None if request_id is None else f"{request_id}:{index}" for index in range(len(texts))]
    ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    for _ in range(_ATTEMPTS):
        left = None if ends is None else max(0.0, ends - time.monotonic())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(answered(text, ticket, left)) for text, ticket in zip(texts, tickets, strict=True)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        answers = [task.result() for task in tasks]
        if len({answer.model_version for answer in answers}) == 1:
            return answers
    raise HTTPException(503, "The tenant's model was replaced meanwhile, again and again.", {"Retry-After": "1"})


def _outputs(answers: Sequence[Answer], limit: int) -> dict[str, Tensor]:
    """By name. Rows with fewer than `limit` macros are filled up with "" and 0."""
    rows = [answer.suggestions.macros for answer in answers]
    blank = SuggestedMacro("", "", 0.0)
    cells = [macro for row in rows for macro in (*row, *[blank] * (limit - len(row)))]
    tickets, table = (len(rows),), (len(rows), limit)
    tensors = [
        Tensor("MACRO_ID", "BYTES", table, [macro.id for macro in cells]),
        Tensor("TITLE", "BYTES", table, [macro.title for macro in cells]),
        Tensor("SCORE", "FP32", table, [macro.score for macro in cells]),
        Tensor("ABSTAINED", "BOOL", tickets, [not row for row in rows]),
        Tensor("SUGGESTION_ID", "BYTES", tickets, [answer.suggestion_id for answer in answers]),
    ]
    return {tensor.name: tensor for tensor in tensors}
