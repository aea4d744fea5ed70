"""The classifiers of the comparison, made once and kept: our bundles, and the same weights as SavedModels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fleets import SyntheticFleet, SyntheticModel, check_room, serve, tenant_names, write_catalogues
from benchmarks.peers.results import Text
from benchmarks.peers.variables import write_with_variables
from benchmarks.stage import Stage
from benchmarks.tickets import ticket_bodies
from registry.console_output import Step
from registry.fleet.state import update_fleet
from registry.layout import LABELS, MANIFEST, WEIGHTS
from registry.model.bundle import Manifest
from registry.model.freezing import freeze
from registry.model.tensors import parse_header
from registry.names import check_tenant
from registry.settings import StoreSettings
from registry.text.ticket import asked_text
from training.programs.release import built_folder

#: Tenants beside those of a step: first answers are theirs, so that the others' memory is not touched before its time.
SPARE = 40
#: SavedModels with files of their own; a tenant beyond shares one's by hard links, which costs the disk nothing and lets
#: other servers share page cache.
DISTINCT = 1000
#: The tenant whose model is replaced.
REPLACED = tenant_names(1)[0]

_MACROS = 100
_FORMAT = 1
_EXPORT_BYTES = 20_500_000
_MODEL_BYTES = 10_500_000
_SAMPLES = 4
_BODIES = 200
_THREADS = 4
_WORDS: Mapping[Text, int] = {"short": 8, "50 words": 50}
_DESCRIPTION = "world.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a tenant's model says of a text: every macro's probability."""

    tenant: str
    text: str
    body: bytes
    scores: Mapping[str, float]


class World:
    """A folder with everything that is served.

    Attributes:
        folder: everything lies below it.
        tenants: in the fleet, in the order of their traffic.
        spare: tenants that no step but `cold` asks for.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        self.tenants = tenant_names(description["tenants"])
        self.spare = tenant_names(SPARE, "spare")
        self.model_bytes: int = description["model_bytes"]
        self.store_settings = StoreSettings(url=str(folder / "store"))
        self.disk = folder / "disk"
        self.next_manifest = Manifest.model_validate(description["next"])
        self._description = description

    def saved_model(self, tenant: str) -> Path:
        """A tenant's classifier as a SavedModel."""
        return self.folder / "saved" / check_tenant(tenant)

    def model_with_variables(self, tenant: str) -> Path:
        """The same with its weights in variables, where `add_variables` made it."""
        return self.folder / "variables" / check_tenant(tenant)

    @property
    def next_saved_model(self) -> Path:
        """The next version of the tenant `REPLACED`."""
        return self.folder / "next"

    def files(self, tenant: str) -> list[Path]:
        """What servers read of a tenant, ours and others."""
        bundles = (self.disk / "models" / tenant).glob(f"*/{WEIGHTS}")
        variables = self.model_with_variables(tenant)
        parts = (variables / "saved_model.pb", *variables.glob("variables/*"))
        return [*bundles, self.saved_model(tenant) / "saved_model.pb", *(part for part in parts if part.exists())]

    def expected(self, version: str = "now") -> list[Expected]:
        """What a few tenants' models must say; of `REPLACED` alone for the version `next`."""
        return [
            Expected(tenant=row["tenant"], text=row["text"], body=row["body"].encode(), scores=row["scores"])
            for row in self._description["expected"][version]
        ]


def bodies(text: Text) -> list[bytes]:
    """Requests of ours, all of about one length."""
    return ticket_bodies(_BODIES, seed=1, words=_WORDS[text])


def text_of(body: bytes) -> str:
    """What our server hands to the model of a request, and others are sent."""
    ticket = json.loads(body)["ticket"]
    return asked_text(ticket["subject"], [comment["body"] for comment in ticket["comments"]])


def open_world(folder: Path, *, tenants: int, step: Step) -> World:
    """The world in `folder`, made if it is not there or too small.

    Raises:
        InvalidInput: the disk has no room for it.
    """
    try:
        description = json.loads((folder / _DESCRIPTION).read_text())
        if description["format"] == _FORMAT and description["tenants"] >= tenants:
            return World(folder, description)
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    check_room(folder, (tenants + SPARE) * _MODEL_BYTES + (min(tenants, DISTINCT) + SPARE) * _EXPORT_BYTES)
    with built_folder("bag") as program:
        description = _make(folder, program, tenants, step)
    # Last: a world that was interrupted is made again.
    (folder / _DESCRIPTION).write_text(json.dumps(description))
    return World(folder, description)


def add_variables(world: World, *, tenants: int, step: Step) -> None:
    """Have the first tenants and the spare ones as SavedModels with variables, too. Raises ProgramCorrupt."""
    if world.model_with_variables(world.tenants[0]).parent.is_dir():
        return
    names = [*world.tenants[:tenants], *world.spare]
    step(f"writing {len(names)} SavedModels with variables", 0.9)
    beside = world.folder / ".variables"
    shutil.rmtree(beside, ignore_errors=True)
    replaced = world.next_manifest.version  # a run before this one may have left it beside the first
    bundles = [
        next(path for path in sorted((world.disk / "models" / name).iterdir()) if path.name != replaced)
        for name in names
    ]
    with built_folder("bag") as program:
        write_with_variables(program, bundles, beside)
    os.sync()  # what is not on disk yet cannot be dropped from the page cache
    beside.rename(beside.with_name("variables"))


