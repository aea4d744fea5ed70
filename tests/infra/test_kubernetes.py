"""infra/kubernetes against the Kubernetes schemas, the code, and itself, without a cluster."""

from __future__ import annotations

import copy
import json
import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
from ruamel.yaml import YAML

from benchmarks.cost.measured import RESULTS, read_measured, read_report
from benchmarks.report.scaling import FEWEST, scaling_targets
from flows.console.settings import ConsoleSettings
from flows.identities import Pools, identity_of
from flows.settings import FlowSettings
from flows.shard_settings import ShardSettings
from registry.database import DatabaseSettings
from registry.settings import CopyStoreSettings, StoreSettings, read_settings
from registry.store import open_store
from registry.store.local import LocalStore
from serving.app import create_app
from serving.doors import DrainPlan
from serving.metrics import Metrics
from serving.proxy.ring import ANCHOR
from serving.proxy.ring_members import check_ring, ring_members
from serving.settings import ServingSettings
from tests.infra.cluster import NAME, Cluster, Pod, commands, may_leave, may_reach, rendered, selects
from tests.infra.composition import load_script, read_yaml
from tests.infra.environment import known_variables
from tests.infra.images import FLOWS, IMAGES, INFRA, PROJECT, PYPROJECT
from tests.infra.kubernetes_schemas import VERSIONS, validate

BASE = INFRA / "kubernetes" / "base"
MAKE_GATEWAY = load_script(INFRA / "gateway" / "make_gateway.py")
OPERATOR, PUBLIC = (ServingSettings.model_fields[name].default for name in ("operator_port", "port"))
PORTS = {"mlflow": 5000, "prefect": 4200, "console": ConsoleSettings.model_fields["console_port"].default}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubernetes")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Cluster:
    return Cluster(rendered(folder, "base"))


def containers(cluster: Cluster) -> Iterator[tuple[Pod, dict[str, Any]]]:
    for pod in cluster.pods():
        for container in pod.containers:
            yield pod, container


