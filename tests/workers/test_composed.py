"""infra/compose.yaml brought up: passwords that are asked for, a tenant trained by the worker and served behind TLS.

Everything but Grafana, which is no package here, as `tests.workers.composed` starts it.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stamina

from tests.infra.composition import Composition, load_script
from tests.infra.images import INFRA
from tests.workers.composed import Composed, available
from tests.workers.hosts import NOT_HERE
from tests.workers.hosts import available as hosts_available
from training.synthetic import make_tenant

pytestmark = [
    pytest.mark.skipif(not hosts_available(), reason=NOT_HERE),
    pytest.mark.skipif(not available(), reason="it takes Debian's postgresql and prometheus, wget and curl"),
]
MAKE_SECRETS = load_script(INFRA / "compose" / "make_secrets.py")
TENANT = "acme"
# What is asked of MLflow and Prefect, with what of a method.
MLFLOW = ("http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1", "GET")
ARTIFACTS = ("http://mlflow:5000/api/2.0/mlflow-artifacts/artifacts", "GET")
PREFECT = ("http://prefect:4200/api/flow_runs/filter", "POST")
HEALTH = ("http://mlflow:5000/health", "http://prefect:4200/api/health")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    secrets = folder / "secrets"
    secrets.mkdir()
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(secrets))
    composition = Composition.read(secrets)
    # The encoder's weights are in the image.
    programs = composition.services["programs"].spec["command"]
    programs[2] = programs[2].partition("&&")[0]
    with Composed(composition, folder) as up:
        yield up


@pytest.fixture(scope="module")
def control(composed: Composed) -> Composed:
    composed.up("mlflow", "prefect", "worker")
    return composed


def status(composed: Composed, url: str, method: str, *, user: str = "") -> int:
    """What somebody in the networks of `command` is answered."""
    words = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--request", method]
    words += ["--user", user] if user else []
    # Only a service's own root has the others' names.
    asked = urlsplit(url)
    resolved = ["--resolve", f"{asked.hostname}:{asked.port}:{composed.hosts.addresses[str(asked.hostname)]}"]
    words += ["--header", "content-type: application/json", "--data", "{}"] if method == "POST" else []
    done = subprocess.run(
        composed.hosts.command("command", *words, *resolved, url),
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": "/usr/bin:/bin", "no_proxy": "*"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def in_command(composed: Composed, *words: str) -> str:
    done = composed.run(*words)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def deployed(composed: Composed, flow: str, **parameters: Any) -> subprocess.CompletedProcess[str]:
    """Have a deployment's run worked off by a worker, and wait for its end."""
    given = [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]
    return composed.run("deployment", "run", f"{flow}/{flow}", *given, "--watch", entrypoint=["prefect"])


