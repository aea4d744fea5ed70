"""A tenant's model as an ordinary SavedModel. One export serves all tests: it takes a process and seconds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.fleets import make_bundle, publish_tenants
from benchmarks.peers.apps.fastapi_app import load_from
from benchmarks.peers.world import find_tensors, with_tensors
from registry.disk.tier import DiskTier
from registry.errors import (
    BundleCorrupt,
    InvalidInput,
    MacrofleetError,
    ModelNotFound,
    ProgramUntrusted,
    TenantNotFound,
)
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS, model_key
from registry.model.freezing import freeze
from registry.model.mapped import map_bundle
from registry.model.program import RELEASED_PROGRAMS, named_programs, program_digest, publish_program
from registry.model.runtime import BoundModel, Program
from registry.model.saved_model_export import SavedModelExport, export_saved_model
from registry.store.local import LocalStore

TEXTS = ["The parcel never arrived, I want my money back", "Пароль не подходит 🤷", "", "zzzz " * 2000]


@dataclass(frozen=True)
class World:
    store: LocalStore
    trusted: frozenset[str]
    made: SavedModelExport
    model: BoundModel


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, bag_folder: Path, bag: Program) -> World:
    """A tenant `acme` of the program `bag`, and its export."""
    root = tmp_path_factory.mktemp("export")
    store = LocalStore(root / "store")
    digest = publish_program(store, bag_folder)
    manifest = publish_tenants(store, ["acme"], program=digest, spec=bag.spec, macros=7, threshold=0.25)["acme"]
    update_fleet(store, {"new": lambda _: FleetEntry(reason="too few examples")})
    trusted = frozenset([digest])
    made = export_saved_model(store, "acme", folder=root / "out", number=3, trusted=trusted)
    with DiskTier(root / "disk", store, trusted=trusted) as disk:
        model = bag.bind(disk.open_model("acme", manifest.version, manifest.digest))
    return World(store, trusted, made, model)


@pytest.fixture(scope="module")
def loaded(world: World) -> Any:
    """The export as TensorFlow loads it."""
    import tensorflow as tf

    from registry.model import text_operations  # noqa: F401  # the operations that the program uses

    return tf.saved_model.load(str(world.made.path))


def ask(loaded: Any, signature: str, texts: list[str]) -> dict[str, Any]:
    import tensorflow as tf

    return {name: value.numpy() for name, value in loaded.signatures[signature](text=tf.constant(texts)).items()}


def test_it_answers_what_the_runtime_answers(world: World, loaded: Any) -> None:
    found = ask(loaded, "all", TEXTS)
    expected = world.model.score(world.model.featurise(TEXTS))
    # The last text is thousands of features, which NumPy adds up in another order than TensorFlow.
    np.testing.assert_allclose(found["scores"][:3], expected[:3], atol=2e-6)
    np.testing.assert_allclose(found["scores"], world.model.score_in_program(world.model.featurise(TEXTS)), atol=2e-6)
    ids = [label.id.encode() for label in world.model.labels]
    assert [list(row) for row in found["labels"]] == [ids] * len(TEXTS)
    assert np.ptp(expected[0]) > 0.01, "scores that are all alike say nothing"


def test_by_default_it_answers_with_the_best_three(world: World, loaded: Any) -> None:
    found = ask(loaded, "serving_default", TEXTS[:2])
    scores = world.model.score(world.model.featurise(TEXTS[:2]))
    order = np.argsort(-scores, axis=1)[:, :3]
    assert [list(row) for row in found["labels"]] == [[f"m{place}".encode() for place in row] for row in order]
    np.testing.assert_allclose(found["scores"], np.take_along_axis(scores, order, 1), atol=2e-6)


def test_other_weights_in_its_place_are_another_model(world: World, bag: Program, tmp_path: Path) -> None:
    """How `benchmarks.peers` makes thousands of exports of one."""
    import tensorflow as tf

    weights = world.store.get(model_key("acme", world.made.version, WEIGHTS)).data
    make_bundle(tmp_path / "bundle", tenant="acme", program=bag.digest, spec=bag.spec, macros=7, seed=1)
    other = (tmp_path / "bundle" / WEIGHTS).read_bytes()
    shutil.copytree(world.made.path, tmp_path / "export")
    graph = (world.made.path / "saved_model.pb").read_bytes()
    changed = with_tensors(graph, find_tensors(graph, weights), other)
    (tmp_path / "export" / "saved_model.pb").write_bytes(changed)
    found = ask(tf.saved_model.load(str(tmp_path / "export")), "all", TEXTS[:2])
    expected = bag.bind(map_bundle(tmp_path / "bundle", tenant="acme"))
    np.testing.assert_allclose(found["scores"], expected.score(expected.featurise(TEXTS[:2])), atol=2e-6)


def test_what_most_teams_write_serves_it(world: World) -> None:
    found = load_from(world.made.path.parents[1])("acme")(TEXTS[0])
    scores = world.model.score(world.model.featurise(TEXTS[:1]))[0]
    assert found["labels"] == [f"m{place}" for place in np.argsort(-scores)[:3]]
    with pytest.raises(FileNotFoundError):
        load_from(world.made.path.parents[1])("nobody")


def test_nothing_else_is_needed(world: World) -> None:
    assert world.made.path == world.made.path.parent.parent / "acme" / "3"
    names = {path.relative_to(world.made.path).as_posix() for path in world.made.path.rglob("*") if path.is_file()}
    assert {"saved_model.pb", f"assets/{LABELS}", f"assets.extra/{MANIFEST}"} <= names
    assert "fingerprint.pb" not in names
    store, version = world.store, world.made.version
    for where, name in (("assets", LABELS), ("assets.extra", MANIFEST)):
        assert (world.made.path / where / name).read_bytes() == store.get(model_key("acme", version, name)).data
    assert os.listdir(world.made.path.parent) == ["3"]


def test_its_size_is_that_of_the_weights_and_the_program(world: World, bag_folder: Path) -> None:
    weights = len(world.store.get(model_key("acme", world.made.version, WEIGHTS)).data)
    program = sum(path.stat().st_size for path in bag_folder.rglob("*") if path.is_file())
    assert 0 < world.made.size - (weights + program) < 200_000


def test_no_path_of_the_machine_is_in_it(world: World) -> None:
    data = (world.made.path / "saved_model.pb").read_bytes()
    assert b"macrofleet-export-" not in data
    assert str(world.made.path.parents[2]).encode() not in data


def test_a_report_is_json(world: World) -> None:
    report = json.loads(json.dumps(world.made.as_dict()))
    assert report == {
        "tenant": "acme",
        "version": world.made.version,
        "path": str(world.made.path),
        "bytes": world.made.size,
        "program": next(iter(world.trusted)),
        "threshold": 0.25,
    }


def test_what_is_there_already_is_left_alone(world: World) -> None:
    folder = world.made.path.parents[1]
    with pytest.raises(InvalidInput, match="is there already"):
        export_saved_model(world.store, "acme", folder=folder, number=3, trusted=world.trusted)
    with pytest.raises(InvalidInput, match="cannot have the number 0"):
        export_saved_model(world.store, "acme", folder=folder, number=0, trusted=world.trusted)


@pytest.mark.parametrize(("tenant", "error"), [("globex", TenantNotFound), ("new", ModelNotFound)])
def test_a_tenant_without_a_model(world: World, tmp_path: Path, tenant: str, error: type[MacrofleetError]) -> None:
    with pytest.raises(error):
        export_saved_model(world.store, tenant, folder=tmp_path / "out", trusted=world.trusted)
    assert not (tmp_path / "out").exists()


def test_a_program_that_is_not_trusted_is_not_executed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.model.saved_model_export.freeze", never)
    with pytest.raises(ProgramUntrusted):
        export_saved_model(world.store, "acme", folder=tmp_path / "out", trusted=frozenset(["0" * 64]))
    assert not (tmp_path / "out").exists()


def never(*_: object) -> None:
    raise AssertionError("executed")


def test_a_folder_that_cannot_be_written(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write to"):
        export_saved_model(world.store, "acme", folder=tmp_path / "file" / "out", trusted=world.trusted)


def test_a_process_that_fails_leaves_nothing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.model.freezing.sys.executable", "false")
    with pytest.raises(MacrofleetError, match="could not be frozen"):
        export_saved_model(world.store, "acme", folder=tmp_path / "out", trusted=world.trusted)
    assert os.listdir(tmp_path / "out" / "acme") == []


def test_a_bundle_that_is_damaged_reaches_no_other_process(
    world: World, tmp_path: Path, bag_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.model.freezing.subprocess.run", never)
    for name in (MANIFEST, LABELS, WEIGHTS):
        data = bytearray(world.store.get(model_key("acme", world.made.version, name)).data)
        data[-1] ^= name == WEIGHTS
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleCorrupt):
        freeze(bag_folder, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, lambda: set(RELEASED_PROGRAMS.values())),
        (" , ", lambda: set(RELEASED_PROGRAMS.values())),
        ("ab, cd,", lambda: {"ab", "cd"}),
    ],
)
def test_programs_named_in_the_environment(named: str | None, expected: Callable[[], set[str]]) -> None:
    assert named_programs(named) == expected()


def test_the_trusted_program_is_the_one_exported(world: World, bag_folder: Path) -> None:
    assert world.made.program == program_digest(bag_folder)
