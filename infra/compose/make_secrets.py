"""Make the secrets of infra/compose.yaml: passwords, keys and a certificate for localhost, in infra/compose/secrets.

    python infra/compose/make_secrets.py

What is there already is kept, so it can be run again; to change one, remove its file and those that repeat it. Needs nothing
but Python and the command `openssl`. Put a certificate of your own in the place of `tls.crt` and `tls.key`.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "secrets"
BUCKET = "models"
PREFIX = "production"
# Days of the certificate that is made for trying it out.
_DAYS = 365
# Who may do what in the store: what infra/aws/policies says of Amazon's, in SeaweedFS's words. Whoever may write a prefix may
# delete there, too.
_LOOKS = ("fleet", "programs", "tenants", "deleted")
_WRITES = {
    "serving": ("lake/tenants/*/feedback",),
    "training": ("tenants", "lake", "fleet", "runs"),
    "operations": ("tenants", "lake", "fleet", "runs", "deleted", "access", "garbage"),
    "release": ("programs",),
}


def main() -> None:
    """Make what is missing, and say what was made."""
    # A folder of its owner's alone. Docker gives files to containers as they are, and users there are others than here, so
    # that the files themselves have to be readable.
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    FOLDER.chmod(0o700)
    book = _Book(FOLDER)
    made = write_all(book)
    print(f"{len(made)} made in {FOLDER}" if made else f"everything is there already, in {FOLDER}", file=sys.stderr)


def write_all(book: _Book) -> list[str]:
    """Write all that is missing; the names of what was made."""
    databases = {name: book.word(f"{name}_database_password") for name in ("macrofleet", "mlflow", "prefect")}
    book.word("postgres_password")
    book.word("grafana_password")
    stores = {name: _pair() for name in ("admin", *_WRITES, "mlflow")}
    kept = book.file("s3.json", lambda: json.dumps(identities(stores), indent=1) + "\n")
    stores = {each["name"]: tuple(each["credentials"][0].values()) for each in json.loads(kept)["identities"]}
    tracking = {"MLFLOW_TRACKING_USERNAME": "macrofleet", "MLFLOW_TRACKING_PASSWORD": book.word("mlflow_password")}
    prefect = f"macrofleet:{book.word('prefect_password')}"
    control = {**tracking, "PREFECT_API_AUTH_STRING": prefect}
    users = _database("postgresql+psycopg", "mlflow", databases["mlflow"], "mlflow_users")

    book.env("admin.env", _keys("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", stores["admin"]))
    book.env("serving.env", {**_store(stores["serving"]), "MACROFLEET_SIGNING_KEY": book.word("signing_key")})
    book.env("training.env", {**_store(stores["training"]), **control})
    keys = {"MACROFLEET_DATABASE_URL": _database("postgresql", "macrofleet", databases["macrofleet"])}
    book.env("operations.env", {**_store(stores["operations"]), **control, **keys})
    book.env("release.env", _store(stores["release"]))
    book.env(
        "mlflow.env",
        {
            **_keys("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", stores["mlflow"]),
            "MLFLOW_BACKEND_STORE_URI": _database("postgresql+psycopg", "mlflow", databases["mlflow"]),
            "MLFLOW_AUTH_DATABASE_URI": users,
            "MLFLOW_AUTH_ADMIN_USERNAME": tracking["MLFLOW_TRACKING_USERNAME"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": tracking["MLFLOW_TRACKING_PASSWORD"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        },
    )
    book.file(
        "mlflow_auth.ini",
        lambda: (
            "[mlflow]\n"
            "default_permission = NO_PERMISSIONS\n"
            f"database_uri = {users}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        ),
    )
    book.env(
        "prefect.env",
        {
            "PREFECT_SERVER_API_AUTH_STRING": prefect,
            # The server asks itself, too.
            "PREFECT_API_AUTH_STRING": prefect,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": _database("postgresql+asyncpg", "prefect", databases["prefect"]),
        },
    )
    book.certificate("tls.crt", "tls.key")
    return book.made


def identities(stores: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """SeaweedFS's configuration of who may do what."""
    place = f"{BUCKET}/{PREFIX}"
    actions = {
        "admin": ["Admin", "Read", "Write", "List", "Tagging"],
        "mlflow": [f"{action}:mlflow" for action in ("Read", "List", "Write")],
        # No tickets. To list what was begun of an upload is to read, for SeaweedFS.
        "serving": [
            f"List:{BUCKET}",
            *(f"Read:{place}/{prefix}/*" for prefix in (*_LOOKS, "access", *_WRITES["serving"])),
        ],
        "release": [f"List:{BUCKET}", f"Read:{place}/programs/*"],
        "training": [f"List:{BUCKET}", *(f"Read:{place}/{prefix}/*" for prefix in (*_LOOKS, "lake", "runs"))],
        "operations": [f"List:{BUCKET}", f"Read:{BUCKET}"],
    }
    for name, prefixes in _WRITES.items():
        actions[name] += [f"Write:{place}/{prefix}/*" for prefix in prefixes]
    return {
        "identities": [
            {
                "name": name,
                "credentials": [{"accessKey": access, "secretKey": secret}],
                "actions": actions[name],
            }
            for name, (access, secret) in stores.items()
        ]
    }


class _Book:
    """A folder of secrets, each a file that is written once.

    Attributes:
        made: the names of those that were not there before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[str] = []

    def file(self, name: str, content: Callable[[], str]) -> str:
        """What a file has, which is made where there is none."""
        path = self._folder / name
        if not path.exists():
            path.write_text(content())
            path.chmod(0o444)
            self.made.append(name)
        return path.read_text()

    def word(self, name: str) -> str:
        """A password."""
        return self.file(name, lambda: secrets.token_urlsafe(24))

    def env(self, name: str, values: dict[str, str]) -> None:
        """A file of environment variables. No value needs quoting: they are of letters, digits and `-_:/@.+`."""
        self.file(name, lambda: "".join(f"{key}={value}\n" for key, value in values.items()))

    def certificate(self, certificate: str, key: str) -> None:
        """One for localhost and the names of operators' pages, signed by itself."""
        paths = [self._folder / name for name in (certificate, key)]
        if all(path.exists() for path in paths):
            return
        # Each by its name: for OpenSSL and browsers `*.localhost` is as wide as `*.com`, and names nobody.
        names = "subjectAltName=DNS:localhost,DNS:console.localhost,DNS:grafana.localhost,IP:127.0.0.1,IP:::1"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", str(_DAYS), "-subj", "/CN=macrofleet", "-addext", names]
        subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
        for path in paths:
            path.chmod(0o444)
            self.made.append(path.name)


def _pair() -> tuple[str, str]:
    return secrets.token_hex(10), secrets.token_urlsafe(30)


def _keys(access: str, secret: str, pair: tuple[str, str]) -> dict[str, str]:
    return dict(zip((access, secret), pair, strict=True))


def _store(pair: tuple[str, str]) -> dict[str, str]:
    return _keys("MACROFLEET_STORE_ACCESS_KEY", "MACROFLEET_STORE_SECRET_KEY", pair)


def _database(driver: str, user: str, password: str, name: str | None = None) -> str:
    return f"{driver}://{user}:{password}@postgres:5432/{name or user}"


if __name__ == "__main__":
    main()
