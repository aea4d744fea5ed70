"""Ray Serve with model multiplexing: one replica that loads a tenant's SavedModel when a request names it."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


def make_deployment(root: str, most: int) -> Any:
    """The application, of which `most` models stay loaded."""

    @serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
    class Tenants:
        def __init__(self) -> None:
            import tensorflow as tf
            import tensorflow_text  # noqa: F401  # the operations that the models use

            self._tf = tf

        @serve.multiplexed(max_num_models_per_replica=most)  # type: ignore[untyped-decorator]
        async def load(self, tenant: str) -> Any:
            numbers = [int(path.name) for path in (Path(root) / tenant).iterdir()]
            loaded = self._tf.saved_model.load(str(Path(root) / tenant / str(max(numbers))))
            loaded.answer = loaded.signatures["serving_default"]
            loaded.answer(text=self._tf.constant(["warm up"]))
            return loaded

        async def __call__(self, request: Request) -> Response:
            model = await self.load(serve.get_multiplexed_model_id())
            found = model.answer(text=self._tf.constant([(await request.json())["text"]]))
            labels = [label.decode() for label in found["labels"].numpy()[0]]
            body = json.dumps({"labels": labels, "scores": found["scores"].numpy()[0].tolist()})
            return Response(body, media_type="application/json")

    return Tenants.bind()  # type: ignore[attr-defined]  # the decorator's, of which mypy does not know


def main() -> None:
    """Serve until killed; the URL goes to standard output when it can be asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--most", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True, help="of its logs and sockets")
    given = parser.parse_args()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _temp_dir=given.folder,
        object_store_memory=100 * 1024**2,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": given.port})
    serve.run(make_deployment(given.root, given.most), route_prefix="/")
    print(f"http://127.0.0.1:{given.port}", flush=True)  # noqa: T201  # whoever started it reads it
    signal.pause()


if __name__ == "__main__":
    main()
