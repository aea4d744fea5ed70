"""Recent traffic on local disk, so that a server that starts knows whom to preload first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from registry.documents import Document
from registry.errors import InvalidInput
from serving.engine.traffic import Traffic
from serving.threads import Workers

_LOG = logging.getLogger(__name__)
_NAME = "traffic.json"
_MAX_BYTES = 64 * 1024 * 1024
_MAX_TENANTS = 100_000
_SECONDS = 60.0


class TrafficRecord(Document):
    """Decayed requests by tenant, as `serving.engine.traffic` counts them."""

    model_config = ConfigDict(extra="ignore")

    tenants: Annotated[dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(max_length=_MAX_TENANTS)]


def read_traffic(folder: Path) -> dict[str, float]:
    """What the last server in this disk tier counted; nothing where there is no record that can be read."""
    try:
        data = (folder / _NAME).read_bytes()[: _MAX_BYTES + 1]
        return TrafficRecord.parse(data, what=str(folder / _NAME), error=InvalidInput).tenants
    except FileNotFoundError:
        return {}
    except (OSError, InvalidInput) as problem:
        _LOG.warning("the record of recent traffic cannot be read", exc_info=problem)
        return {}


def write_traffic(folder: Path, requests: Mapping[str, float]) -> None:
    """Replace the record. A disk that refuses costs nothing but the record."""
    record = TrafficRecord(tenants=dict(list(requests.items())[:_MAX_TENANTS]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=folder, prefix=f".{_NAME}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(record.to_bytes())
            os.replace(beside, folder / _NAME)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as problem:
        _LOG.warning("the record of recent traffic cannot be written", exc_info=problem)


class TrafficRecorder:
    """Keeps the record of one process's traffic. Owned by one event loop.

    Args:
        traffic: what is counted.
        folder: the disk tier's.
        workers: the thread that reads and writes it.
    """

    def __init__(self, traffic: Traffic, folder: Path, *, workers: Workers) -> None:
        self._traffic = traffic
        self._folder = folder
        self._workers = workers

    async def restore(self) -> None:
        """Add what the last server counted."""
        self._traffic.restore(await self._workers.run(read_traffic, self._folder))

    async def write(self) -> None:
        """Replace the record by what is counted now."""
        await self._workers.run(write_traffic, self._folder, self._traffic.requests())

    async def forget_all_but(self, tenants: Container[str]) -> None:
        """Drop tenants that are not in the fleet any more, from the record as well."""
        if self._traffic.forget_all_but(tenants):
            await self.write()

    async def run(self) -> None:
        """Write it once a minute, until cancelled."""
        while True:
            await asyncio.sleep(_SECONDS)
            await self.write()
