"""What the server's OpenAPI document promises, held to by requests that schemathesis makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.fleets import publish_tenants
from flows.local_server import LocalServer
from registry.model.program import publish_program
from registry.store.local import LocalStore
from tests.serving.helpers import BuiltProgram

EXAMPLES = 60
_TENANT = "/v1/tenants/{tenant}"
TAKING = (f"{_TENANT}/suggestions", f"{_TENANT}/suggestions/batch", f"{_TENANT}/feedback")
TELLING = ("/healthz", "/readyz")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("promises")
    store = LocalStore(folder / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    environment = {
        "MACROFLEET_STORE_URL": str(folder / "store"),
        "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
        "MACROFLEET_TRUSTED_PROGRAMS": bag.digest,
        "MACROFLEET_ACCESS": "open",
        "MACROFLEET_REQUEST_TIMEOUT_MS": "60000",
    }
    with LocalServer(folder, environment) as server:
        yield server.url


def document_without_keys(url: str) -> dict[str, Any]:
    """What the server says of itself, but for its callers: this one lets everybody in."""
    document: dict[str, Any] = httpx.get(f"{url}/openapi.json").json()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return document


def test_the_document_names_every_route_that_is_tried(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    assert set(document["paths"]) == {*TAKING, *TELLING}


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        *((path, mode) for path in TAKING for mode in ("POSITIVE", "NEGATIVE")),
        *((path, "POSITIVE") for path in TELLING),
    ],
)
def test_answers_are_as_the_document_says(url: str, path: str, mode: str) -> None:
    """Statuses, content types and bodies; and what breaks the schema is refused, never with an error of the server."""
    # Here, and without its plugin (pyproject.toml): it takes 0.4 s in each process that runs tests.
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    method = "POST" if path in TAKING else "GET"
    promised = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    # What is wrong with one request of a batch is said in its place.
    if mode == "NEGATIVE" and not path.endswith("/batch"):
        promised.append(checks.negative_data_rejection)
    operation = schemathesis.openapi.from_dict(document_without_keys(url))[path][method]
    cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])
    statuses = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=st.booleans())
    def drive(case: Any, known: bool) -> None:
        if known and "tenant" in (case.path_parameters or {}):
            case.path_parameters["tenant"] = "acme"
        statuses.add(case.call_and_validate(url, checks=promised).status_code)

    drive()
    if mode == "POSITIVE":
        assert (202 if path.endswith("/feedback") else 200) in statuses
    else:
        assert 422 in statuses
