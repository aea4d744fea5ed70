"""Every command and variable of infra/ held to the programs: apart from the rest, since those take seconds to import."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from registry.tracking.artifact import without_warnings
from tests.infra.cluster import Cluster, commands, rendered
from tests.infra.commands import parse
from tests.infra.composition import Composition, load_script
from tests.infra.environment import known_variables, mlflows_variables, named_variables, prefects_variables
from tests.infra.images import FLOWS, IMAGES, INFRA, SERVING

MAKE_SECRETS = load_script(INFRA / "compose" / "make_secrets.py")
COMPONENTS = INFRA / "kubernetes" / "components"
# Ours, of the command that brings the tables of MLflow's users up to date.
USERS = {"MLFLOW_AUTH_DATABASE_URI"}


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Composition:
    folder = tmp_path_factory.mktemp("secrets")
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(folder))
    return Composition.read(folder)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(rendered(tmp_path_factory.mktemp("kubernetes"), "base"))


@pytest.fixture(scope="module")
def named(composition: Composition, cluster: Cluster) -> set[str]:
    """Every variable that anything is given."""
    found = {name for service in composition.services.values() for name in service.environment}
    found |= {name for pod in cluster.pods() for each in pod.containers for name in cluster.environment(each)}
    return found


def test_the_images_command_is_prefects_own() -> None:
    parse(FLOWS.final.the("CMD").arguments)
    assert FLOWS.final.every("ENTRYPOINT") == []  # its commands are of three programs
    assert FLOWS.final.the("STOPSIGNAL").rest == "SIGTERM"


def test_every_command_of_compose_is_one(composition: Composition) -> None:
    parsed = 0
    for image in IMAGES:
        for service in composition.of_image(image):
            for command in service.commands:
                if command[0] not in {"sh", "python"} or command[:2] == ["python", "-m"]:
                    parse(command)
                    parsed += 1
    assert parsed >= 9


def test_every_command_of_kubernetes_is_one(cluster: Cluster) -> None:
    (copier,) = re.findall(
        r"^ +command: \[(.*)\]$", (COMPONENTS / "second-region" / "copier.yaml").read_text(), re.MULTILINE
    )
    parse([word.strip(' "') for word in copier.split(",")])
    parsed = 0
    for container in (each for pod in cluster.pods() for each in pod.containers):
        for command in commands(container):
            if container["image"].startswith(SERVING.name):
                parse([*SERVING.final.the("ENTRYPOINT").arguments, *command])
            elif container["image"].startswith(FLOWS.name):
                parse(command)
            else:
                continue
            parsed += 1
    assert parsed >= 13


@pytest.mark.parametrize(
    "command",
    ["macrofleet serve --prot 1", "macrofleet key list", "prefect server start --no-uix", "mlflow server --app-nam=x",
     "python -m mlflow.server.auth db upgrade --uri x", "worker start"],
)  # fmt: skip
def test_what_is_no_command_is_found_out(command: str) -> None:
    with pytest.raises(BaseException, match=r".*") as raised:
        parse(command.split())
    assert not isinstance(raised.value, KeyboardInterrupt)


def test_scripts_run_commands_that_are_there() -> None:
    text = (INFRA / "compose" / "operator_key.sh").read_text()
    found = re.findall(r"macrofleet ([a-z][a-z -]*[^>|\n]*?)(?: >| \|\||$)", text, re.MULTILINE)
    assert len(found) == 2
    for command in found:
        parse(["macrofleet", *command.split()])


def test_every_variable_of_ours_is_a_setting(named: set[str]) -> None:
    ours = {name for name in named if name.startswith("MACROFLEET_")}
    assert {"MACROFLEET_STORE_URL", "MACROFLEET_SIGNING_KEY", "MACROFLEET_DATABASE_URL"} <= ours
    assert ours - known_variables() == set()
    components = " ".join(path.read_text() for path in COMPONENTS.rglob("*.yaml"))
    assert named_variables(components) - known_variables() == set()


def test_every_variable_of_prefects_is_a_setting(named: set[str]) -> None:
    prefects = {name for name in named if name.startswith("PREFECT_")}
    assert {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING", "PREFECT_API_URL"} <= prefects
    assert prefects - prefects_variables() == set()


def test_every_variable_of_mlflows_is_one(named: set[str]) -> None:
    mlflows = {name for name in named if name.startswith("MLFLOW_")}
    assert {"MLFLOW_TRACKING_USERNAME", "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_BACKEND_STORE_URI"} <= mlflows
    assert mlflows - mlflows_variables() - USERS == set()


def test_other_variables_are_known(named: set[str], composition: Composition) -> None:
    others = {name for name in named if not name.startswith(("MACROFLEET_", "PREFECT_", "MLFLOW_", "AWS_"))}
    foreign = {name for each in ("postgres", "grafana") for name in composition.services[each].environment}
    assert others == foreign


def test_mlflow_reads_the_file_of_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the module that its server has for it, without the server."""
    with without_warnings():
        reader = load_script(Path(str(distribution("mlflow").locate_file("mlflow/server/auth/config.py"))))
    MAKE_SECRETS.write_all(MAKE_SECRETS._Book(tmp_path))
    example = INFRA / "kubernetes" / "base" / "secrets" / "basic_auth.ini.example"
    for file in (tmp_path / "mlflow_auth.ini", example):
        monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(file))
        read = reader.read_auth_config()
        assert (read.default_permission, read.admin_password) == ("NO_PERMISSIONS", None)
        assert read.database_uri.endswith("/mlflow_users")


def test_mlflow_takes_requests_for_the_name_that_it_is_asked_by(composition: Composition, cluster: Cluster) -> None:
    with without_warnings():
        from mlflow.server.security_utils import is_allowed_host_header
    asked = composition.services["worker"].environment["MACROFLEET_TRACKING_URI"]
    for command in (composition.services["mlflow"].spec["command"], cluster.pod("mlflow").containers[0]["command"]):
        (option,) = [word for word in command if word.startswith("--allowed-hosts=")]
        hosts = option.partition("=")[2].split(",")
        assert is_allowed_host_header(hosts, urlsplit(asked).netloc)
        assert not is_allowed_host_header(hosts, "elsewhere.example:5000")
