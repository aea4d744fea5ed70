"""infra/aws: parsed, linted, and held to the rest of the repository. Terraform itself needs its provider, and was not run."""

from __future__ import annotations

import re

import pytest

from registry.settings import read_settings
from serving.settings import ServingSettings
from tests.infra.composition import read_yaml
from tests.infra.environment import known_variables
from tests.infra.images import IMAGES, INFRA, SERVING
from tests.infra.terraform import AWS, Configuration, problems, read, references

CONFIGURATION = Configuration(read())
RESOURCES, DATA = CONFIGURATION.resources, CONFIGURATION.data
# Of another provider's schema: they take no arguments.
BARE = {"data.aws_caller_identity.current", "data.aws_partition.current"}


def of(type_: str) -> dict[str, dict[str, object]]:
    """The resources of a type, by name."""
    return {address.partition(".")[2]: body for address, body in RESOURCES.items() if address.startswith(f"{type_}.")}


@pytest.mark.parametrize("address", [address for address in [*RESOURCES, *DATA] if address not in BARE])
def test_the_provider_knows_every_argument(address: str) -> None:
    body = (RESOURCES | DATA)[address]
    assert problems(address.rpartition(".")[0], body) == []


def test_an_argument_that_is_none_is_found_out() -> None:
    assert problems("aws_sagemaker_model", {"name_prefix": "x", "execution_role_arn": "y"}) == [
        "aws_sagemaker_model has no name_prefix"
    ]
    wrong = {"bucket": "x", "versioning_configuration": [{"state": "Enabled"}]}
    assert problems("aws_s3_bucket_versioning", wrong) == [
        "aws_s3_bucket_versioning.versioning_configuration has no state",
        "aws_s3_bucket_versioning.versioning_configuration lacks status",
    ]


def test_whatever_is_named_is_there() -> None:
    there = {*RESOURCES, *DATA, *(f"var.{name}" for name in CONFIGURATION.variables)}
    there |= {f"local.{name}" for name in CONFIGURATION.locals}
    named = {reference for text in CONFIGURATION.texts() for reference in references(text)}
    assert named - there == set()
    for kind in ("var", "local"):
        defined = {each for each in there if each.startswith(f"{kind}.")}
        assert defined - named == set(), "nobody uses it"


def test_fields_of_variables_are_in_their_types() -> None:
    for name, variable in CONFIGURATION.variables.items():
        fields = set(re.findall(rf"\bvar\.{name}\.(\w+)", " ".join(CONFIGURATION.texts())))
        known = set(re.findall(r"(\w+)\s*[=:]", str(variable["type"])))
        assert fields <= known, name


def test_variables_and_outputs_say_what_they_are() -> None:
    for variable in CONFIGURATION.variables.values():
        assert {"description", "type"} <= set(variable)
    for output in CONFIGURATION.outputs.values():
        assert {"description", "value"} <= set(output)


def test_the_provider_is_pinned() -> None:
    (terraform,) = CONFIGURATION.blocks["terraform"]
    (required,) = terraform["required_providers"]
    assert required["aws"]["version"] == ">= 6.0, < 7.0"
    assert re.fullmatch(r">= 1\.\d+", terraform["required_version"])


def test_every_bucket_is_versioned_encrypted_and_closed() -> None:
    assert set(CONFIGURATION.locals["buckets"]) == {"models", "mlflow"}
    for type_ in (
        "aws_s3_bucket",
        "aws_s3_bucket_versioning",
        "aws_s3_bucket_server_side_encryption_configuration",
        "aws_s3_bucket_public_access_block",
        "aws_s3_bucket_ownership_controls",
        "aws_s3_bucket_lifecycle_configuration",
        "aws_s3_bucket_policy",
    ):
        (body,) = of(type_).values()
        assert body["for_each"] == "${local.buckets}", type_
    (versioning,) = RESOURCES["aws_s3_bucket_versioning.this"]["versioning_configuration"]
    assert versioning == {"status": "Enabled"}
    (rule,) = RESOURCES["aws_s3_bucket_server_side_encryption_configuration.this"]["rule"]
    (default,) = rule["apply_server_side_encryption_by_default"]
    assert default["sse_algorithm"] == "aws:kms"
    assert RESOURCES["aws_kms_key.store"]["enable_key_rotation"] is True
    block = RESOURCES["aws_s3_bucket_public_access_block.this"]
    assert all(block[name] is True for name in block if name not in {"for_each", "bucket"})
    assert len(block) == 6
    (lifecycle,) = RESOURCES["aws_s3_bucket.this"]["lifecycle"]
    assert lifecycle["prevent_destroy"] is True


