"""Seldon MLServer: models loaded one by one into its process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.results import PeerInfo
from benchmarks.peers.server import TENSORFLOW, Peer, apps_folder, free_ports, http_request, python_of, told


class MlServer(Peer):
    """Seldon MLServer with a runtime of one's own: `apps/mlserver_runtime.py`."""

    name = "mlserver"
    environment = "mlserver"
    explicit = True
    evicts = False
    most_tenants = 100

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(
            title="Seldon MLServer",
            settings={
                **TENSORFLOW,
                **{name: json.dumps(value) for name, value in _mlserver_settings([0, 0, 0]).items()},
            },
            documentation=(
                "https://docs.seldon.ai/mlserver/user-guide/parallel-inference",
                "https://docs.seldon.ai/mlserver/api-reference/settings",
                "https://docs.seldon.ai/mlserver/examples/model-repository",
            ),
            notes=(
                "parallel_workers 0: inference in the server's process, which was 3.5 times quicker in an echo than its pool.",
                "A load reads the settings of every model in its repository, so the more there are the longer it takes.",
                "It has no eviction of its own: what is loaded stays, and what is not is answered with an error.",
            ),
        )

    def start(self, tenants: Sequence[str]) -> None:
        """See `Peer.start`."""
        self._models = self.place.folder / "models"
        for tenant in [*tenants, *self.place.world.spare]:
            self._write(tenant, self.place.world.saved_model(tenant))
        ports = free_ports(3)
        (self._models / "settings.json").write_text(json.dumps(_mlserver_settings(ports)))
        binary = Path(python_of("mlserver")).with_name("mlserver")
        self.launch([str(binary), "start", str(self._models)], {"PYTHONPATH": apps_folder()})
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.wait_until_answering(self.url, "/v2/health/ready")

    def _write(self, tenant: str, saved_model: Path) -> None:
        settings = {
            "name": tenant,
            "implementation": "mlserver_runtime.TenantModel",
            "parameters": {"uri": str(saved_model)},
        }
        (self._models / tenant).mkdir(parents=True, exist_ok=True)
        (self._models / tenant / "model-settings.json").write_text(json.dumps(settings))

    def load(self, tenant: str) -> None:
        """See `Peer.load`: by its repository API."""
        told(self.url, "POST", f"/v2/repository/models/{tenant}/load")

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it takes the text
        """See `Peer.request`."""
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
        return http_request(self.url, "POST", f"/v2/models/{tenant}/infer", json.dumps({"inputs": [tensor]}).encode())

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """See `Peer.labels`."""
        found: dict[str, Any] = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
        return list(zip(found["labels"], found["scores"], strict=True))

    def replace(self, tenant: str) -> None:
        """See `Peer.replace`: its settings name another SavedModel, and it is loaded again."""
        self._write(tenant, self.place.world.next_saved_model)
        self.load(tenant)


def _mlserver_settings(ports: Sequence[int]) -> dict[str, Any]:
    return {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "parallel_workers": 0,
        "load_models_at_startup": False,
        "gzip_enabled": False,
    }
