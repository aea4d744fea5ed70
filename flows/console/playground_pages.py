"""The playground: a ticket is typed, a server suggests, and the words behind each macro are shown. Nothing of it is kept."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flows.console.guard import form_of, session_of
from flows.console.servers import Suggestions
from flows.console.words import marked, words_of
from flows.console.world import World
from registry.errors import MacrofleetError
from registry.names import check_tenant, is_tenant

MOST_CHARACTERS = 20_000
_LISTED = 500


def playground_router(world: World) -> APIRouter:
    """`/playground`."""
    router = APIRouter(prefix="/playground")

    def page(request: Request, *, status: int = 200, **given: Any) -> Response:
        values = {"tenant": "", "subject": "", "body": "", "answer": None, "macros": (), "problem": ""} | given
        serving = [row.tenant for row in world.index.rows.rows if row.version is not None]
        return world.pages.page(
            request,
            "playground.html",
            status=status,
            tenants=serving if len(serving) <= _LISTED else (),
            servers=len(world.servers.urls),
            most=MOST_CHARACTERS,
            **values,
        )

    @router.get("")
    def show(request: Request, tenant: str = "") -> Response:
        return page(request, tenant=tenant if is_tenant(tenant) else "")

    @router.post("")
    def ask(request: Request) -> Response:
        form = form_of(request)
        tenant = form.get("tenant", "").strip().lower()
        subject, body = form.get("subject", "").strip()[:1000], form.get("body", "").strip()[:MOST_CHARACTERS]
        given: dict[str, Any] = {"tenant": tenant, "subject": subject, "body": body}
        if not subject and not body:
            return page(request, status=422, problem="Type a ticket: a subject, or what the customer wrote.", **given)
        try:
            check_tenant(tenant)
            answer = world.servers.suggest(tenant, subject=subject, body=body, key=session_of(request).key)
        except MacrofleetError as error:
            return page(request, status=422, problem=str(error), **given)
        return page(request, answer=answer, macros=_shown(answer, subject, body), **given)

    return router


def _shown(answer: Suggestions, subject: str, body: str) -> list[dict[str, Any]]:
    text = "\n".join(part for part in (subject, body) if part)
    shown = []
    for macro in answer.macros:
        words = words_of(macro)
        shown.append(
            {
                "id": str(macro.get("id", "")),
                "title": str(macro.get("title", "")),
                "score": float(macro.get("score", 0)),
                "words": words,
                "pieces": marked(text, words),
            }
        )
    return shown
