"""The console's two cookies: who is signed in, and, before that, which browser was shown the form to sign in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from flows.console.sessions import Session

# In a scope: what a form has to send back.
CSRF: Final = "macrofleet.csrf"
Answer = TypeVar("Answer", bound=Response)


class Cookies:
    """Sets and reads them; no script sees either, and no other site's page sends them.

    Args:
        secure: whether they go over HTTPS only.
    """

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure
        # With this prefix browsers take a cookie over HTTPS and from this very host only.
        prefix = "__Host-" if secure else ""
        self._session, self._before = f"{prefix}macrofleet_console", f"{prefix}macrofleet_sign_in"
        self._secret = secrets.token_bytes(32)

    def session_token(self, request: Request) -> str:
        """What names a session; empty where nobody is signed in."""
        return request.cookies.get(self._session, "")

    def form_token(self, request: Request) -> str:
        """What the form to sign in has to send back; empty for a browser that was not shown it."""
        nonce = request.cookies.get(self._before, "")
        return self._token(nonce) if nonce else ""

    def before_signing_in(self, request: Request, render: Callable[[], Answer]) -> Answer:
        """A page with the form to sign in."""
        nonce = request.cookies.get(self._before) or secrets.token_urlsafe(24)
        request.scope[CSRF] = self._token(nonce)
        answer = render()
        self._set(answer, self._before, nonce)
        return answer

    def signed_in(self, answer: Response, session: Session) -> None:
        """Give a browser its session."""
        self._set(answer, self._session, session.token)
        self._drop(answer, self._before)

    def signed_out(self, answer: Response) -> None:
        """Take it away."""
        self._drop(answer, self._session)

    def _token(self, nonce: str) -> str:
        return hmac.new(self._secret, nonce.encode(), hashlib.sha256).hexdigest()

    def _set(self, answer: Response, name: str, value: str) -> None:
        answer.set_cookie(name, value, path="/", secure=self._secure, httponly=True, samesite="strict")

    def _drop(self, answer: Response, name: str) -> None:
        answer.delete_cookie(name, path="/", secure=self._secure, httponly=True, samesite="strict")
