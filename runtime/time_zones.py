"""In which time zone do people of a country live?

The time zone database says which zones a country has (its zone.tab, in the package tzdata). Where
that is one, it is everybody's. Where it is more, only people themselves can say: but for countries
whose other zones are islands and towns with less than a twentieth of the people.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_NEARLY_ALL = {
    "CL": "America/Santiago",
    "CN": "Asia/Shanghai",
    "CY": "Asia/Nicosia",
    "DE": "Europe/Berlin",
    "EC": "America/Guayaquil",
    "ES": "Europe/Madrid",
    "NZ": "Pacific/Auckland",
    "PT": "Europe/Lisbon",
    "UA": "Europe/Kyiv",
}


@cache
def zones_by_country() -> Mapping[str, str]:
    """ISO 3166 code -> name of the zone of nearly everybody there; no others."""
    table = resources.files("tzdata").joinpath("zoneinfo/zone.tab").read_text("utf-8")
    found: dict[str, list[str]] = {}
    for line in table.splitlines():
        if not line.startswith("#"):
            country, _, name = line.split("\t")[:3]
            found.setdefault(country, []).append(name)
    alone = {country: names[0] for country, names in found.items() if len(names) == 1}
    return MappingProxyType(alone | _NEARLY_ALL)


def is_zone(name: str) -> bool:
    """True for a name of the time zone database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
