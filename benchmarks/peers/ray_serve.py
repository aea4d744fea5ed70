"""Ray Serve with model multiplexing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.results import PeerInfo
from benchmarks.peers.server import (
    UNLOADING,
    Peer,
    PeerCannot,
    app,
    free_ports,
    http_request,
    labels_json,
    python_of,
    saved_models,
    text_json,
)

_RAY = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}


class RayServe(Peer):
    """Ray Serve with `@serve.multiplexed`: `apps/ray_app.py`."""

    name = "ray"
    environment = "ray"
    _folder: Path | None = None

    @classmethod
    def info(cls) -> PeerInfo:
        """See `Peer.info`."""
        return PeerInfo(
            title="Ray Serve, multiplexed",
            settings={
                **UNLOADING,
                **_RAY,
                "num_replicas": "1",
                "max_ongoing_requests": "100",
                "max_num_models_per_replica": "as many as may stay loaded",
            },
            documentation=(
                "https://docs.ray.io/en/latest/serve/model-multiplexing.html",
                "https://docs.ray.io/en/latest/serve/advanced-guides/performance.html",
            ),
            notes=("One replica, since there is one core. HAProxy as its ingress was not tried: no wheel brings it.",),
        )

    def start(self, tenants: Sequence[str]) -> None:
        """See `Peer.start`."""
        root = saved_models(self, tenants, self.place.world.saved_model)
        # Its sockets lie below, and the kernel bounds the length of their paths.
        self._folder = Path("/tmp") / f"mf-ray-{os.getpid()}"  # its own, taken away by `stop`
        shutil.rmtree(self._folder, ignore_errors=True)
        port = free_ports(1)[0]
        command = [python_of("ray"), app("ray_app.py"), "--root", str(root), "--most", str(self.place.most)]
        binaries = str(Path(python_of("ray")).parent)
        environment = {**UNLOADING, **_RAY, "PATH": f"{binaries}:{os.environ['PATH']}"}
        self.launch([*command, "--port", str(port), "--folder", str(self._folder)], environment)
        self.url = self.wait_for_url()

    def stop(self) -> None:
        """See `Peer.stop`."""
        super().stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def request(self, tenant: str, body: bytes, text: str) -> bytes:  # noqa: ARG002  # it takes the text
        """See `Peer.request`."""
        return http_request(self.url, "POST", "/", text_json(text), {"serve_multiplexed_model_id": tenant})

    def labels(self, answer: bytes) -> list[tuple[str, float]]:
        """See `Peer.labels`."""
        return labels_json(answer)

    def replace(self, tenant: str) -> None:  # noqa: ARG002  # there is no way
        """See `Peer.replace`."""
        raise PeerCannot(
            "a multiplexed model has no versions: what is loaded under an id stays until it is evicted, so callers must be "
            "told of another id"
        )
