"""AWS Multi Model Server: models registered one by one, a worker process each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from benchmarks.peers.results import PeerInfo
from benchmarks.peers.server import (
    TENSORFLOW,
    Peer,
    app,
    free_ports,
    http_request,
    labels_json,
    python_of,
    text_json,
    told,
)

_VMARGS = "-Xmx512m"
_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error"><Appenders><Console name="c"><PatternLayout pattern="%p %m%n"/></Console></Appenders>
<Loggers><Root level="error"><AppenderRef ref="c"/></Root></Loggers></Configuration>
"""


class MultiModelServer(Peer):
    """AWS Multi Model Server, which is inside SageMaker's multi-model endpoints: a worker process a model."""

    name = "mms"
    environment = "mms"
    explicit = True
    evicts = False
    load_threads = 2
    most_tenants = 100
    also_with = 40

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(
            title="AWS Multi Model Server",
            settings={**TENSORFLOW, **_mms_properties("…", "…"), "initial_workers": "1", "log4j": "error"},
            documentation=(
                "https://github.com/awslabs/multi-model-server/blob/master/docs/configuration.md",
                "https://github.com/awslabs/multi-model-server/blob/master/docs/management_api.md",
            ),
            notes=(
                "Models are directories of its model store, which is what its documentation says loads quickest.",
                "One worker a model, on one core; preload_model would share a model among its workers, not among models.",
            ),
        )

    def start(self, tenants: Sequence[str]) -> None:
        """See `Peer.start`."""
        folder = self.place.folder
        self._models = folder / "models"
        for tenant in [*tenants, *self.place.world.spare]:
            _mms_model(self._models / tenant, tenant, self.place.world.saved_model(tenant))
        inference, management = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        self._management = management
        (folder / "log4j.xml").write_text(_LOG4J)
        properties = {
            **_mms_properties(inference, management),
            "vmargs": f"{_VMARGS} -Dlog4j.configurationFile=file://{folder}/log4j.xml",
        }
        (folder / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        (folder / "tmp").mkdir()
        binaries = str(Path(python_of("mms")).parent)
        command = [f"{binaries}/multi-model-server", "--start", "--foreground", "--model-store", str(self._models)]
        environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "TMPDIR": str(folder / "tmp")}
        self.launch([*command, "--mms-config", str(folder / "config.properties")], environment)
        self.url = inference
        self.wait_until_answering(inference, "/ping")

    def load(self, tenant: str) -> None:
        """See `Peer.load`: register it with a worker, and wait for that."""
        self._register(tenant, tenant)

    def _register(self, tenant: str, folder: str) -> None:
        query = f"url={quote(folder)}&model_name={tenant}&initial_workers=1&synchronous=true"
        told(self._management, "POST", f"/models?{query}")

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it takes the text
        """See `Peer.request`."""
        return http_request(self.url, "POST", f"/predictions/{tenant}", text_json(text))

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """See `Peer.labels`."""
        return labels_json(answer)

    def replace(self, tenant: str) -> None:
        """See `Peer.replace`: a name is registered once, so it is unregistered first."""
        _mms_model(self._models / f"{tenant}-next", tenant, self.place.world.next_saved_model)
        told(self._management, "DELETE", f"/models/{tenant}")
        self._register(tenant, f"{tenant}-next")


def _mms_properties(inference: str, management: str) -> dict[str, str]:
    return {
        "inference_address": inference,
        "management_address": management,
        "default_workers_per_model": "1",
        "async_logging": "true",
        "job_queue_size": "1000",
        "vmargs": _VMARGS,
    }


def _mms_model(folder: Path, tenant: str, saved_model: Path) -> None:
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "saved_model").symlink_to(saved_model)
    shutil.copy(app("mms_handler.py"), folder)
    manifest = {
        "specificationVersion": "1.0",
        "modelServerVersion": "1.1",
        "runtime": "python",
        "engine": {"engineName": "TensorFlow"},
        "model": {"modelName": tenant, "modelVersion": "1", "handler": "mms_handler:handle"},
    }
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