@pytest.fixture(scope="module")
def overlaid(folder: Path, cluster: Cluster) -> dict[str, Cluster]:
    """The overlay, and the base with each of the components."""
    assert cluster.objects  # it has made the copy
    parts = {"aws": "overlays/aws"}
    for name in ("local-nvme", "empty-dir", "second-region"):
        parts[name] = f"with-{name}"
        place = folder / "infra" / "kubernetes" / parts[name]
        place.mkdir()
        (place / "kustomization.yaml").write_text(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
            f"resources: [../base]\ncomponents: [../components/{name}]\n"
        )
    return {name: Cluster(rendered(folder, part)) for name, part in parts.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_by_the_schemas(cluster: Cluster, overlaid: dict[str, Cluster], version: str) -> None:
    assert len(cluster.objects) > 45
    for each in cluster.objects:
        validate(each, version)
    for other in overlaid.values():
        for each in (each for each in other.objects if each not in cluster.objects):
            validate(each, version)


def test_the_schemas_refuse_what_is_none(cluster: Cluster) -> None:
    wrong = copy.deepcopy(cluster.all("StatefulSet")["macrofleet-serving"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(jsonschema.ValidationError):
        validate(wrong, VERSIONS[-1])


def test_everything_that_is_there_is_applied() -> None:
    listed = set(read_yaml(BASE / "kustomization.yaml")["resources"])
    there = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert there <= listed


def test_images_are_ours_and_envoys_by_version(cluster: Cluster) -> None:
    found = {container["image"] for _, container in containers(cluster)}
    version = PYPROJECT["project"]["version"]
    compose = read_yaml(INFRA / "compose.yaml")["services"]
    assert found == {*(f"{image.name}:{version}" for image in IMAGES), compose["envoy"]["image"]}


@pytest.mark.parametrize("name", [
    "serving", "worker", "operations-worker", "console", "migration", "verify-fleet", "programs",
])  # fmt: skip
def test_settings_are_taken(cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = cluster.pod(name)
    container = pod.spec["containers"][0]
    environment = cluster.environment(container)
    for variable in known_variables():
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert open_store(read_settings(StoreSettings)).url.startswith("s3://")
    if name == "serving":
        settings = read_settings(ServingSettings)
        assert settings.access == "keys"
        limit = container["resources"]["limits"]["memory"]
        assert settings.memory_bytes + settings.shadow_bytes < int(limit.removesuffix("Gi")) * 1024**3
        (claim,) = cluster.all("StatefulSet")["macrofleet-serving"]["spec"]["volumeClaimTemplates"]
        size = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * 1024**3
        assert settings.disk_bytes + settings.feedback_bytes < size * 0.9
    else:
        read_settings(FlowSettings)
    if name == "worker":
        assert read_settings(ShardSettings).shards > pod_replicas(cluster, "worker")
    if name in {"console", "migration", "operations-worker"}:
        assert read_settings(DatabaseSettings).file is None
    if name == "console":
        assert read_settings(ConsoleSettings, console_host="0.0.0.0").secure


def pod_replicas(cluster: Cluster, name: str) -> int:
    return int(cluster.all("Deployment")[name]["spec"]["replicas"])


def test_examples_of_secrets_are_for_what_is_asked_for() -> None:
    """Every file that the generator reads has an example, and every example is read."""
    generators = read_yaml(BASE / "secrets" / "kustomization.yaml")["secretGenerator"]
    read = {file for each in generators for file in [*each.get("envs", ()), *each.get("files", ())]}
    assert {
        path.stem if path.suffix == ".example" else path.name for path in (BASE / "secrets").glob("*.example")
    } == read
    ignored = (PROJECT / ".gitignore").read_text().splitlines()
    assert "/infra/kubernetes/base/secrets/*" in ignored


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("MLFLOW_TRACKING_USERNAME", "MLFLOW_AUTH_ADMIN_USERNAME"),
        ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"),
        ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"),
    ],
)
def test_passwords_are_asked_for_and_given(cluster: Cluster, client: str, server: str) -> None:
    asks = cluster.environment(cluster.pod("mlflow" if "MLFLOW" in server else "prefect").containers[0])
    for name in ("worker", "operations-worker", "console"):
        assert cluster.environment(cluster.pod(name).containers[0])[client] == asks[server]


def test_mlflow_asks_who_it_is(cluster: Cluster) -> None:
    pod = cluster.pod("mlflow")
    (container,) = pod.containers
    assert "--app-name=basic-auth" in container["command"]
    place = Path(cluster.environment(container)["MLFLOW_AUTH_CONFIG_PATH"])
    (volume,) = [each["name"] for each in container["volumeMounts"] if each["mountPath"] == str(place.parent)]
    (secret,) = [each["secret"]["secretName"] for each in pod.spec["volumes"] if each["name"] == volume]
    assert "default_permission = NO_PERMISSIONS" in cluster.values("Secret", secret)[place.name]


def test_what_is_mounted_is_there(cluster: Cluster) -> None:
    for pod, container in containers(cluster):
        volumes = {each["name"]: each for each in pod.spec.get("volumes", ())}
        if pod.owner.startswith("StatefulSet/"):
            volumes |= {"models": {}}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                assert cluster.values("ConfigMap", volume["configMap"]["name"])
            if "secret" in volume:
                assert cluster.values("Secret", volume["secret"]["secretName"])


def test_our_images_write_to_their_volume_alone(cluster: Cluster) -> None:
    for pod, container in containers(cluster):
        for image in IMAGES:
            if container["image"].startswith(image.name):
                writable = [each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")]
                assert writable == [image.volume], pod.owner


def test_envoy_finds_its_configuration_and_certificate(cluster: Cluster) -> None:
    pod = cluster.pod("gateway")
    (envoy,) = pod.containers
    places = {each["name"]: each["mountPath"] for each in envoy["volumeMounts"]}
    volumes = {each["name"]: each for each in pod.spec["volumes"]}
    config = cluster.values("ConfigMap", volumes["configuration"]["configMap"]["name"])
    file = Path(envoy["args"][envoy["args"].index("--config-path") + 1])
    assert str(file.parent) == places["configuration"]
    assert config[file.name] == (INFRA / "gateway" / "kubernetes.json").read_text()
    assert f"{places['configuration']}/certificate.yaml" == MAKE_GATEWAY.CERTIFICATE
    for name in cluster.values("Secret", volumes["certificate"]["secret"]["secretName"]):
        assert f"{places['certificate']}/{name}" in config["certificate.yaml"]
    listeners = {each["name"]: each for each in json.loads(config[file.name])["static_resources"]["listeners"]}
    sockets = {name: each["address"]["socket_address"] for name, each in listeners.items()}
    # The ring's anchor is for Envoy itself, in its own pod.
    reachable = {name: each["port_value"] for name, each in sockets.items() if each["address"] != "127.0.0.1"}
    assert reachable == pod.ports


def ring_of_the_gateway() -> dict[str, str]:
    """Key and host of everybody whom Envoy may have on its ring for the product API."""
    clusters = json.loads((INFRA / "gateway" / "kubernetes.json").read_text())["static_resources"]["clusters"]
    (ring,) = (each for each in clusters if each["name"] == "public")
    found = {}
    for endpoint in ring["load_assignment"]["endpoints"][0]["lb_endpoints"]:
        key = endpoint["metadata"]["filter_metadata"]["envoy.lb"]["hash_key"]
        found[key] = endpoint["endpoint"]["address"]["socket_address"]["address"]
    return {key: host for key, host in found.items() if key != ANCHOR}


@pytest.mark.parametrize("there", [0, 3, 4, 10])
def test_a_server_knows_its_share_by_the_ring_of_the_gateway(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    """Whatever number the autoscaler wants, and whether or not they have addresses yet."""
    owner = cluster.all("StatefulSet")["macrofleet-serving"]
    scaler = cluster.all("HorizontalPodAutoscaler")["macrofleet-serving"]["spec"]
    environment = cluster.environment(cluster.pod("serving").containers[0])
    assert environment["MACROFLEET_PRELOAD"] == "share"
    assert environment["MACROFLEET_RING_KEY"] == "metadata.name"
    ring = ring_of_the_gateway()
    pods = [f"{owner['metadata']['name']}-{number}" for number in range(there)]
    addresses = {ring[pod] for pod in pods}

    def look_up(host: str, *_: object, **__: object) -> list[str]:
        if host not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [host]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    members = ring_members(check_ring(environment["MACROFLEET_RING"]))
    assert list(members) == list(ring)[: max(there, scaler["minReplicas"])]
    assert len(ring) == scaler["maxReplicas"]


def gateways_endpoints() -> set[tuple[str, int]]:
    clusters = json.loads((INFRA / "gateway" / "kubernetes.json").read_text())["static_resources"]["clusters"]
    found = set()
    for each in clusters:
        for some in each["load_assignment"]["endpoints"]:
            for endpoint in some["lb_endpoints"]:
                where = endpoint["endpoint"]["address"]["socket_address"]
                found.add((where["address"], where["port_value"]))
    return found


def test_envoy_is_told_of_as_many_servers_as_there_may_be(cluster: Cluster) -> None:
    scaler = cluster.all("HorizontalPodAutoscaler")["macrofleet-serving"]["spec"]
    servers = cluster.all("StatefulSet")[scaler["scaleTargetRef"]["name"]]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["minReplicas"] == servers["spec"]["replicas"] > 2
    name, service = servers["metadata"]["name"], servers["spec"]["serviceName"]
    expected = {(f"{name}-{place}.{service}", PUBLIC) for place in range(scaler["maxReplicas"])}
    assert {each for each in gateways_endpoints() if each[1] == PUBLIC and each[0] != "127.0.0.1"} == expected
    headless = cluster.all("Service")[service]["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True


def test_services_lead_to_ports_of_pods(cluster: Cluster) -> None:
    for name, service in cluster.all("Service").items():
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            continue
        pods = [pod for pod in cluster.pods() if selects({"matchLabels": spec["selector"]}, pod.labels)]
        (pod,) = pods
        for port in spec["ports"]:
            assert port["targetPort"] in pod.ports, name


def test_ports_are_those_of_the_programs(cluster: Cluster) -> None:
    assert cluster.pod("serving").ports == {"public": PUBLIC, "operator": OPERATOR}
    for name, port in PORTS.items():
        assert cluster.pod(name).ports == {"http": port}
        words = " ".join(cluster.pod(name).containers[0]["command"])
        assert name == "console" or f"--port={port}" in words
    health = cluster.pod("worker").ports["health"]
    assert f"{health}," in FLOWS.final.the("HEALTHCHECK").rest


def test_probes_ask_for_what_is_there(cluster: Cluster, tmp_path: Path) -> None:
    paths: dict[str, set[str]] = {}
    for pod, container in containers(cluster):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if kind in container:
                get = container[kind]["httpGet"]
                assert get["port"] in pod.ports, pod.owner
                paths.setdefault(pod.name, set()).add(get["path"])
    app = create_app(ServingSettings(disk_folder=tmp_path / "disk"), LocalStore(tmp_path / "store"))
    routes = set(app.openapi()["paths"])
    assert paths["serving"] == {"/healthz", "/readyz"} <= routes
    assert paths == {
        "serving": {"/healthz", "/readyz"},
        "gateway": {"/ready"},
        "mlflow": {"/health"},
        "prefect": {"/api/health"},
        "console": {"/healthz"},
        "worker": {"/health"},
        "operations-worker": {"/health"},
    }


def test_readiness_is_the_preload_and_liveness_is_not(cluster: Cluster) -> None:
    (server,) = cluster.pod("serving").containers
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {server[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe")} == {"/healthz"}


def test_the_grace_is_longer_than_a_server_drains(cluster: Cluster) -> None:
    grace = cluster.pod("serving").spec["terminationGracePeriodSeconds"]
    assert grace > DrainPlan().total + 5  # at the end it ships feedback


def test_metrics_of_the_autoscaler_are_made_of_metrics_of_ours(cluster: Cluster) -> None:
    rules = read_rules(cluster)
    scaler = cluster.all("HorizontalPodAutoscaler")["macrofleet-serving"]["spec"]
    asked = {each["pods"]["metric"]["name"] for each in scaler["metrics"] if each["type"] == "Pods"}
    assert asked == {rule["name"]["as"] for rule in rules}
    code = "".join((PROJECT / "serving" / name).read_text() for name in ("metrics.py", "gauges.py"))
    for rule in rules:
        (series,) = re.findall(r"^(macrofleet_\w+)\{", rule["seriesQuery"])
        assert f'"{series}"' in code


def test_targets_of_the_autoscaler_are_those_that_were_measured(cluster: Cluster) -> None:
    """Rounded, and no further off than a quarter: figures are taken again now and then, and scatter."""
    spec = cluster.all("HorizontalPodAutoscaler")["macrofleet-serving"]["spec"]
    found = {}
    for each in spec["metrics"]:
        what = each[each["type"].lower()]
        value = what["target"].get("averageValue") or what["target"]["averageUtilization"]
        name = what["name"] if "name" in what else what["metric"]["name"]
        found[name] = float(value.removesuffix("m")) / 1000 if str(value).endswith("m") else float(value)
    targets = scaling_targets(read_measured(), read_report(RESULTS, "warm"))
    assert spec["minReplicas"] == FEWEST
    assert found == {
        "macrofleet_queue_depth": pytest.approx(targets.queue_depth, rel=0.25),
        "macrofleet_cold_loads_from_store_per_second": pytest.approx(targets.loads_from_store, rel=0.25),
        "macrofleet_cold_loads_from_disk_per_second": pytest.approx(targets.loads_from_disk, rel=0.25),
        "cpu": pytest.approx(100 * targets.processor, rel=0.25),
    }


def test_the_adapter_asks_for_sources_that_loads_have(cluster: Cluster) -> None:
    sources = set()
    for rule in read_rules(cluster):
        (series,) = re.findall(r'source="(\w+)"', rule["seriesQuery"]) or [None]
        (asked,) = re.findall(r'source="(\w+)"', rule["metricsQuery"]) or [None]
        assert series == asked
        assert series is None or f"_from_{series}_" in rule["name"]["as"]
        sources.add(series)
    text = Metrics().exposition()[0].decode()
    assert sources - {None} == set(re.findall(r'macrofleet_cold_loads_total\{source="(\w+)"\}', text))


def read_rules(cluster: Cluster) -> list[dict[str, Any]]:
    text = cluster.values("ConfigMap", "metrics-adapter")["config.yaml"]
    found = YAML(typ="safe", pure=True).load(text)["rules"]
    assert isinstance(found, list)
    return found


def test_budgets_and_spreads_are_of_somebody(cluster: Cluster) -> None:
    labels = [pod.labels for pod in cluster.pods()]
    budgets = cluster.all("PodDisruptionBudget")
    assert set(budgets) == {"macrofleet-serving", "gateway"}
    for budget in budgets.values():
        assert sum(selects(budget["spec"]["selector"], each) for each in labels) == 1
    for name in ("serving", "gateway"):
        pod = cluster.pod(name)
        for spread in pod.spec["topologySpreadConstraints"]:
            assert selects(spread["labelSelector"], pod.labels)
    keys = {each["topologyKey"] for each in cluster.pod("serving").spec["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_everything_is_in_our_namespace(cluster: Cluster, overlaid: dict[str, Cluster]) -> None:
    for each in (each for one in (cluster, *overlaid.values()) for each in one.objects):
        wide = each["kind"] in {"Namespace", "StorageClass"}
        assert wide or each["metadata"]["namespace"] == "macrofleet", each["metadata"]["name"]


def test_owners_select_their_pods(cluster: Cluster) -> None:
    for kind in ("Deployment", "StatefulSet"):
        for each in cluster.all(kind).values():
            assert selects(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"])
    names = [pod.name for pod in cluster.pods()]
    assert len(set(names)) == len(names)


def test_every_pod_keeps_to_the_restricted_standard(cluster: Cluster) -> None:
    assert (
        cluster.all("Namespace")["macrofleet"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    for pod, container in containers(cluster):
        spec, context = pod.spec, container["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True, pod.owner
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, pod.owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec.get("volumes", ()))
        assert {"requests", "limits"} <= set(container["resources"]), pod.owner
        assert "memory" in container["resources"]["limits"]


def test_nobody_has_a_token_for_kubernetes(cluster: Cluster) -> None:
    accounts = cluster.all("ServiceAccount")
    assert not any(
        each["kind"] in {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} for each in cluster.objects
    )
    assert all(each["automountServiceAccountToken"] is False for each in accounts.values())
    for pod in cluster.pods():
        assert pod.spec["serviceAccountName"] in accounts
        assert pod.spec["automountServiceAccountToken"] is False
    used = {pod.spec["serviceAccountName"] for pod in cluster.pods()}
    assert used == set(accounts)


def test_flows_go_where_a_worker_with_their_rights_looks(cluster: Cluster) -> None:
    (deploy,) = cluster.pod("deployments").containers
    given = dict(word.removeprefix("--").split("=", 1) for word in deploy["command"] if word.startswith("--"))
    pools = Pools(training=given["pool"], operations=given["operations-pool"])
    for flow in ("retrain_fleet", "delete_tenant", "collect_garbage"):
        (name,) = [
            pod.name
            for pod in cluster.pods()
            for words in [pod.spec["containers"][0].get("command", [])]
            if words[:3] == ["prefect", "worker", "start"] and words[words.index("--pool") + 1] == pools.of(flow)
        ]
        assert cluster.pod(name).spec["serviceAccountName"] == identity_of(flow)


def test_who_runs_as_whom(cluster: Cluster) -> None:
    """Only what publishes programs may write them, and only what has the database of keys may write keys."""
    accounts = {pod.name: pod.spec["serviceAccountName"] for pod in cluster.pods()}
    assert [name for name, account in accounts.items() if account == "release"] == ["programs"]
    assert [name for name, account in accounts.items() if account == "training"] == ["worker"]
    assert [name for name, account in accounts.items() if account == "serving"] == ["serving"]
    for pod, container in containers(cluster):
        if "MACROFLEET_DATABASE_URL" in cluster.environment(container):
            assert accounts[pod.name] == "operations"


def test_the_overlay_names_a_role_for_everybody_who_needs_the_store(
    overlaid: dict[str, Cluster], cluster: Cluster
) -> None:
    roles = {
        name: each["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn", "").rpartition("/")[2]
        for name, each in overlaid["aws"].all("ServiceAccount").items()
    }
    assert roles == {
        name: "" if name == "storeless" else f"macrofleet-{name}" for name in cluster.all("ServiceAccount")
    }
    images = {each["image"].rpartition("/")[2].partition(":")[0] for _, each in containers(overlaid["aws"])}
    assert images == {"envoy", *(image.name for image in IMAGES)}


@pytest.mark.parametrize("name", ["local-nvme", "empty-dir"])
def test_the_disk_may_be_the_nodes_own(overlaid: dict[str, Cluster], name: str) -> None:
    found = overlaid[name]
    servers = found.all("StatefulSet")["macrofleet-serving"]["spec"]
    environment = found.environment(found.pod("serving").containers[0])
    assert float(environment["MACROFLEET_FEEDBACK_SEGMENT_SECONDS"]) == 60
    if name == "local-nvme":
        (claim,) = servers["volumeClaimTemplates"]
        storage = found.all("StorageClass")[claim["spec"]["storageClassName"]]
        assert storage["volumeBindingMode"] == "WaitForFirstConsumer"
    else:
        assert "volumeClaimTemplates" not in servers
        (volume,) = found.pod("serving").spec["volumes"]
        assert int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3 > int(
            environment["MACROFLEET_DISK_BYTES"]
        )


def test_a_second_region_reads_the_copy_that_is_kept_there(
    overlaid: dict[str, Cluster], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = overlaid["second-region"]
    copier, server = found.pod("copier"), found.pod("serving")
    assert copier.spec["serviceAccountName"] == "copier"
    assert may_leave(found, copier, 443)
    environments = [found.environment(each.containers[0]) for each in (copier, server)]
    for variable in known_variables():
        monkeypatch.delenv(variable, raising=False)
    for environment in environments:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        copy = read_settings(CopyStoreSettings).as_store()
        assert copy is not None
        assert open_store(copy).url != open_store(read_settings(StoreSettings)).url
    assert environments[1]["MACROFLEET_READ_FROM"] == "copy"
    assert "MACROFLEET_READ_FROM" in known_variables()
    changed = {each["metadata"]["name"] for each in found.objects if each not in cluster.objects}
    assert {name for name in changed if not name.startswith("second-region-")} == {"copier", "macrofleet-serving"}


def asked(cluster: Cluster) -> set[tuple[str, str, int]]:
    """Every (client, server, port) in our namespace that variables, commands and Envoy's configuration name."""
    found = {("gateway", host, port) for host, port in gateways_endpoints() if host not in {"127.0.0.1", "grafana"}}
    for pod, container in containers(cluster):
        texts = [*cluster.environment(container).values(), *(word for words in commands(container) for word in words)]
        for url in re.findall(r"\bhttp://[^\s'\",]+", " ".join(shlex.quote(text).replace(",", " ") for text in texts)):
            parts = urlsplit(url)
            if parts.hostname and parts.port:
                found.add((pod.name, parts.hostname, parts.port))
    return {
        (client, "serving" if host.startswith("macrofleet-serving-") else host, port) for client, host, port in found
    }


# Whose commands reach for a server that their settings name.
IDLE = {("migration", "prefect"), ("verify-fleet", "prefect"), ("collect-garbage", "prefect"), ("forget-runs", "prefect"),
        ("deployments", "mlflow")}  # fmt: skip


def test_whoever_is_asked_is_there_and_reached(cluster: Cluster) -> None:
    services = cluster.all("Service")
    reached = set()
    for client, host, port in asked(cluster):
        server = cluster.pod(host)
        assert port in server.ports.values(), (client, host, port)
        if host != "serving":
            assert port in {each["port"] for each in services[host]["spec"]["ports"]}
        if (client, host) not in IDLE:
            assert may_reach(cluster, cluster.pod(client), server, port), (client, host, port)
            reached.add((client, host, port))
    assert reached >= {
        ("gateway", "serving", PUBLIC),
        ("gateway", "console", PORTS["console"]),
        ("console", "serving", OPERATOR),
        ("worker", "mlflow", PORTS["mlflow"]),
        ("worker", "prefect", PORTS["prefect"]),
        ("operations-worker", "mlflow", PORTS["mlflow"]),
        ("operations-worker", "prefect", PORTS["prefect"]),
        ("deployments", "prefect", PORTS["prefect"]),
    }


def test_nobody_else_reaches_anybody(cluster: Cluster) -> None:
    wanted = asked(cluster)
    for client in cluster.pods():
        for server in cluster.pods():
            for port in server.ports.values():
                if client.name != server.name and (client.name, server.name, port) not in wanted:
                    assert not may_reach(cluster, client, server, port), (client.name, server.name, port)


def test_who_leaves_the_cluster(cluster: Cluster) -> None:
    to_store = {pod.name for pod in cluster.pods() if may_leave(cluster, pod, 443)}
    assert to_store == {pod.name for pod in cluster.pods() if pod.spec["serviceAccountName"] not in {"storeless"}}, (
        "whoever has the store's rights, and nobody else"
    )
    to_database = {pod.name for pod in cluster.pods() if may_leave(cluster, pod, 5432)}
    asking = {
        pod.name
        for pod, container in containers(cluster)
        if "postgresql" in " ".join([*cluster.environment(container).values()])
    }
    assert to_database == asking
    assert "serving" not in to_database
    for policy in cluster.all("NetworkPolicy").values():
        for rule in policy["spec"].get("egress", ()):
            for peer in rule["to"]:
                if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    assert peer["ipBlock"]["except"] == ["169.254.0.0/16"], "a node's own rights are there"


def test_labels_of_pods_are_named_in_policies(cluster: Cluster) -> None:
    names = {pod.name for pod in cluster.pods()}
    text = (BASE / "network-policies.yaml").read_text()
    named = {name for some in re.findall(r"values: \[([^\]]+)\]", text) for name in some.split(", ")}
    named |= set(re.findall(rf"{re.escape(NAME)}: ([\w-]+)", text))
    assert named <= names


def test_cron_jobs_do_not_run_into_each_other(cluster: Cluster) -> None:
    jobs = cluster.all("CronJob")
    assert set(jobs) == {"verify-fleet", "collect-garbage", "forget-runs"}
    for job in jobs.values():
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        assert len(job["spec"]["schedule"].split()) == 5
