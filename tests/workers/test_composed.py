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
SERVERS = ("server-1", "server-2", "server-3")
PAGES = ("console", "grafana")
CONSOLE = "https://console.localhost:8444"
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


def test_prefects_pages_are_off(control: Composed) -> None:
    user = control.environment("command")["PREFECT_API_AUTH_STRING"]
    assert status(control, "http://prefect:4200/", "GET", user=user) == 404


def test_seaweedfs_keeps_all_but_s3_and_its_twin_to_itself(control: Composed) -> None:
    shown = control.hosts.command("seaweedfs", "ss", "--no-header", "--tcp", "--listening", "--numeric")
    done = subprocess.run(shown, capture_output=True, text=True, check=True)
    addresses = [line.split()[3].rpartition(":") for line in done.stdout.splitlines()]
    assert {port for host, _, port in addresses if host not in {"127.0.0.1", "[::1]"}} == {"8333", "18333"}


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


def test_a_user_who_is_added_to_mlflow_sees_nothing(trained: Composed) -> None:
    given = trained.environment("command")
    code = (
        "import sys; from mlflow.server.auth.client import AuthServiceClient; "
        "AuthServiceClient(sys.argv[1]).create_user('guest', 'a-long-enough-word')"
    )
    made = trained.run("-c", code, given["MACROFLEET_TRACKING_URI"], entrypoint=["python"])
    assert made.returncode == 0, made.stderr
    asked = f"http://mlflow:5000/api/2.0/mlflow/registered-models/get?name=macrofleet.{TENANT}"
    user = f"{given['MLFLOW_TRACKING_USERNAME']}:{given['MLFLOW_TRACKING_PASSWORD']}"
    assert status(trained, asked, "GET", user=user) == 200
    assert status(trained, asked, "GET", user="guest:a-long-enough-word") == 403


def test_a_run_without_passwords_is_a_sentence_and_trains_nobody(trained: Composed) -> None:
    """The worker's own command, had somebody forgotten to give it what training.env has."""
    done = trained.run(
        "train", "--tenant", TENANT, "--retrain", service="worker", entrypoint=["macrofleet"],
        MLFLOW_TRACKING_USERNAME=None, MLFLOW_TRACKING_PASSWORD=None, PREFECT_API_AUTH_STRING=None,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "macrofleet:" in done.stderr, done.stderr


@pytest.fixture(scope="module")
def served(trained: Composed) -> Composed:
    trained.up("envoy", "prometheus", "console")
    return trained


def ask(composed: Composed, *words: str) -> tuple[int, str]:
    """What somebody on the machine is answered at a port that Envoy publishes; the last line is the status."""
    certificate = str(composed.composition.services["envoy"].secrets / "tls.crt")
    # Names below localhost are this machine's own for a browser, but not for every curl.
    names = [word for page in PAGES for word in ("--resolve", f"{page}.localhost:8444:127.0.0.1")]
    done = subprocess.run(
        composed.hosts.command(
            "envoy", "curl", "--silent", "--write-out", "\n%{http_code}", "--retry", "20", "--retry-all-errors",
            "--retry-delay", "1", "--cacert", certificate, *names, *words,
        ),
        capture_output=True, text=True, check=False, timeout=120, env={"PATH": "/usr/bin:/bin", "no_proxy": "*"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text, _, code = done.stdout.rpartition("\n")
    return int(code), text


def test_what_was_trained_is_served_behind_tls(served: Composed) -> None:
    assert ask(served, "--fail", "https://localhost:8443/readyz")[0] == 200
    key = in_command(served, "keys", "create", "--tenant", TENANT).strip()
    body = json.dumps({"ticket": {"id": "4711", "subject": "Where is my parcel?"}})
    place = f"https://localhost:8443/v1/tenants/{TENANT}/suggestions"
    asking = ["--header", "content-type: application/json", "--data", body]
    code, text = ask(served, "--header", f"Authorization: Bearer {key}", *asking, "--fail", place)
    assert (code, json.loads(text)["model_version"] != "") == (200, True)
    assert ask(served, "--retry", "0", *asking, place)[0] == 401


def test_the_console_lets_an_operator_in_and_shows_every_server(served: Composed) -> None:
    key = in_command(served, "keys", "create", "--scope", "operator").strip()
    jar = str(served.folder / "cookies")
    kept = ["--cookie", jar, "--cookie-jar", jar]
    _, form = ask(served, *kept, "--fail", f"{CONSOLE}/sign-in")
    (token,) = re.findall(r'name="csrf" value="([^"]+)"', form)
    sent = ["--data-urlencode", f"csrf={token}", "--data-urlencode", f"key={key}"]
    assert ask(served, *kept, "--retry", "0", *sent, f"{CONSOLE}/sign-in")[0] == 303
    # Servers hear of a new key at their next look.
    for attempt in stamina.retry_context(on=AssertionError, timeout=120, attempts=None, wait_max=2):
        with attempt:
            code, text = ask(served, *kept, f"{CONSOLE}/live.json")
            assert (code, json.loads(text)["answering"]) == (200, len(SERVERS)), text


def test_prometheus_reads_every_server_with_its_key_and_its_rules(served: Composed) -> None:
    def told(what: str) -> Any:
        done = subprocess.run(
            served.hosts.command("prometheus", "wget", "-q", "-O", "-", f"http://127.0.0.1:9090/api/v1/{what}"),
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return json.loads(done.stdout)["data"]

    wanted = {f"http://{name}:8001/metrics" for name in SERVERS}
    wanted |= {"http://console:8080/metrics", "http://envoy:9902/stats/prometheus"}
    for attempt in stamina.retry_context(on=AssertionError, timeout=120, attempts=None, wait_max=2):
        with attempt:
            targets = {each["scrapeUrl"]: each["health"] for each in told("targets")["activeTargets"]}
            assert targets == dict.fromkeys(wanted, "up")
    files = {Path(group["file"]).name for group in told("rules")["groups"]}
    assert files == {path.name for path in (INFRA / "prometheus" / "rules").glob("*.yml")}


def test_servers_do_not_reach_what_only_training_needs(served: Composed) -> None:
    control = [("mlflow", 5000), ("prefect", 4200), ("postgres", 5432)]

    def reached(host: str) -> list[tuple[str, int]]:
        """Whom somebody in the networks of a service can connect to."""
        opens = "exec 3<>/dev/tcp/{}/{}"
        return [
            (name, port)
            for name, port in control
            if subprocess.run(
                served.hosts.command(host, "bash", "-c", opens.format(served.hosts.addresses[name], port)),
                capture_output=True, check=False, timeout=60,
            ).returncode == 0
        ]  # fmt: skip

    assert {host: there for host in (*SERVERS, "envoy") if (there := reached(host))} == {}
    assert reached("worker") == control


def test_what_runs_once_may_be_repeated(served: Composed) -> None:
    key = served.shared("keys") / "operator.key"
    before = key.read_bytes()
    for name in ("buckets", "mlflow-migration", "prefect-migration", "keys", "programs", "deployments"):
        command = [word.replace("$$", "$") for word in served.composition.services[name].spec["command"]]
        done = served.run(*command, service=name)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    assert key.read_bytes() == before


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
