"""Signing in with an operator's key, and out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from flows.console.guard import SIGN_IN, form_of, session_of
from flows.console.world import World


def sign_in_router(world: World) -> APIRouter:
    """`/sign-in` and `/sign-out`."""
    router = APIRouter()

    def form(request: Request, *, problem: str = "", status: int = 200, there: str = "/") -> Response:
        def page() -> Response:
            return world.pages.page(request, "sign_in.html", status=status, problem=problem, there=there)

        return world.cookies.before_signing_in(request, page)

    @router.get(SIGN_IN)
    def show(request: Request) -> Response:
        return form(request, there=_inside(request.query_params.get("next", "/")))

    @router.post(SIGN_IN)
    def enter(request: Request) -> Response:
        given = form_of(request)
        there = _inside(given.get("next", "/"))
        session = world.sessions.sign_in(given.get("key", "").strip())
        if session is None:
            # Nobody is told whether it is another's key, an expired one, or none.
            return form(request, problem="That is no operator's key, or none any more.", status=403, there=there)
        answer = RedirectResponse(there, status_code=303)
        world.cookies.signed_in(answer, session)
        return answer

    @router.post("/sign-out")
    def leave(request: Request) -> Response:
        world.sessions.end(session_of(request).token)
        answer = RedirectResponse(SIGN_IN, status_code=303)
        world.cookies.signed_out(answer)
        return answer

    return router


def _inside(address: str) -> str:
    """An address of the console's own to go to; its first page for any other."""
    usable = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if usable else "/"