def test_what_was_written_over_goes_and_nothing_that_is_current() -> None:
    (rule,) = RESOURCES["aws_s3_bucket_lifecycle_configuration.this"]["rule"]
    assert rule["status"] == "Enabled"
    assert rule["filter"] == [{}]
    assert rule["noncurrent_version_expiration"] == [{"noncurrent_days": "${var.noncurrent_days}"}]
    assert rule["expiration"] == [{"expired_object_delete_marker": True}]
    assert "transition" not in rule
    (abort,) = rule["abort_incomplete_multipart_upload"]
    assert abort["days_after_initiation"] <= 7


def roles() -> set[str]:
    """The copier's is one only where there is another region's store to copy."""
    always, copier = CONFIGURATION.locals["roles"].split("local.copied ?")
    found = set(re.findall(r'"(\w+)"', always))
    assert re.findall(r'"(\w+)"', copier) == ["copier"]
    return found


def test_there_is_a_role_for_every_service_account_with_business_in_the_store() -> None:
    text = (INFRA / "kubernetes" / "base" / "service-accounts.yaml").read_text()
    accounts = set(re.findall(r"metadata: \{name: (\w+)\}", text)) - {"storeless"}
    assert roles() == accounts
    overlay = (INFRA / "kubernetes" / "overlays" / "aws" / "kustomization.yaml").read_text()
    assert set(re.findall(r"role/([\w-]+)", overlay)) == {f"macrofleet-{role}" for role in roles()}
    assert RESOURCES["aws_iam_role.this"]["name"] == "macrofleet-${each.key}"
    (names, _) = CONFIGURATION.variables["trusted_principals"]["validation"]
    assert set(re.findall(r'"(\w+)"', names["condition"])) == roles() | {"copier"}
    assert set(re.findall(r"\w+", names["error_message"])) >= roles() | {"copier"}


def test_every_role_has_a_policy_and_is_given_what_it_names() -> None:
    asked: dict[str, set[str]] = {}
    for text in CONFIGURATION.texts():
        for file, given in re.findall(
            r'templatefile\("\$\{path\.module\}/policies/([^"]+)", \{(.*)\}\)', text, re.DOTALL
        ):
            asked[file] = set(re.findall(r"(\w+) =", given))
    assert set(asked) == {"${each.key}.json", "bucket-${each.key}.json", "sagemaker.json", "serving.json"}
    files = {path.name for path in (AWS / "policies").glob("*.json")}
    expected = {f"{role}.json" for role in roles() | {"copier"}} | {
        "bucket-models.json",
        "bucket-mlflow.json",
        "sagemaker.json",
    }
    assert files == expected
    for name in files:
        template = (
            name if name in asked else "bucket-${each.key}.json" if name.startswith("bucket-") else "${each.key}.json"
        )
        wanted = set(re.findall(r"\$\{(\w+)\}", (AWS / "policies" / name).read_text()))
        assert wanted <= asked[template], name


def test_the_registry_has_our_images() -> None:
    repository = RESOURCES["aws_ecr_repository.this"]
    assert set(re.findall(r'"([\w-]+)"', repository["for_each"])) == {image.name for image in IMAGES}
    assert repository["image_tag_mutability"] == "IMMUTABLE"
    overlay = read_yaml(INFRA / "kubernetes" / "overlays" / "aws" / "kustomization.yaml")
    assert {each["newName"].rpartition("/")[2] for each in overlay["images"]} == {image.name for image in IMAGES}


def test_sagemaker_starts_our_container_as_it_wants_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = RESOURCES["aws_sagemaker_model.this"]["primary_container"]
    environment = container["environment"]
    assert set(environment) <= known_variables()
    assert environment["MACROFLEET_SAGEMAKER"] == "true"
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, "0123456789abcdef" if "SIGNING" in name else "1" if "${" in value else value)
    assert read_settings(ServingSettings).sagemaker_access == "platform"
    assert container["mode"] == "MultiModel"
    assert container["model_data_url"].endswith("/${var.prefix}/sagemaker/")
    assert "macrofleet-serving" in container["image"]
    assert SERVING.final.pairs("LABEL")["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"


def test_it_is_made_only_where_it_is_wanted() -> None:
    for address, body in RESOURCES.items():
        if "sagemaker" in address:
            assert body["for_each"] == "${local.endpoint}", address
    assert CONFIGURATION.variables["sagemaker"]["default"] in (None, "null")
    assert CONFIGURATION.variables["sagemaker"]["sensitive"] is True


def test_outputs_are_what_others_are_to_be_told() -> None:
    assert set(CONFIGURATION.outputs) == {
        "store_url",
        "mlflow_artifacts",
        "roles",
        "repositories",
        "sagemaker_endpoint",
    }
    assert CONFIGURATION.outputs["store_url"]["value"] == 's3://${aws_s3_bucket.this["models"].id}/${var.prefix}'
