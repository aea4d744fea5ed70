"""MLflow over the network: a tracking server that is gone for a while, and answers that get lost on the way."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from registry.errors import InvalidInput, TrackingUnavailable
from registry.settings import StoreSettings
from registry.tracking.models import Tracking
from tests.registry.conftest import ask
from tests.registry.test_differences import manifest_of
from tests.registry.test_registering import versions
from tests.tcp_proxy import TcpProxy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[int]:
    """The port of MLflow's tracking server, in this process: starting another one takes longer than all else in here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow imports when it is first asked for runs is deprecated
        import mlflow.server.fastapi_app
    from mlflow.server.handlers import initialize_backend_stores
    from mlflow.tracking._model_registry import utils
    from werkzeug.serving import make_server

    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    # It names this registry for the whole process: clients of later tests would look there for their own versions.
    with patch.object(utils, "_registry_uri", None), patch.dict(os.environ):
        initialize_backend_stores(uri, uri, str(folder / "artifacts"))
        made = make_server("127.0.0.1", 0, mlflow.server.app, threaded=True)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made.server_port
        finally:
            made.shutdown()
            thread.join()
            made.server_close()


@pytest.fixture
def proxy(server: int, no_waiting: None) -> Iterator[TcpProxy]:
    with TcpProxy(server) as made:
        yield made


@pytest.fixture
def remote(proxy: TcpProxy, tmp_path: Path) -> Tracking:
    return Tracking(tracking_uri=proxy.url, store=StoreSettings(url=str(tmp_path / "store")))


@pytest.mark.parametrize(
    "path",
    ["runs/create", "runs/log-batch", "registered-models/create", "model-versions/create", "runs/update"],
)
def test_an_answer_that_is_lost_makes_no_second_version(
    remote: Tracking, proxy: TcpProxy, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    tenant = path.replace("/", "-")
    lost: list[bytes] = []

    def once(request: bytes) -> bool:
        if f"/mlflow/{path} ".encode() in request and not lost:
            lost.append(request)
            return True
        return False

    remote.prepare()
    proxy.lose_answer = once
    made = remote.register(manifest_of(tenant), parameters={}, tags={})
    assert lost
    (version,) = versions(remote, tenant)
    assert (str(version.version), version.run_id) == (made.version, made.run_id)
    run = ask(remote, "get_run", made.run_id)
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"threshold": 0.5}, {"seed": "0"})
    assert "cannot register a model (INTERNAL_ERROR); it is tried again" in caplog.text


def test_a_server_that_is_gone_is_waited_for_once_and_found_again(
    remote: Tracking, proxy: TcpProxy, server: int
) -> None:
    remote.prepare()
    proxy.port = 0
    proxy.drop()

    def asked() -> int:
        before = len(attempts)
        with pytest.raises(TrackingUnavailable, match="cannot look a model up") as caught:
            remote.find("gone", "0" * 64)
        assert "serving does not need it" in caught.value.remedy
        return len(attempts) - before

    attempts: list[int] = []
    remote.connection.ask = counted(remote.connection.ask, attempts)  # type: ignore[method-assign]
    assert asked() == 5
    assert asked() == 1, "a fleet of thousands does not wait for each tenant"
    proxy.port = server
    assert remote.register(manifest_of("gone"), parameters={}, tags={}).version == "1"
    proxy.port = 0
    proxy.drop()
    assert asked() == 5, "an answer restores the patience"


def test_what_is_wrong_is_not_tried_again(remote: Tracking, proxy: TcpProxy) -> None:
    remote.prepare()
    before = len(proxy.requests)
    with pytest.raises(InvalidInput):
        ask(remote, "search_runs", ["1"], "no filter")
    with pytest.raises(TrackingUnavailable, match="RESOURCE_DOES_NOT_EXIST"):
        ask(remote, "get_run", "0" * 32)
    assert len(proxy.requests) == before + 2


def counted(ask_mlflow: Callable[..., Any], attempts: list[int]) -> Callable[..., Any]:
    """The connection's `ask`, with each call of its work counted."""

    def counting(failure: str, work: Callable[[Any], Any]) -> Any:
        def attempt(client: Any) -> Any:
            attempts.append(1)
            return work(client)

        return ask_mlflow(failure, attempt)

    return counting
