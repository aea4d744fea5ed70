"""`macrofleet models …`; that what it exports is served, `tests/serving/test_sagemaker.py` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from registry import model_commands
from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.errors import (
    BundleCorrupt,
    CatalogueUnavailable,
    InvalidInput,
    InvalidTenant,
    MacrofleetError,
    ModelNotFound,
    TenantNotFound,
)
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import WEIGHTS, catalogue_key, model_key
from registry.model.bundle import Label, Manifest, write_bundle
from registry.model.sagemaker_export import export_sagemaker
from registry.publishing import publish_bundle
from registry.store import ObjectStore
from registry.store.local import LocalStore

RUNNER = CliRunner()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Named by the environment; the working folder is empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    return LocalStore(tmp_path / "store")


@pytest.fixture
def acme(store: ObjectStore, tmp_path: Path) -> Manifest:
    """A tenant with a model and a catalogue; beside it, `new` has a fleet entry without a model."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(
        folder,
        tenant="acme",
        program="ab" * 32,
        tensors={"kernel": np.zeros((2, 2), np.float32)},
        macros=[Label(id="m0", title="Refund"), Label(id="m1", title="Ship")],
        data_fingerprint="0" * 64,
        settings={},
        metrics={},
        threshold=0.0,
    )
    made = publish_bundle(store, folder, tenant="acme")
    write_catalogue(store, "acme", make_catalogue([Macro(id="m0", title="Refund")]), etag=None)
    entries = {
        "acme": FleetEntry(version=made.version, manifest=made.digest),
        "new": FleetEntry(reason="too few [examples]\x1b[31m"),
    }
    update_fleet(store, {tenant: (lambda _, entry=entry: entry) for tenant, entry in entries.items()})  # type: ignore[misc]
    return made


def run(*arguments: str) -> str:
    """What a command prints on standard output."""
    result = RUNNER.invoke(model_commands.models, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize("command", ["list", "show", "export"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    assert f"Example: macrofleet models {command}" in run(command, "--help")


def test_the_commands_import_nothing_but_typer() -> None:
    heavy = ["pydantic", "rich.table", "boto3", "numpy", "registry.fleet.state", "registry.models", "registry.store"]
    script = f"import sys, registry.model_commands; print([name for name in {heavy!r} if name in sys.modules])"
    root = Path(model_commands.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_list(acme: Manifest) -> None:
    head, *rows = [line.split() for line in run("list").splitlines()]
    assert head == ["tenant", "version", "previous", "reason"]
    assert rows == [["acme", acme.version], ["new", "too", "few", "[examples]", "[31m"]]
    listed = run_json("list")
    assert listed["generation"] == 1
    assert listed["models"][0] == {"tenant": "acme", "version": acme.version, "previous": None, "reason": None}


def test_show(acme: Manifest) -> None:
    assert run_json("show", "acme")["manifest"] == acme.model_dump(mode="json")
    assert f"version: {acme.version}" in run("show", "acme").splitlines()


def test_an_export_is_the_archive_and_what_sagemaker_is_to_be_told(
    store: ObjectStore, acme: Manifest, tmp_path: Path
) -> None:
    expected = export_sagemaker(store, "acme", folder=tmp_path / "expected")
    report = run_json("export", "acme", "--sagemaker", "--out", "a/b")
    assert report == expected.as_dict() | {"path": "a/b/acme.tar.gz"}
    assert Path("a/b/acme.tar.gz").read_bytes() == expected.path.read_bytes()
    lines = run("export", "acme", "--sagemaker", "--out", "c").splitlines()
    assert f"s3_key: {expected.key}" in lines
    assert f"target_model: {expected.target_model}" in lines


def test_an_export_says_its_form(acme: Manifest) -> None:
    with pytest.raises(InvalidInput, match="Add --sagemaker or --saved-model"):
        run("export", "acme", "--out", "a")
    assert os.listdir() == []


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_is_there_already_is_left_alone(acme: Manifest, tmp_path: Path, kind: str) -> None:
    archive = Path("acme.tar.gz")
    match kind:
        case "file":
            archive.write_bytes(b"yesterday's")
        case "folder":
            archive.mkdir()
        case _:
            archive.symlink_to(tmp_path / "nowhere")
    before = archive.lstat()
    with pytest.raises(InvalidInput, match=r"acme\.tar\.gz is there already"):
        run("export", "acme", "--sagemaker", "--out", ".")
    assert archive.lstat() == before
    assert os.listdir() == ["acme.tar.gz"]


@pytest.mark.parametrize(
    ("tenant", "error"), [("globex", TenantNotFound), ("new", ModelNotFound), ("../acme", InvalidTenant)]
)
def test_a_tenant_without_a_model(acme: Manifest, tenant: str, error: type[MacrofleetError]) -> None:
    with pytest.raises(error):
        run("export", tenant, "--sagemaker", "--out", "a")
    assert os.listdir() == []


def test_nothing_is_left_half_written(store: ObjectStore, acme: Manifest) -> None:
    key = model_key("acme", acme.version, WEIGHTS)
    data = bytearray(store.get(key).data)
    data[-1] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(BundleCorrupt):
        run("export", "acme", "--sagemaker", "--out", ".")
    store.delete(catalogue_key("acme"))
    with pytest.raises(CatalogueUnavailable):
        run("export", "acme", "--sagemaker", "--out", ".")
    assert os.listdir() == []
