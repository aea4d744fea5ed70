"""The least that uvicorn can serve: a body goes back as it came."""

from __future__ import annotations

import socket
from typing import Any

_START = {"type": "http.response.start", "status": 200}


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001  # every path is the same
    """An ASGI application."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({**_START, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until killed; the URL goes to standard output."""
    import uvicorn

    config = uvicorn.Config(
        echo,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201  # whoever started it reads it
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
