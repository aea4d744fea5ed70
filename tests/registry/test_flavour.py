"""The artifact that MLflow loads comes from outside: whatever it says ends in a clear error, and in no file."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from registry.errors import BundleCorrupt, InvalidInput, InvalidTenant, MacrofleetError

GOOD: dict[str, Any] = {
    "tenant": "acme",
    "version": "0" * 16,
    "manifest": "0" * 64,
    "store_url": "store",
    "store_endpoint_url": None,
}


def load(config: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, when `pyfunc` is first imported
        from registry.flavour import Suggester
    Suggester().load_context(SimpleNamespace(model_config=config))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"tenant": "../acme"}, InvalidTenant),
        ({"tenant": None}, InvalidInput),
        ({"version": "../../../victim"}, BundleCorrupt),
        ({"version": 16 * "0" + "\n"}, BundleCorrupt),
        ({"version": 7}, InvalidInput),
        ({"manifest": "f" * 64}, BundleCorrupt),
        ({"manifest": ["0"]}, InvalidInput),
        ({"store_url": 7}, InvalidInput),
        ({"store_url": "ftp://host"}, InvalidInput),
        ({"store_endpoint_url": {"host": "elsewhere"}}, InvalidInput),
    ],
)
def test_an_artifact_that_names_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: type[MacrofleetError]
) -> None:
    (tmp_path / "victim").mkdir()
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.delenv("MACROFLEET_STORE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        load({**GOOD, **changes})
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


@pytest.mark.parametrize("name", ["tenant", "version", "manifest", "store_url"])
def test_an_artifact_that_does_not_say_what_it_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.delenv("MACROFLEET_STORE_URL", raising=False)
    config = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(InvalidInput, match=f"does not say its {name}"):
        load(config)
