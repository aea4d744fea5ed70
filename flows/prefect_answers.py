"""Prefect's errors as the domain's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.exceptions import PrefectHTTPStatusError

from registry.errors import SchedulerUnavailable

# What Prefect's client says, in a RuntimeError, of a server that it does not reach.
_NOT_REACHED = "Failed to reach API"
_REFUSED = frozenset({401, 403})


@contextmanager
def asking_prefect(remedy: str = "Check PREFECT_API_URL, and run it again.") -> Iterator[None]:
    """Requests to Prefect's server within this context.

    Args:
        remedy: what to do where it does not answer.

    Raises:
        SchedulerUnavailable: it does not answer, or refuses these credentials.
    """
    try:
        yield
    except PrefectHTTPStatusError as problem:
        if problem.response.status_code in _REFUSED:
            raise SchedulerUnavailable(
                f"Prefect's server refuses these credentials ({problem.response.status_code})",
                remedy="Set PREFECT_API_AUTH_STRING to what the server has as PREFECT_SERVER_API_AUTH_STRING.",
            ) from None
        raise SchedulerUnavailable(
            f"Prefect's server does not answer ({problem.response.status_code})", remedy=remedy
        ) from None
    except httpx.HTTPError as problem:
        raise SchedulerUnavailable(
            f"Prefect's server does not answer ({type(problem).__name__})", remedy=remedy
        ) from None
    except RuntimeError as problem:
        if _NOT_REACHED not in str(problem):
            raise
        raise SchedulerUnavailable("Prefect's server does not answer", remedy=remedy) from None
