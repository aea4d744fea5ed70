from __future__ import annotations

from pathlib import Path

import pytest

from registry.catalogue import Macro, make_catalogue, write_catalogue
from registry.deletion.tombstones import bury
from registry.errors import (
    InvalidInput,
    InvalidTenant,
    PreconditionFailed,
    PublishConflict,
    TenantDeleted,
    TenantNotFound,
)
from registry.fleet.state import FleetEntry, update_fleet
from registry.layout import examples_key, tenant_settings_key
from registry.store.local import LocalStore
from registry.tenant_settings import TenantSettings, check_known, edit_tenant_settings, read_tenant_settings
from tests.registry.memory_store import MemoryStore

KEY = tenant_settings_key("acme")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """acme has tickets, globex a catalogue, initech a place in the fleet."""
    made = LocalStore(tmp_path / "store")
    made.put(examples_key("acme"), b"tickets")
    write_catalogue(made, "globex", make_catalogue([Macro(id="a", title="A")]), etag=None)
    update_fleet(made, {"initech": lambda _: FleetEntry(reason="new")})
    return made


def test_a_setting_is_the_tenants_own_until_it_is_taken_away(store: LocalStore) -> None:
    assert read_tenant_settings(store, "acme") == TenantSettings()
    edit_tenant_settings(store, ["acme"], {"least_tickets": 50, "program": "encoder"})
    edit = edit_tenant_settings(store, ["acme"], {"least_tickets": None, "months": 12})["acme"]
    assert edit.before == TenantSettings(least_tickets=50, program="encoder")
    assert edit.after == read_tenant_settings(store, "acme") == TenantSettings(program="encoder", months=12)


@pytest.mark.parametrize("versioned", [False, True])
def test_who_is_deleted_meanwhile_has_no_settings(versioned: bool) -> None:
    store = MemoryStore(versioned=versioned)
    store.put(examples_key("acme"), b"tickets")

    def delete(key: str) -> None:
        """The deletion has looked for everything by the time that the settings are written."""
        if key == KEY:
            store.on_put = lambda _: None
            bury(store, "acme", token=1)

    store.on_put = delete
    with pytest.raises(TenantDeleted):
        edit_tenant_settings(store, ["acme"], {"months": 12})
    assert list(store.states(KEY)) == []


def test_setting_it_again_writes_nothing(store: LocalStore) -> None:
    edit_tenant_settings(store, ["globex"], {"months": None})
    assert list(store.list("tenants/globex/settings")) == []
    edit_tenant_settings(store, ["acme"], {"weights": "int8"})
    before = store.head(KEY)
    assert edit_tenant_settings(store, ["acme"], {"weights": "int8"})["acme"].before.weights == "int8"
    assert store.head(KEY) == before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"least_ticket": 5}, "the setting least_ticket cannot be used"),
        ({"least_tickets": 0}, "the setting least_tickets cannot be used"),
        ({"least_macros": -1}, "the setting least_macros cannot be used"),
        ({"months": 0}, "the setting months cannot be used"),
        ({"retrain_after_days": 0}, "the setting retrain_after_days cannot be used"),
        ({"precision": 1.0}, "the setting precision cannot be used"),
        ({"precision": float("nan")}, "the setting precision cannot be used"),
        ({"program": "torch"}, "the setting program cannot be used"),
        ({"weights": "float16"}, "the setting weights cannot be used"),
        ({"promotion": "never"}, "the setting promotion cannot be used"),
    ],
)
def test_what_cannot_be_set_is_said_and_nothing_is_written(
    store: LocalStore, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        edit_tenant_settings(store, ["acme"], changes)
    assert KEY not in [info.key for info in store.list()]


def test_what_is_wrong_for_one_is_done_for_none(store: LocalStore) -> None:
    with pytest.raises(TenantNotFound, match="tenant nobody has no tickets and no macros"):
        edit_tenant_settings(store, ["acme", "nobody"], {"months": 1})
    with pytest.raises(InvalidTenant):
        edit_tenant_settings(store, ["acme", "../x"], {"months": 1})
    store.put(tenant_settings_key("globex"), b"{")
    with pytest.raises(InvalidInput, match=r"globex/settings\.json is not valid"):
        edit_tenant_settings(store, ["acme", "globex"], {"months": 1})
    assert KEY not in [info.key for info in store.list()]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"not json", "settings.json is not valid: document: Invalid JSON"),
        (b'{"least_tickets": "many"}', "settings.json is not valid: least_tickets: "),
        (b'{"least_ticket": 5}', "settings.json is not valid: least_ticket: Extra inputs"),
    ],
)
def test_a_bad_document_is_a_clear_error(store: LocalStore, data: bytes, complaint: str) -> None:
    store.put(KEY, data)
    with pytest.raises(InvalidInput, match=complaint):
        read_tenant_settings(store, "acme")


def test_a_tenant_is_known_by_its_tickets_its_macros_or_the_fleet(store: LocalStore) -> None:
    for tenant in ("acme", "globex", "initech"):
        check_known(store, tenant)
    with pytest.raises(TenantNotFound):
        check_known(store, "umbrella")


class Raced(LocalStore):
    """Another writer is quicker so many times."""

    others = 0

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if self.others > 0:
            self.others -= 1
            super().put(key, TenantSettings(months=100 + self.others).to_bytes())
        return super().put(key, data, if_match=if_match, if_absent=if_absent)


def test_another_writers_settings_stay(store: LocalStore, tmp_path: Path) -> None:
    raced = Raced(tmp_path / "store")
    raced.others = 2
    edit = edit_tenant_settings(raced, ["acme"], {"precision": 0.9})["acme"]
    assert edit.before == TenantSettings(months=100)
    assert read_tenant_settings(store, "acme") == TenantSettings(months=100, precision=0.9)
    raced.others = 1000
    with pytest.raises(PublishConflict, match="kept changing"):
        edit_tenant_settings(raced, ["acme"], {"precision": 0.8})


class LosesAnswers(LocalStore):
    """Takes every write, and answers as its retry would be answered."""

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        super().put(key, data, if_match=if_match, if_absent=if_absent)
        raise PreconditionFailed("the object is there")


def test_ones_own_success_found_again_is_a_success(store: LocalStore, tmp_path: Path) -> None:
    edit = edit_tenant_settings(LosesAnswers(tmp_path / "store"), ["acme"], {"months": 3})["acme"]
    assert (edit.before, edit.after) == (TenantSettings(), TenantSettings(months=3))
