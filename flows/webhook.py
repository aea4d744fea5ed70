"""Telling a webhook how a run ended. That it could not be told is a warning of the run, and never its failure.

The address often is the secret (chats' incoming webhooks), so it stands in no message: neither ours nor a library's.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.errors import InvalidInput, WebhookRefused, WebhookUnavailable
from registry.retrying import patiently

_ATTEMPTS = 4
_REMEDY = "Set MACROFLEET_WEBHOOK_URL to an http or https address that takes a POST of JSON, or unset it."


class WebhookSettings(BaseSettings):
    """Where to tell it.

    Attributes:
        webhook_url: takes a POST of JSON at the end of every run; None tells nobody.
        webhook_timeout_seconds: for each of four attempts.
    """

    model_config = SettingsConfigDict(
        env_prefix="MACROFLEET_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    webhook_url: SecretStr | None = None
    webhook_timeout_seconds: float = Field(default=10.0, gt=0, le=300)


def notify(settings: WebhookSettings, body: Mapping[str, Any], *, first_wait_seconds: float = 1.0) -> None:
    """Send `body` as JSON; where nothing is set, do nothing.

    Tried four times, with growing waits that differ from run to run. Redirects are not followed.

    Raises:
        InvalidInput: what is set is no address.
        WebhookRefused, WebhookUnavailable: it was not told.
    """
    if settings.webhook_url is None:
        return
    request = _request(settings.webhook_url.get_secret_value(), body)
    patiently(
        lambda: _post(request, settings.webhook_timeout_seconds),
        on=WebhookUnavailable,
        attempts=_ATTEMPTS,
        first_wait_seconds=first_wait_seconds,
        longest_wait_seconds=10 * first_wait_seconds,
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Elsewhere is nobody that the operator named."""


def _request(url: str, body: Mapping[str, Any]) -> urllib.request.Request:
    try:
        parts = urlsplit(url)
        usable = url.isascii() and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc:
        raise InvalidInput("the webhook's address cannot be used", remedy=_REMEDY)
    data = json.dumps(body, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "macrofleet"}
    return urllib.request.Request(url, data, headers, method="POST")  # noqa: S310  # its scheme is checked above


def _post(request: urllib.request.Request, timeout: float) -> None:
    # The standard library's: httpx logs addresses at INFO and urllib3 at DEBUG, and their errors quote them.
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout):
            return
    except urllib.error.HTTPError as problem:
        status = problem.code
        problem.close()
    except (OSError, http.client.HTTPException, UnicodeError) as problem:
        raise WebhookUnavailable(f"the webhook does not answer ({type(problem).__name__})") from None
    if status in {408, 425, 429} or status >= 500:
        raise WebhookUnavailable(f"the webhook answers with status {status}")
    raise WebhookRefused(f"the webhook answers with status {status}", remedy=_REMEDY)
