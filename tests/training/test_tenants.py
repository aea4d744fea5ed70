from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.catalogue import Macro, make_catalogue, read_catalogue
from registry.errors import InvalidInput, InvalidTenant, PreconditionFailed, StoreUnavailable, UnknownMacro
from registry.layout import catalogue_key, examples_key, feedback_key
from registry.store import ObjectInfo
from registry.store.local import LocalStore
from training.datasets import read_tenants
from training.examples import Example
from training.lake import Lake, Merge
from training.tenants import import_examples, read_catalogue_file, title_of


def example(number: int, macro: str | None = "ship", body: str = "where is it") -> Example:
    return Example(
        ticket_id=f"t{number}", body=body, macro_id=macro, applied_at=datetime(2026, 1, 1, number, tzinfo=UTC)
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_examples_come_back_as_they_went_in(store: LocalStore) -> None:
    rows = [
        example(1),
        example(2, None),
        Example(ticket_id="t3", body="日本語", subject="件名", macro_id="x", split="val"),
        Example(ticket_id="t4", body="<p>one</p>", latest="two", macro_id="x", also=("y", "z")),
    ]
    Lake(store).merge("acme", rows)
    assert Lake(store).read("acme") == rows
    assert Lake(store).read("globex") == []
    assert Lake(store).tenants() == ["acme"]
    assert [Lake(store).has(tenant) for tenant in ("acme", "globex")] == [True, False]


class Listed(LocalStore):
    """Notes what it is asked for beyond its folders."""

    asked: list[str]

    def head(self, key: str) -> ObjectInfo:
        self.asked.append(key)
        return super().head(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise AssertionError(f"a whole listing of {prefix}")


def test_tenants_are_those_with_examples_whatever_else_the_lake_has(store: LocalStore, tmp_path: Path) -> None:
    for tenant in ("b", "a-1", "a"):
        Lake(store).merge(tenant, [example(1)])
        for day in range(3):
            store.put(feedback_key(tenant, f"2026-01-0{day + 1}", "w", 1), b"")
    store.put(feedback_key("feedback-only", "2026-01-01", "w", 1), b"")
    store.put("lake/tenants/No.Tenant/examples.parquet", b"")
    store.put("lake/tenants/stray", b"")
    listed = Listed(tmp_path)
    listed.asked = []
    assert Lake(listed).tenants() == ["a", "a-1", "b"]
    assert set(listed.asked) == {examples_key(name) for name in ("a", "a-1", "b", "feedback-only", "stray")}
    listed.asked.clear()
    store.delete(examples_key("b"))
    for day in range(3):
        store.delete(feedback_key("b", f"2026-01-0{day + 1}", "w", 1))
    assert Lake(listed).tenants(known={"a", "a-1", "b"}) == ["a", "a-1"], (
        "of whom nothing is left is not known any more"
    )
    assert set(listed.asked) == {examples_key("feedback-only"), examples_key("stray")}


def test_importing_again_changes_nothing_and_a_correction_replaces(store: LocalStore) -> None:
    lake = Lake(store)
    assert lake.merge("acme", [example(1), example(2)]) == Merge(added=2, changed=0, unchanged=0, total=2)
    etag = store.head(examples_key("acme")).etag
    assert lake.merge("acme", [example(1), example(2)]) == Merge(added=0, changed=0, unchanged=2, total=2)
    assert store.head(examples_key("acme")).etag == etag, "not written again"
    assert lake.merge("acme", [example(2, "refund"), example(3)]) == Merge(added=1, changed=1, unchanged=0, total=3)


def test_every_macro_of_a_ticket_is_one(store: LocalStore) -> None:
    import_examples(store, "acme", [Example(ticket_id="1", body="a", macro_id="x", also=("y",))])
    found = read_catalogue(store, "acme")
    assert found is not None
    assert [macro.id for macro in found[0].macros] == ["x", "y"]
    with pytest.raises(UnknownMacro, match="'z'"):
        import_examples(store, "acme", [Example(ticket_id="2", body="a", macro_id="x", also=("z",))])


def test_importers_at_once_lose_nothing(store: LocalStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: Lake(store).merge("acme", [example(n)]), range(4)))
    assert len(Lake(store).read("acme")) == 4


def test_a_damaged_lake_file_is_named(store: LocalStore) -> None:
    store.put(examples_key("acme"), b"not parquet")
    with pytest.raises(InvalidInput, match="is not a lake file"):
        Lake(store).read("acme")


def test_the_first_import_makes_the_catalogue_from_the_labels(store: LocalStore) -> None:
    import_examples(
        store, "acme", [example(1), example(2, None), example(3, "card_arrival")], titles={"ship": "Ship::Where"}
    )
    found = read_catalogue(store, "acme")
    assert found is not None
    assert {macro.id: macro.title for macro in found[0].macros} == {
        "ship": "Ship::Where",
        "card_arrival": "Card arrival",
    }


def test_a_label_in_no_catalogue_is_named_and_nothing_is_written(store: LocalStore) -> None:
    import_examples(store, "acme", [example(1)])
    before = {info.key: info.etag for info in store.list()}
    with pytest.raises(UnknownMacro, match="'typo'") as caught:
        import_examples(store, "acme", [example(2), example(3, "typo")])
    assert "--add-macros" in caught.value.remedy
    assert {info.key: info.etag for info in store.list()} == before
    import_examples(store, "acme", [example(3, "typo")], add_macros=True)
    assert len(Lake(store).read("acme")) == 2


def test_what_a_customer_wrote_is_not_repeated_where_it_was_taken_for_a_label(store: LocalStore) -> None:
    import_examples(store, "acme", [example(1)])
    with pytest.raises(UnknownMacro) as caught:
        import_examples(store, "acme", [example(2, "please call Jane Canary"), example(3, "typo")])
    assert "'…', 'typo'" in str(caught.value)
    assert "Canary" not in str(caught.value)


def test_a_given_catalogue_replaces_and_is_checked_against(store: LocalStore) -> None:
    catalogue = make_catalogue([Macro(id="ship", title="Ship", active=False)])
    import_examples(store, "acme", [example(1)], catalogue=catalogue)
    found = read_catalogue(store, "acme")
    assert found is not None
    assert found[0] == catalogue
    with pytest.raises(UnknownMacro):
        import_examples(store, "acme", [example(1)], catalogue=make_catalogue([Macro(id="other", title="")]))


@pytest.mark.parametrize("name", ["a/b", "..", "Acme", "a%2Fb", "", "-a", "a" * 64, "a\n"])
def test_a_name_that_is_no_tenants_writes_nothing(store: LocalStore, name: str) -> None:
    with pytest.raises(InvalidTenant, match="is not a tenant name"):
        import_examples(store, name, [example(1)])
    assert list(store.list()) == []


def test_a_catalogue_file(tmp_path: Path) -> None:
    path = tmp_path / "macros.json"
    path.write_text('[{"id": "a", "title": "A"}, {"id": "b", "title": "B", "active": false}]')
    assert [macro.id for macro in read_catalogue_file(path).macros] == ["a", "b"]
    for text in (
        "{",
        "[" * 100_000,
        '{"macros": 1}',
        '[{"id": "a", "title": "A"}, {"id": "a", "title": "B"}]',
        '[{"id": ""}]',
        "7",
    ):
        path.write_text(text)
        with pytest.raises(InvalidInput):
            read_catalogue_file(path)


def test_titles_of_labels() -> None:
    assert title_of("card_arrival") == title_of("CARD_ARRIVAL") == "Card arrival"
    assert title_of("Refund_not_showing_up") == "Refund not showing up"
    assert title_of("__") == "__"


def test_domains_are_tenants_unless_the_file_is_one(tmp_path: Path) -> None:
    path = tmp_path / "Shop Data.csv"
    path.write_text("text,label,domain\na,x,Shop A\nb,y,bank\nc,oos,oos\nd,x,\n")
    several = read_tenants(path, where={}, out_of_scope=frozenset({"oos"}))
    assert {tenant: [e.text for e in found.examples] for tenant, found in several.items()} == {
        "shop-a": ["a", "c"],
        "bank": ["b", "c"],
        "shop-data": ["d", "c"],
    }
    one = read_tenants(path, where={}, out_of_scope=frozenset({"oos"}), single_tenant=True)
    assert {tenant: len(found.examples) for tenant, found in one.items()} == {"shop-data": 4}
    path.write_text("text,label,domain\na,x,Shop A\nb,y,shop-a\n")
    with pytest.raises(InvalidInput, match="two domains become the tenant 'shop-a'"):
        read_tenants(path, where={}, out_of_scope=frozenset())


def test_a_name_that_gives_no_tenant_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label,domain\na,x,日本\n")
    with pytest.raises(InvalidInput, match="no tenant name can be made of '日本'"):
        read_tenants(path, where={}, out_of_scope=frozenset())


class Store(LocalStore):
    """Fails, or takes a write and loses the answer, at chosen keys."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.full: str | None = None
        self.lossy: set[str] = set()

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        if key == self.full:
            raise StoreUnavailable("no space left")
        etag = super().put(key, data, if_match=if_match, if_absent=if_absent)
        if key in self.lossy:
            self.lossy.remove(key)
            raise PreconditionFailed("the object exists")
        return etag


def test_an_import_that_cannot_write_the_lake_leaves_the_catalogue_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.full = examples_key("acme")
    with pytest.raises(StoreUnavailable):
        import_examples(store, "acme", [example(1)])
    assert list(store.list()) == []


def test_answers_lost_on_the_way_are_no_conflict_and_the_report_is_right(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.lossy = {examples_key("acme"), catalogue_key("acme")}
    merge = import_examples(store, "acme", [example(1)])
    assert (merge, store.lossy) == (Merge(added=1, changed=0, unchanged=0, total=1), set())


def test_first_imports_at_once_both_arrive(tmp_path: Path) -> None:
    def load(number: int) -> None:
        import_examples(LocalStore(tmp_path), "acme", [example(number, f"m{number}")], add_macros=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load, range(4)))
    found = read_catalogue(LocalStore(tmp_path), "acme")
    assert found is not None
    assert {macro.id for macro in found[0].macros} == {"m0", "m1", "m2", "m3"}
    assert len(Lake(LocalStore(tmp_path)).read("acme")) == 4
