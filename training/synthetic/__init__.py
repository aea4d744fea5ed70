"""Realistic support tickets of invented companies, made from a seed: for demonstrations, tests and benchmarks.

Nothing here is anybody's data: the phrases are the project's own, and each ticket is put together from several of them.
"""

from __future__ import annotations

from training.synthetic.generator import (
    DEFAULT_END,
    INDUSTRIES,
    LOCALES,
    SyntheticMacro,
    SyntheticTenant,
    SyntheticTicket,
    locales_of,
    macros_of,
    make_fleet,
    make_tenant,
)

__all__ = [
    "DEFAULT_END",
    "INDUSTRIES",
    "LOCALES",
    "SyntheticMacro",
    "SyntheticTenant",
    "SyntheticTicket",
    "locales_of",
    "macros_of",
    "make_fleet",
    "make_tenant",
]
