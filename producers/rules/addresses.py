"""From which country does a request come?

An address tells much about a person, and two letters of it are enough for a marketer: the country
is looked up in a table that comes with the installation (`iptocc`, made of the allocations of the
five registries), and the address goes no further. Behind a proxy the connection is the proxy's;
what it says in X-Forwarded-For is believed only as far as the operator named the proxies.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import iptocc

Network = IPv4Network | IPv6Network

_MOST_HOPS = 16
_LONGEST_ADDRESS = 45  # an IPv6 address that ends in an IPv4 one
_MAPPED = "::ffff:"


def country_of(address: object) -> str | None:
    """ISO 3166 code of the country that the address was given to; None for one of nobody.

    0.0.0.0, which SDKs send for "none", private addresses and what is no address are of nobody.
    """
    if type(address) is not str or not 2 <= len(address) <= _LONGEST_ADDRESS:
        return None
    if address[: len(_MAPPED)].lower() == _MAPPED:
        address = address[len(_MAPPED) :]
    found = iptocc.country_code(address)
    return found if found is not None and len(found) == 2 else None


def networks_of(proxies: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks (10.0.0.0/8) as such. Raises ValueError for what is neither."""
    return tuple(ip_network(each) for each in proxies)


def is_trusted_by(proxies: Sequence[Network]) -> Callable[[str], bool]:
    """Whether an address is one of the proxies'."""

    def is_trusted(address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in proxies)

    return is_trusted


def client_address(
    peer: str, forwarded_for: Sequence[str], is_trusted: Callable[[str], bool]
) -> str:
    """The address that the first proxy not ours, or the client itself, connected from.

    `forwarded_for` are the values of all X-Forwarded-For fields in order. Each proxy appends whom
    it heard, so the list is read from its end for as long as a trusted proxy wrote it; what stands
    before that anybody may have written (RFC 7239, section 8.1). Empty when a trusted proxy does
    not say whom it heard.
    """
    if not is_trusted(peer):
        return peer
    named = [part for value in forwarded_for for part in value.split(",")]
    for part in named[: -_MOST_HOPS - 1 : -1]:
        address = _without_port(part.strip())
        if not is_trusted(address):
            return address
    return ""


def _without_port(written: str) -> str:
    if written.startswith("["):
        return written[1:].partition("]")[0]
    if written.count(":") == 1:
        return written.partition(":")[0]
    return written
