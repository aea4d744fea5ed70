"""The servers of the comparison, by name."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.fastapi_peer import Dedicated, FastApi, FastApiVariables
from benchmarks.peers.mlserver import MlServer
from benchmarks.peers.mms import MultiModelServer
from benchmarks.peers.ours import Echo, Ours
from benchmarks.peers.ray_serve import RayServe
from benchmarks.peers.server import Peer

PEERS: Mapping[str, type[Peer]] = {
    peer.name: peer for peer in (Ours, Echo, FastApi, FastApiVariables, MultiModelServer, MlServer, RayServe, Dedicated)
}