@pytest.fixture(scope="module")
def trained(control: Composed) -> Composed:
    """A tenant's tickets are brought in by a command, and the worker trains it."""
    made = make_tenant(TENANT, seed=1, tickets=200, macros=6, end=datetime.now(UTC))
    folder = control.folder / "tickets"
    folder.mkdir()
    file = folder / "tickets.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["ticket_id", "subject", "body", "macro_id", "applied_at"])
        rows.writerows([t.ticket_id, t.subject, t.body, t.macro_id, t.applied_at.isoformat()] for t in made.tickets)
    words = ["tickets", "import", "--tenant", TENANT, "--add-macros", "/tickets/tickets.csv"]
    imported = control.run(*words, mounted={"/tickets": folder})
    assert imported.returncode == 0, imported.stderr
    done = deployed(control, "retrain_tenant", tenant=TENANT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{control.log('worker')}"
    return control


@pytest.mark.parametrize("asked", [MLFLOW, ARTIFACTS, PREFECT])
def test_whoever_has_no_password_is_refused(control: Composed, asked: tuple[str, str]) -> None:
    assert status(control, *asked) == 401
    assert status(control, *asked, user="macrofleet:wrong") == 401


def test_health_is_open_and_the_right_password_opens_the_rest(control: Composed) -> None:
    assert [status(control, url, "GET") for url in HEALTH] == [200, 200]
    given = control.environment("command")
    user = f"{given['MLFLOW_TRACKING_USERNAME']}:{given['MLFLOW_TRACKING_PASSWORD']}"
    assert status(control, *MLFLOW, user=user) == 200
    assert status(control, *PREFECT, user=given["PREFECT_API_AUTH_STRING"]) == 200


def test_the_workers_run_is_trained_registered_and_reported(trained: Composed) -> None:
    shown = trained.run("flows", "status", "--json")
    runs = [one for one in json.loads(shown.stdout)["runs"] if one["flow"] == "retrain_tenant"]
    assert [(one["state"], one["counts"]) for one in runs] == [("completed", {"trained": 1})]
    code = (
        "import json, sys; from mlflow import MlflowClient; client = MlflowClient(); "
        f"found = client.get_model_version_by_alias('macrofleet.{TENANT}', 'champion'); "
        "run = client.get_run(found.run_id); "
        "print(json.dumps({'version': found.version, 'metrics': sorted(run.data.metrics), "
        "'artifacts': [each.path for each in client.list_artifacts(found.run_id)]}))"
    )
    uri = trained.environment("command")["MACROFLEET_TRACKING_URI"]
    done = trained.run("-c", code, entrypoint=["python"], MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    registered = json.loads(done.stdout)
    assert registered["version"] == "1"
    assert registered["metrics"]
    without = trained.run(
        "-c", code, entrypoint=["python"], MLFLOW_TRACKING_URI=uri,
        MLFLOW_TRACKING_USERNAME=None, MLFLOW_TRACKING_PASSWORD=None, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    assert without.returncode != 0
    assert "401" in without.stderr or "not authenticated" in without.stderr


def test_a_run_without_passwords_is_a_sentence_and_trains_nobody(trained: Composed) -> None:
    """The worker's own command, had somebody forgotten to give it what training.env has."""
    done = trained.run(
        "train", "--tenant", TENANT, "--retrain", service="worker", entrypoint=["macrofleet"],
        MLFLOW_TRACKING_USERNAME=None, MLFLOW_TRACKING_PASSWORD=None, PREFECT_API_AUTH_STRING=None,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "macrofleet:" in done.stderr, done.stderr


def test_what_was_trained_is_served_behind_tls(trained: Composed) -> None:
    trained.up("envoy", "prometheus", "console")
    key = in_command(trained, "keys", "create", "--tenant", TENANT).strip().splitlines()[-1]
    body = json.dumps({"ticket": {"id": "1", "subject": "Where is my parcel?", "comments": []}})
    certificate = str(trained.composition.services["envoy"].secrets / "tls.crt")

    def ask(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            trained.hosts.command(
                "envoy", "curl", "--silent", "--write-out", "\n%{http_code}", "--retry", "20", "--retry-all-errors",
                "--retry-delay", "1", "--cacert", certificate, *words,
            ),
            capture_output=True, text=True, check=False, timeout=120, env={"PATH": "/usr/bin:/bin", "no_proxy": "*"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        text, _, code = done.stdout.rpartition("\n")
        return int(code), text

    place = f"https://localhost:8443/v1/tenants/{TENANT}/suggestions"
    asking = ["--header", "content-type: application/json", "--data", body]
    code, text = ask("--header", f"Authorization: Bearer {key}", *asking, "--fail", place)
    assert (code, json.loads(text)["model_version"] != "") == (200, True)
    assert ask("--retry", "0", *asking, place)[0] == 401
    assert ask("--header", "Host: console.localhost", "https://localhost:8444/healthz")[0] == 200


def test_prometheus_reads_every_server_with_its_key(trained: Composed) -> None:
    trained.up("envoy", "prometheus", "console")

    def targets() -> dict[str, str]:
        done = subprocess.run(
            trained.hosts.command("prometheus", "wget", "-q", "-O", "-", "http://127.0.0.1:9090/api/v1/targets"),
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return {each["scrapeUrl"]: each["health"] for each in json.loads(done.stdout)["data"]["activeTargets"]}

    for attempt in stamina.retry_context(on=AssertionError, timeout=120, attempts=None, wait_max=2):
        with attempt:
            assert set(targets().values()) == {"up"}, targets()


def test_roots_are_read_only_and_secrets_are_who_is_asked_for(control: Composed) -> None:
    done = control.run("-c", "touch /x; ls /run/secrets; id -u; grep CapEff /proc/self/status", entrypoint=["sh"])
    assert "Read-only file system" in done.stderr
    assert done.stdout.split() == ["10001", "CapEff:", "0000000000000000"]
    assert Path("/x").exists() is False


def test_flows_that_need_more_rights_are_done_by_who_has_them(trained: Composed) -> None:
    """Last, since the tenant is gone then."""
    trained.up("operations-worker")
    refused = trained.run("garbage", "collect", service="worker", entrypoint=["macrofleet"])
    assert refused.returncode == 1
    assert "refuses these credentials" in refused.stderr
    collected = deployed(trained, "collect_garbage")
    assert collected.returncode == 0, f"{collected.stdout}\n{trained.log('operations-worker')}"
    # MLflow's server can only mark its runs: what it keeps of them is removed beside it.
    assert deployed(trained, "delete_tenant", tenant=TENANT).returncode != 0
    left = re.findall(r"left in (\w+): run (\w{32}) \(deleted\)", trained.log("operations-worker"))
    assert [place for place, _ in left] == ["mlflow"], trained.log("operations-worker")
    words = f'mlflow gc --backend-store-uri "$MLFLOW_BACKEND_STORE_URI" --run-ids {left[0][1]}'
    given = trained.environment("mlflow")
    gone = trained.run(
        words, service="mlflow", entrypoint=["sh", "-ec"],
        MLFLOW_TRACKING_URI="http://localhost:5000",
        MLFLOW_TRACKING_USERNAME=given["MLFLOW_AUTH_ADMIN_USERNAME"],
        MLFLOW_TRACKING_PASSWORD=given["MLFLOW_AUTH_ADMIN_PASSWORD"],
    )  # fmt: skip
    assert gone.returncode == 0, gone.stderr
    assert deployed(trained, "delete_tenant", tenant=TENANT).returncode == 0, trained.log("operations-worker")
    assert "nothing is left" in trained.log("operations-worker")