def _make(folder: Path, program: Path, tenants: int, step: Step) -> dict[str, Any]:
    stage = Stage(folder, StoreSettings(url=str(folder / "store")), program)
    names = [*tenant_names(tenants), *tenant_names(SPARE, "spare")]
    fleet = SyntheticFleet(program=stage.program, spec=stage.spec, macros=_MACROS, models=len(names) + 1)
    step(f"making {len(names)} models", 0.05)
    models = fleet.make([(name, "m") for name in names])
    following = fleet.make([(REPLACED, "m")])[0]
    fleet.publish(stage.put, [models[0], following])
    for start in range(0, len(models), 100):
        step(f"installing models, {start} of {len(models)}", 0.1 + 0.4 * start / len(models))
        fleet.install(stage.disk, models[start : start + 100])
    write_catalogues(stage.put, dict.fromkeys(names, fleet.catalogue(["m"])))
    update_fleet(stage.store, {model.tenant: serve(model.manifest) for model in models})
    step("exporting a SavedModel", 0.55)
    template = _Template(folder / "template", fleet, program, models[0])
    by_name = {model.tenant: model for model in models}
    own = [*names[: min(tenants, DISTINCT)], *names[tenants:]]
    for start in range(0, len(own), 100):
        step(f"writing SavedModels, {start} of {len(own)}", 0.6 + 0.35 * start / len(own))
        with ThreadPoolExecutor(_THREADS) as pool:
            batch = own[start : start + 100]
            list(pool.map(lambda name: template.write(folder / "saved" / name, by_name[name]), batch))
    for place, name in enumerate(names[min(tenants, DISTINCT) : tenants]):
        shutil.copytree(folder / "saved" / names[place], folder / "saved" / name, copy_function=os.link)
    template.write(folder / "next", following)
    step("computing what each must answer", 0.97)
    os.sync()  # what is not on disk yet cannot be dropped from the page cache
    return {
        "format": _FORMAT,
        "tenants": tenants,
        "model_bytes": fleet.model_bytes,
        "next": following.manifest.model_dump(mode="json"),
        "expected": {
            "now": _expected(fleet, program, models[:_SAMPLES]),
            "next": _expected(fleet, program, [following]),
        },
    }


def _expected(fleet: SyntheticFleet, program: Path, models: Sequence[SyntheticModel]) -> list[dict[str, Any]]:
    from benchmarks.expected import Expectation

    asked = [bodies(text)[place] for text in _WORDS for place in range(2)]
    expectation = Expectation([program], asked)
    return [
        {"tenant": model.tenant, "text": text_of(body), "body": body.decode(), "scores": scores}
        for model in models
        for body, scores in zip(asked, expectation.scores(fleet, model), strict=True)
    ]


class _Template:
    """One export, and where in it the weights lie: other tenants' are the same bytes with their weights in place.

    That takes a hundredth of the time of exporting each; a test holds such a one to the runtime.
    """

    def __init__(self, folder: Path, fleet: SyntheticFleet, program: Path, model: SyntheticModel) -> None:
        self._fleet = fleet
        self._folder = folder
        bundle = folder.with_name("template-bundle")
        bundle.mkdir()
        weights = fleet.weights(model).read()
        (bundle / WEIGHTS).write_bytes(weights)
        (bundle / LABELS).write_bytes(model.labels)
        (bundle / MANIFEST).write_bytes(model.manifest.to_bytes())
        freeze(program, bundle, folder)
        shutil.rmtree(bundle)
        self._graph = (folder / "saved_model.pb").read_bytes()
        self._places = find_tensors(self._graph, weights)

    def write(self, folder: Path, model: SyntheticModel) -> None:
        """The export of a model of the same label table."""
        shutil.copytree(self._folder, folder, ignore=shutil.ignore_patterns("saved_model.pb"))
        weights = self._fleet.weights(model).read()
        with (folder / "saved_model.pb").open("wb") as file:
            file.write(with_tensors(self._graph, self._places, weights))


def find_tensors(graph: bytes, weights: bytes) -> list[tuple[int, int, int]]:
    """Where a graph holds the tensors of a weights file: place in the graph, place in the file, and length of each.

    Raises:
        ValueError: a tensor is not there exactly once.
    """
    found = []
    for name, info in parse_header(weights, len(weights), what="weights").items():
        data = weights[info.offset : info.offset + info.nbytes]
        if graph.count(data) != 1:
            raise ValueError(f"the export holds the tensor {name} {graph.count(data)} times")
        found.append((graph.index(data), info.offset, info.nbytes))
    return found


def with_tensors(graph: bytes, places: Sequence[tuple[int, int, int]], weights: bytes) -> bytes:
    """The graph with the tensors of another weights file of the same shapes."""
    changed = bytearray(graph)
    for place, offset, size in places:
        changed[place : place + size] = weights[offset : offset + size]
    return bytes(changed)


def publish_now(world: World) -> None:
    """Have the fleet name the first version of every tenant, whatever an earlier run left."""
    from registry.fleet.state import read_fleet
    from registry.store import open_store

    store = open_store(world.store_settings)
    entry = read_fleet(store).entries[REPLACED]
    if entry.version == world.next_manifest.version and entry.previous and entry.previous_manifest:
        back = {"version": entry.previous, "manifest": entry.previous_manifest, "previous": None}
        update_fleet(store, {REPLACED: lambda _: entry.model_copy(update={**back, "previous_manifest": None})})


def publish_next(world: World) -> None:
    """Have the fleet name the next version of `REPLACED`."""
    from registry.store import open_store

    update_fleet(open_store(world.store_settings), {REPLACED: serve(world.next_manifest)})
