"""What all hosts share, on the hub: `python -m tests.workers.hub FOLDER ADDRESS`.

An S3 server, PostgreSQL for MLflow, and Prefect's server, each on the hub's loopback with a proxy before it on the hub's
address. Prints the environment that points a process on any host at them, as a line of JSON; ends with standard input.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from flows.prefect_server import PrefectServer
from registry.seaweedfs import LocalS3
from tests.postgresql import LocalPostgres
from tests.tcp_proxy import TcpProxy


def main(folder: Path, address: str) -> None:
    """Serve until standard input ends."""
    with contextlib.ExitStack() as stack:

        def behind(url: str) -> str:
            """The same server at an address that hosts reach."""
            parts = urlsplit(url)
            assert parts.port
            proxy = stack.enter_context(TcpProxy(parts.port, host=address))
            user = f"{parts.username}:{parts.password}@" if parts.username else ""
            return urlunsplit(parts._replace(netloc=user + urlsplit(proxy.url).netloc))

        s3 = stack.enter_context(LocalS3(folder / "s3"))
        postgres = stack.enter_context(LocalPostgres())
        home = folder / "prefect"
        home.mkdir()
        prefect = stack.enter_context(PrefectServer(home / "server.log", environment={"PREFECT_HOME": str(home)}))
        settings = s3.settings
        assert settings.secret_key
        environment = {
            "MACROFLEET_STORE_URL": settings.url,
            "MACROFLEET_STORE_ENDPOINT_URL": behind(s3.endpoint_url),
            "MACROFLEET_STORE_REGION": "us-east-1",
            "MACROFLEET_STORE_ACCESS_KEY": str(settings.access_key),
            "MACROFLEET_STORE_SECRET_KEY": settings.secret_key.get_secret_value(),
            "MACROFLEET_TRACKING_URI": behind(postgres.database()),
            "MACROFLEET_ARTIFACT_LOCATION": str(folder / "artifacts"),
            "PREFECT_API_URL": behind(prefect.api_url),
            # The environment's own proxies reach no namespace.
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        sys.stdout.write(f"{json.dumps(environment)}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
