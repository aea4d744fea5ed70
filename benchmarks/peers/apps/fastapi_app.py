"""The thing most teams write: FastAPI, `tf.saved_model.load` per tenant, an LRU of loaded models.

Written with care: a load runs in a thread and once however many wait for it, an answer runs in the event loop (it takes
less than handing it to a thread), and TensorFlow has one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

Model = Callable[[str], dict[str, Any]]


class Ask(BaseModel):
    """A request."""

    text: str


class Models:
    """Loaded models, those used last.

    Args:
        load: loads a tenant's model; raises FileNotFoundError for an unknown tenant.
        most: how many stay loaded.
    """

    def __init__(self, load: Callable[[str], Model], *, most: int) -> None:
        self._load = load
        self._most = most
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Model]] = {}

    def __len__(self) -> int:
        return len(self._loaded)

    async def get(self, tenant: str) -> Model:
        """A tenant's model, loaded if need be."""
        model = self._loaded.get(tenant)
        if model is not None:
            self._loaded.move_to_end(tenant)
            return model
        return await self.replace(tenant)

    async def replace(self, tenant: str) -> Model:
        """Load what is on disk now; what was loaded before answers until then."""
        task = self._loading.get(tenant)
        if task is None:
            task = self._loading[tenant] = asyncio.create_task(self._bring(tenant))
            task.add_done_callback(lambda _: self._loading.pop(tenant))
        return await asyncio.shield(task)

    async def _bring(self, tenant: str) -> Model:
        model = await asyncio.to_thread(self._load, tenant)
        self._loaded[tenant] = model
        self._loaded.move_to_end(tenant)
        while len(self._loaded) > self._most:
            self._loaded.popitem(last=False)
        return model


def make_app(load: Callable[[str], Model], *, most: int) -> FastAPI:
    """The application."""
    app = FastAPI(openapi_url=None)
    models = Models(load, most=most)

    async def found(wanted: Any) -> Model:
        try:
            model: Model = await wanted
        except FileNotFoundError:
            raise HTTPException(404, "no such model") from None
        return model

    @app.post("/models/{tenant}")
    async def predict(tenant: str, ask: Ask) -> dict[str, Any]:
        return (await found(models.get(tenant)))(ask.text)

    @app.put("/models/{tenant}")
    async def replace(tenant: str) -> dict[str, Any]:
        await found(models.replace(tenant))
        return {"loaded": len(models)}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"loaded": len(models)}

    return app


def load_from(root: Path) -> Callable[[str], Model]:
    """Loads `<root>/<tenant>/<highest number>`."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  # the operations that the models use

    def load(tenant: str) -> Model:
        numbers = [int(path.name) for path in (root / tenant).iterdir()]
        loaded = tf.saved_model.load(str(root / tenant / str(max(numbers))))
        function = loaded.signatures["serving_default"]

        def answer(text: str, keep: Any = loaded) -> dict[str, Any]:  # noqa: ARG001  # functions live as long as it
            found = function(text=tf.constant([text]))
            labels = [label.decode() for label in found["labels"].numpy()[0]]
            return {"labels": labels, "scores": found["scores"].numpy()[0].tolist()}

        answer("warm up")
        return answer

    return load


def main() -> None:
    """Serve until killed; the URL goes to standard output when models can be asked."""
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--most", type=int, required=True)
    parser.add_argument("--load", default="", help="a tenant to load before the first request")
    given = parser.parse_args()
    load = load_from(given.root)
    app = make_app(_loaded_before(load, given.load), most=given.most)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", ws="none", lifespan="off", access_log=False, log_level="warning"
    )
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201  # whoever started it reads it
        uvicorn.Server(config).run(sockets=[listener])


def _loaded_before(load: Callable[[str], Model], tenant: str) -> Callable[[str], Model]:
    if not tenant:
        return load
    first = {tenant: load(tenant)}
    return lambda wanted: first.pop(wanted, None) or load(wanted)


if __name__ == "__main__":
    main()
