"""What the serving path is compared with: a bare FastAPI application that answers each body with itself.

`python -m benchmarks.echo` listens on a free port of loopback with the settings of `macrofleet serve`, and prints its URL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

from fastapi import FastAPI, Request, Response


def make_app() -> FastAPI:
    """The application."""
    app = FastAPI(openapi_url=None)

    @app.post("/v1/tenants/{tenant:path}/suggestions")
    async def echo(tenant: str, request: Request) -> Response:  # noqa: ARG001  # routed like the real one
        return Response(await request.body(), media_type="application/json")

    return app


@contextlib.contextmanager
def served_echo(core: int | None) -> Iterator[str]:
    """The URL of an echo server of one's own, on one core."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo", *([] if core is None else [str(core)])],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        if not url:
            raise RuntimeError(f"the echo server ended with {process.wait()}")
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def main() -> None:
    """Serve until killed."""
    import uvicorn

    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    config = uvicorn.Config(
        make_app(),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        # A connection waits in the backlog until the loop runs.
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201  # whoever started it reads it
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
