"""Under which circumstances does somebody do something?

Four words that the collector makes of a call (ADR 0022) and a person keeps the newest of: each is
one of a closed list, so that nothing else gets in under their names, and thousands share it.
"""

from functools import cache
from typing import Final, Literal, get_args
from zoneinfo import available_timezones

Device = Literal["desktop", "mobile", "tablet", "bot", "other"]
DEVICES: Final[frozenset[str]] = frozenset(get_args(Device))

Channel = Literal[
    "affiliates",
    "audio",
    "direct",
    "display",
    "email",
    "organic_search",
    "organic_shopping",
    "organic_social",
    "organic_video",
    "paid_other",
    "paid_search",
    "paid_shopping",
    "paid_social",
    "paid_video",
    "push",
    "referral",
    "sms",
]
CHANNELS: Final[frozenset[str]] = frozenset(get_args(Channel))

NAMES: Final = ("channel", "country", "device", "timezone")
"""In the order in which a person's record lists them."""


# Words that were met: two hundred countries, six hundred zones and some.
_known: dict[str, dict[object, str]] = {name: {} for name in NAMES}


def word_of(name: str, value: str | float | bool | None) -> str | None:
    """`value`, if it is one of the words that `name`, one of NAMES, can have."""
    known = _known[name]
    word = known.get(value)
    if word is None and type(value) is str and _is_word(name, value):
        word = known[value] = value
    return word


def _is_word(name: str, value: str) -> bool:
    if name == "country":  # ISO 3166-1 alpha-2
        return len(value) == 2 and value.isascii() and value.isalpha() and value.isupper()
    return value in words_of(name)


@cache
def words_of(name: str) -> frozenset[str]:
    """Every word that `name`, one of NAMES but `country`, can have."""
    if name == "channel":
        return CHANNELS
    if name == "device":
        return DEVICES
    # Of the IANA database without what it keeps for old programs: EST, Zulu, localtime.
    return frozenset(zone for zone in available_timezones() if "/" in zone or zone == "UTC")
