"""The industries, the languages each is written in, and names for companies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.synthetic.data import (
    ecommerce,
    fintech,
    food_delivery,
    german,
    japanese,
    saas,
    spanish,
    telecom,
    travel,
)
from training.synthetic.grammar import Pack
from training.synthetic.languages import pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Industry:
    """One industry.

    Attributes:
        blocks: language code to that language's intents, as a block of the grammar. Whatever other languages have,
            English has too.
        suffixes: second halves of company names.
        channels: shares of email, web, chat and api among the tickets.
    """

    blocks: Mapping[str, str]
    suffixes: tuple[str, ...]
    channels: tuple[int, int, int, int]

    def pack(self, code: str) -> Pack:
        """The phrases and intents of a language."""
        return pack(code, self.blocks[code])


INDUSTRY: Mapping[str, Industry] = {
    "ecommerce": Industry(
        blocks={"en": ecommerce.PACK, "de": german.ECOMMERCE},
        suffixes=("outdoor", "home", "shop", "living", "sports", "goods"),
        channels=(45, 30, 20, 5),
    ),
    "saas": Industry(
        blocks={"en": saas.PACK},
        suffixes=("cloud", "apps", "labs", "works", "hq"),
        channels=(40, 30, 15, 15),
    ),
    "travel": Industry(
        blocks={"en": travel.PACK, "ja": japanese.TRAVEL},
        suffixes=("travel", "tours", "holidays", "trips"),
        channels=(55, 25, 17, 3),
    ),
    "fintech": Industry(
        blocks={"en": fintech.PACK},
        suffixes=("pay", "bank", "finance", "money"),
        channels=(35, 25, 35, 5),
    ),
    "telecom": Industry(
        blocks={"en": telecom.PACK, "es": spanish.TELECOM},
        suffixes=("mobile", "telecom", "connect", "fibre"),
        channels=(40, 30, 28, 2),
    ),
    "food-delivery": Industry(
        blocks={"en": food_delivery.PACK},
        suffixes=("eats", "kitchen", "delivery", "food"),
        channels=(30, 25, 40, 5),
    ),
}

PREFIXES = (
    *("northwind", "bluebird", "copper", "lantern", "harbour", "juniper", "maple", "orbit", "pebble", "quartz"),
    *("river", "saffron", "tandem", "umbra", "velvet", "willow", "zephyr", "amber", "birch", "cobalt"),
    *("delta", "ember", "falcon", "granite", "hazel", "indigo", "kestrel", "lumen", "meadow", "nimbus"),
)
