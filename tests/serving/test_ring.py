"""The ring: what always holds of it, and that a real Envoy has the same one."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleets import tenant_names
from registry.errors import InvalidInput
from serving.proxy.ring import ANCHOR, Ring, replica_ring, tenant_hash
from serving.proxy.routes import Face
from tests.serving.proxied import FACES, World, world

TENANTS = [*tenant_names(300), "a", "0", "acme", "x" * 63, "a-b_c"]
PATHS: dict[Face, str] = {
    "public": "/v1/tenants/{}/suggestions",
    "operator": "/v2/models/{}/infer",
    "sagemaker": "/models/{}/invoke",
}
keys = st.lists(st.text("abcdefgh-0123456789", min_size=1, max_size=12), min_size=1, max_size=8, unique=True)
places = st.integers(1, 3000)


@given(keys, places)
def test_every_tenant_belongs_to_exactly_one(names: list[str], least: int) -> None:
    ring = Ring(names, least_places=least)
    shares = [ring.share(name, TENANTS) for name in names]
    assert sorted(tenant for share in shares for tenant in share) == sorted(TENANTS)
    assert ring.owners(TENANTS) == [ring.owner(tenant) for tenant in TENANTS]


@given(keys, st.data())
def test_who_leaves_has_its_tenants_moved_and_no_others(names: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(names))
    left = [name for name in names if name != gone]
    if not left:
        return
    # Equally many places for each, however many there are, as Envoy has it where the least is reached exactly.
    before = Ring(names, least_places=256 * len(names)).owners(TENANTS)
    after = Ring(left, least_places=256 * len(left)).owners(TENANTS)
    assert all(was == now for was, now in zip(before, after, strict=True) if was != gone)


@given(keys.filter(lambda names: ANCHOR not in names), st.data())
@settings(max_examples=20, deadline=None)
def test_only_the_share_of_who_leaves_moves(names: list[str], data: st.DataObject) -> None:
    """On the ring of our configuration, however many there are; and all of it comes back with the replica."""
    gone = data.draw(st.sampled_from(names))
    before = replica_ring(names).owners(TENANTS)
    if left := [name for name in names if name != gone]:
        after = replica_ring(left).owners(TENANTS)
        assert all(was == now for was, now in zip(before, after, strict=True) if was != gone)


def test_without_an_anchor_others_would_move_as_well() -> None:
    """Why there is one."""
    before, after = (Ring(names).owners(TENANTS) for names in (["a", "b", "c"], ["a", "b"]))
    kept = [(was, now) for was, now in zip(before, after, strict=True) if was != "c"]
    assert 0.1 < sum(was != now for was, now in kept) / len(kept) < 0.25


def test_shares_are_about_equal() -> None:
    counts = Counter(replica_ring(["one", "two", "three"]).owners(tenant_names(9000)))
    assert max(counts.values()) < 1.1 * min(counts.values())


def test_places_that_do_not_go_up_evenly() -> None:
    """Four replicas and six places, Envoy's own example: two, one, two and one."""
    ring = Ring(["a", "b", "c", "d"], least_places=6, most_places=6)
    assert Counter(ring.keys[owner] for owner in ring._owners) == {"a": 2, "b": 1, "c": 2, "d": 1}


def test_keys_that_cannot_be() -> None:
    for names in (["one", "one"], [""], [ANCHOR, ANCHOR]):
        with pytest.raises(InvalidInput):
            Ring(names)
    for weights in ([1], [1, 0], [1, 1, 1]):
        with pytest.raises(InvalidInput, match="weight"):
            Ring(["one", "two"], weights=weights)
    with pytest.raises(InvalidInput, match="no replica"):
        Ring([]).owner("acme")


def test_hashes_are_xxhash64() -> None:
    """The published values of an empty input and of a short one, seed 0."""
    assert tenant_hash("") == 0xEF46DB3751D8E999
    assert tenant_hash("a") == 0xD24EC4F1A98C6E5B


@pytest.mark.anyio
async def test_a_real_envoy_picks_who_was_predicted() -> None:
    async with world(servers=4) as made, httpx.AsyncClient(timeout=30) as client:
        for servers in (made.servers[:3], made.servers[1:3], made.servers):
            await made.show(servers)
            ring = replica_ring([server.name for server in servers])
            for face in FACES if len(servers) == 3 else FACES[:1]:
                assert await picked(client, made, face) == ring.owners(TENANTS), (face, len(servers))


async def picked(client: httpx.AsyncClient, made: World, face: Face) -> list[str]:
    """Who answered for each tenant. One after the other, so that nobody is at its bound."""
    url = made.proxy.url(face)
    return [(await client.post(url + PATHS[face].format(tenant), json={})).json()["server"] for tenant in TENANTS]


@given(keys, st.text(max_size=20))
def test_a_walk_begins_with_the_owner_and_meets_everybody_once(names: list[str], tenant: str) -> None:
    ring = Ring(names, least_places=200, most_places=200)
    walked = list(ring.walk(tenant))
    assert walked[0] == ring.owner(tenant)
    assert sorted(walked) == sorted(ring.keys)
    # Whoever comes second takes over when the first is gone and all others keep their places.
    places = len(names) * (200 // len(names))
    whole = Ring(names, least_places=places, most_places=places)
    if len(names) > 1:
        first, second, *_ = whole.walk(tenant)
        fewer = places - places // len(names)
        assert (
            Ring([name for name in names if name != first], least_places=fewer, most_places=fewer).owner(tenant)
            == second
        )
