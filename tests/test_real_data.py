"""The first marks, on the official test splits of real data sets that lie beside the project, not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import NotEnoughData
from registry.model.runtime import Program
from training.datasets import read_tenants
from training.importers import OUT_OF_SCOPE
from training.judging import Wish, evaluate_tenants

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets (../shared/data) are not here")


def quiet(_text: str, _share: float) -> None:
    """Nobody watches."""


@pytest.mark.parametrize(("name", "least"), [("banking77", 0.930), ("clinc150", 0.945), ("hwu64", 0.895)])
def test_the_first_marks(bag: Program, name: str, least: float) -> None:
    tenants = read_tenants(DATA / name / f"{name}.csv", where={}, out_of_scope=OUT_OF_SCOPE, single_tenant=True)
    report = evaluate_tenants(tenants, bag, wish=Wish(), step=quiet)
    assert report["top1"] >= least
    assert 7e6 < report["model_bytes"] < 15e6


def test_domains_become_tenants() -> None:
    hint3 = read_tenants(DATA / "hint3" / "hint3.csv", where={"version": "v2"}, out_of_scope=OUT_OF_SCOPE)
    assert {tenant: sum(e.split == "train" for e in found.examples) for tenant, found in hint3.items()} == {
        "curekart": 599,
        "powerplay11": 471,
        "sofmattress": 328,
    }
    clinc150 = read_tenants(DATA / "clinc150" / "clinc150.csv", where={"version": "v2"}, out_of_scope=OUT_OF_SCOPE)
    assert len(clinc150) == 10
    for found in clinc150.values():
        assert len({e.macro_id for e in found.examples if e.macro_id is not None}) == 15
        assert sum(e.macro_id is None for e in found.examples) == 1200


def test_messages_of_real_customers_train_and_score(bag: Program) -> None:
    tenants = read_tenants(DATA / "hint3" / "hint3.csv", where={"version": "v2"}, out_of_scope=OUT_OF_SCOPE)
    report = evaluate_tenants(tenants, bag, wish=Wish(), step=quiet)
    assert report["tenants"].keys() == {"curekart", "powerplay11", "sofmattress"}
    assert report["top3"] > report["top1"] > 0.6


def test_a_file_whose_labels_are_all_out_of_scope_has_nothing_to_learn(bag: Program) -> None:
    path = DATA / "clinc150" / "clinc150.csv"
    tenants = read_tenants(path, where={"label": "oos"}, out_of_scope=OUT_OF_SCOPE, single_tenant=True)
    with pytest.raises(NotEnoughData):
        evaluate_tenants(tenants, bag, wish=Wish(), step=quiet)
