"""The Kubernetes schemas that kubernetes-validate ships, each read once.

Its own `validate` reads a megabyte for every object.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

# Some way back, since preStop's sleep is from 1.30 on, and the newest that there are schemas of.
VERSIONS = ("1.30.0", kubernetes_validate.latest_version())


def validate(obj: dict[str, Any], version: str) -> None:
    """Hold an object to the schema of its kind, which allows no field that it does not know.

    Raises:
        jsonschema.ValidationError: it is none.
        FileNotFoundError: there is no such kind.
    """
    # rbac.authorization.k8s.io/v1 is rbac-v1.
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", obj["apiVersion"])
    _validator(version, f"{obj['kind'].lower()}-{api}").validate(obj)


@functools.cache
def _validator(version: str, name: str) -> Any:
    schema = schema_contents(f"{_folder(version)}/{name}.json", version)
    return jsonschema.validators.Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> Any:
    definitions = schema_contents(f"{_folder(version)}/_definitions.json", version)
    return (Resource.from_contents(definitions) @ Registry()).crawl()


def _folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}-local-strict"
