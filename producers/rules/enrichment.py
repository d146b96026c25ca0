"""What do we make of an address, a user agent and a referrer, before they are dropped or sealed?

Country, device, channel and time zone: each a word of a closed list that thousands of people share
(ADR 0022). They travel readable in the context, whatever `[fields.context]` says, and only where
they are known. Names that are made here are never taken from a call: what it sends under them is
sealed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from producers.rules.addresses import country_of
from producers.rules.channels import channel_of
from producers.rules.devices import Devices, is_own, of_app
from schemas.circumstances import Device, word_of
from schemas.events import MADE_CONTEXT

JsonObject = dict[str, Any]

MADE: Final = frozenset(name.partition(".")[0] for name in MADE_CONTEXT)
"""Names in the clear context that only we fill."""


@dataclass(frozen=True, slots=True)
class Requester:
    """What the request of a person's own device tells of it; a server's tells nothing."""

    country: str | None
    device: Device


class Enricher:
    """Makes the words. Remembers user agents, nothing of people; for one event loop."""

    def __init__(self, now_ms: int) -> None:
        self._devices = Devices(now_ms)

    def requester_of(self, agent: str, address: str, now_ms: int) -> Requester | None:
        """What a request tells by itself; None when a server made it for its visitors, whose
        country and device its own address and user agent are not."""
        if not is_own(agent):
            return None
        return Requester(country_of(address), self._devices.of_agent(agent, now_ms))

    def made_of(
        self,
        event: str,
        context: Mapping[str, Any],
        requester: Requester | None,
        now_ms: int,
    ) -> JsonObject:
        """What is known of a call, by its name in the clear context; empty when nothing is."""
        made: JsonObject = {}
        stated = context.get("ip")
        if stated:
            # One that is of nobody was stated to keep the country out: the request's is not asked.
            country = country_of(stated)
        else:
            country = requester.country if requester is not None else None
        if country is not None:
            made["country"] = country
        device = self._device_of(context, requester, now_ms)
        if device is not None:
            made["device"] = {"type": device}
        channel = channel_of(event, context)
        if channel is not None:
            made["channel"] = channel
        zone = context.get("timezone")
        if type(zone) is str and word_of("timezone", zone) is not None:
            made["timezone"] = zone
        return made

    def _device_of(
        self, context: Mapping[str, Any], requester: Requester | None, now_ms: int
    ) -> Device | None:
        agent = context.get("userAgent") or context.get("user_agent")
        if type(agent) is str:
            return self._devices.of_agent(agent, now_ms)
        return of_app(context) or (requester.device if requester is not None else None)
