"""infra/kubernetes as `kubectl kustomize` renders it, with the examples of its secrets; and what its parts say of each other."""

from __future__ import annotations

import base64
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.infra.images import INFRA

NAME = "app.kubernetes.io/name"


def rendered(folder: Path, part: str) -> list[dict[str, Any]]:
    """All objects of a kustomization, made in a copy below `folder`.

    Args:
        part: below infra/kubernetes.
    """
    copy = folder / "infra"
    if not copy.exists():
        for name in ("gateway", "kubernetes"):
            shutil.copytree(INFRA / name, copy / name)
        secrets = copy / "kubernetes" / "base" / "secrets"
        for example in secrets.glob("*.example"):
            shutil.copy(example, example.with_suffix(""))
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [str(kubectl), "kustomize", str(copy / "kubernetes" / part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [dict(each) for each in YAML(typ="safe", pure=True).load_all(done.stdout)]


@dataclass(frozen=True)
class Pod:
    """A pod as something makes it.

    Attributes:
        owner: kind and name of what makes it.
        template: metadata and spec.
    """

    owner: str
    template: Mapping[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def name(self) -> str:
        return self.labels[NAME]

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        """By name."""
        return {port["name"]: port["containerPort"] for each in self.containers for port in each.get("ports", ())}


class Cluster:
    """Objects by kind and name."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self.objects = objects

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    def pods(self) -> list[Pod]:
        found = []
        for each in self.objects:
            owner = f"{each['kind']}/{each['metadata']['name']}"
            if each["kind"] in {"Deployment", "StatefulSet", "Job"}:
                found.append(Pod(owner, each["spec"]["template"]))
            elif each["kind"] == "CronJob":
                found.append(Pod(owner, each["spec"]["jobTemplate"]["spec"]["template"]))
        return found

    def pod(self, name: str) -> Pod:
        (found,) = [each for each in self.pods() if each.name == name]
        return found

    def values(self, kind: str, name: str) -> dict[str, str]:
        """What a ConfigMap or a Secret has."""
        found = self.all(kind)[name]
        plain = dict(found.get("data", {}))
        if kind == "Secret":
            return {key: base64.b64decode(value).decode() for key, value in plain.items()}
        return plain

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """A container's variables, those of ConfigMaps and Secrets included. KeyError where one is not there.

        What is the pod's own (the downward API) is the name of the field.
        """
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                found |= self.values("ConfigMap", source["configMapRef"]["name"])
            else:
                found |= self.values("Secret", source["secretRef"]["name"])
        for each in container.get("env", ()):
            found[each["name"]] = each["value"] if "value" in each else each["valueFrom"]["fieldRef"]["fieldPath"]
        return found


def commands(container: Mapping[str, Any]) -> list[list[str]]:
    """What a container runs; several where a shell is given several."""
    words = [*container.get("command", ()), *container.get("args", ())]
    if words[:2] == ["sh", "-ec"]:
        return [shlex.split(part) for part in words[2].split("&&")]
    return [words]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector has these labels; an empty one has all."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def may_reach(cluster: Cluster, client: Pod, server: Pod, port: int) -> bool:
    """Whether the network policies let one pod connect to another, both in our namespace."""
    policies = [each["spec"] for each in cluster.all("NetworkPolicy").values()]
    out = any(
        _names(rule.get("to"), server.labels) and _has_port(rule, server, port)
        for rule in _rules(policies, "Egress", client.labels)
    )
    into = any(
        _names(rule.get("from"), client.labels) and _has_port(rule, server, port)
        for rule in _rules(policies, "Ingress", server.labels)
    )
    return out and into


def may_leave(cluster: Cluster, client: Pod, port: int) -> bool:
    """Whether a pod may connect to an address outside of the cluster."""
    policies = [each["spec"] for each in cluster.all("NetworkPolicy").values()]
    return any(
        any("ipBlock" in peer for peer in rule.get("to", ())) and port in {each["port"] for each in rule["ports"]}
        for rule in _rules(policies, "Egress", client.labels)
    )


def _rules(policies: list[dict[str, Any]], direction: str, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """All that applies to a pod. A pod that no policy isolates would be open, which `nobody` sees to."""
    selecting = [each for each in policies if direction in each["policyTypes"] and selects(each["podSelector"], labels)]
    assert selecting, f"nothing keeps {labels} from anything"
    for each in selecting:
        yield from each.get(direction.lower(), ())


def _names(peers: Any, labels: Mapping[str, str]) -> bool:
    if peers is None:
        return True
    return any(
        "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], labels)
        for peer in peers
    )


def _has_port(rule: Mapping[str, Any], server: Pod, port: int) -> bool:
    return any(server.ports.get(each["port"], each["port"]) == port for each in rule["ports"])
