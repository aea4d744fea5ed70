"""Prices and limits that a user edits, read from TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.errors import InvalidInput

#: Those that come with the code.
DEFAULT = Path(__file__).parent / "prices.toml"
_GIB = 1024**3


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Machine(_Model):
    """Something to rent."""

    name: str
    cores: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    an_hour: float = Field(ge=0)
    multi_model: bool = True

    @property
    def memory_bytes(self) -> float:
        """Its memory."""
        return self.memory_gib * _GIB


class Other(_Model):
    """What comes on top of machines."""

    load_balancer_an_hour: float = Field(ge=0)
    load_balancer_a_gb: float = Field(ge=0)
    endpoint_a_gb: float = Field(ge=0)
    store_a_gb_month: float = Field(ge=0)
    disk_a_gb_month: float = Field(ge=0)


class Container(_Model):
    """What serves the models of a multi-model endpoint; memory in MB (10^6).

    Attributes:
        core_rps: requests a second that fill a core; None is as many as ours.
        peer: its name in a run of `macrofleet bench peers`, whose figures then take the place of these.
    """

    name: str
    model_mb: float = Field(gt=0)
    process_mb: float = Field(ge=0)
    core_rps: float | None = Field(None, gt=0)
    peer: str | None = None


class MultiModel(_Model):
    """Multi-model endpoints beside their instances."""

    models_an_instance: int = Field(gt=0)
    claimed_saving: float = Field(ge=0, le=1)
    containers: tuple[Container, ...] = Field(min_length=1)


class Prices(_Model):
    """A price list."""

    as_of: str
    currency: str
    hours_a_month: float = Field(gt=0)
    machines: tuple[Machine, ...] = Field(min_length=1)
    endpoint_instances: tuple[Machine, ...] = Field(min_length=1)
    other: Other
    multi_model: MultiModel


def read_prices(path: Path = DEFAULT) -> Prices:
    """Read a price list. Raises InvalidInput: it cannot be read, or something in it is not as in the default one."""
    remedy = f"{DEFAULT} is one."
    try:
        return Prices.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", remedy=remedy) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}", remedy=remedy) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{place} in {path}: {first['msg']}", remedy=remedy) from None
