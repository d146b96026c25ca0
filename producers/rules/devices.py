"""On what kind of device did something happen?

One word out of a user agent: a closed list that tells a marketer how a page was seen, and tells
nobody who saw it. `ua-parser` (the expressions of the ua-parser project) knows the systems and the
robots; tablets and what is no computer at all are told by the words that their makers agreed on. An
iPad that asks for desktop pages says it is a Mac, and is taken for one.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

from ua_parser import Domain, PartialResult
from ua_parser.basic import Resolver
from ua_parser.loaders import load_builtins

from producers.rules.quota import Quota
from schemas.circumstances import DEVICES, Device

LONGEST_AGENT = 512
"""Characters that are read; those of real devices have some 150."""
MOST_REMEMBERED = 10_000
PARSED_PER_S = 200
"""New ones; each takes the parser half a millisecond, and a flood of them must not stop intake."""

_ROBOT = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|headless|lighthouse|python-|curl/|wget/", re.I
)
# Fetches for a mailbox: nobody's device can be told by it.
_PROXY = re.compile(r"GoogleImageProxy|YahooMailProxy|ggpht\.com")
_NO_COMPUTER = re.compile(
    r"\b(?:smart-?tv|hbbtv|google ?tv|apple ?tv|android ?tv|bravia|roku|crkey|aft[a-z]{1,3}|"
    r"playstation|xbox|nintendo)\b",
    re.I,
)
_TABLET = re.compile(r"iPad|Tablet|Kindle|\bSilk/|PlayBook")
_PHONE = re.compile(r"iPhone|iPod|Mobile|Phone|CFNetwork/")
_DESKTOP = re.compile(r"Windows NT|Macintosh|X11|CrOS|Linux x86_64")
_DESKTOPS = frozenset(
    {"Windows", "Mac OS X", "Linux", "Chrome OS", "Ubuntu", "Fedora", "Debian", "FreeBSD"}
)
_PHONES = frozenset({"iOS", "Android", "Windows Phone", "KaiOS", "HarmonyOS"})
_OF_A_PERSON = ("Mozilla/", "Dalvik/", "Opera/")


def is_own(agent: str) -> bool:
    """True if a request with this user agent comes from a person's device, not from a server.

    SDKs of servers name themselves; browsers and apps name what they run on.
    """
    return agent.startswith(_OF_A_PERSON) or "CFNetwork/" in agent


class Devices:
    """Tells devices, and remembers the user agents that it met last. For one event loop."""

    def __init__(self, now_ms: int) -> None:
        self._parse = Resolver(load_builtins())
        self._known: OrderedDict[str, Device] = OrderedDict()
        self._parsing = Quota(PARSED_PER_S, now_ms)

    def of_agent(self, agent: str, now_ms: int) -> Device:
        """The device of a user agent. One too many new ones are told by their words alone."""
        agent = agent[:LONGEST_AGENT]
        known = self._known.get(agent)
        if known is not None:
            self._known.move_to_end(agent)
            return known
        by_words = _by_words(agent)
        if by_words in ("bot", "other"):
            return by_words
        if self._parsing.take(1, now_ms):
            return by_words or "other"
        found = _by_parts(self._parse(agent, Domain.OS | Domain.DEVICE), by_words)
        self._known[agent] = found
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found


def of_app(context: Mapping[str, object]) -> Device | None:
    """The device that an app's or browser's SDK describes without a user agent; None if it does
    not: `context.device` of phones, `context.userAgentData` of browsers (User-Agent Client
    Hints)."""
    device = context.get("device")
    if type(device) is dict:
        kind = device.get("type")
        if type(kind) is str and kind.lower() in ("ios", "android", "mobile", "tablet"):
            model = device.get("model")
            is_tablet = type(model) is str and model.startswith("iPad")
            return "tablet" if is_tablet or kind.lower() == "tablet" else "mobile"
        if type(kind) is str and kind.lower() in DEVICES:
            return cast("Device", kind.lower())
    hints = context.get("userAgentData")
    if type(hints) is dict and type(hints.get("mobile")) is bool:
        return "mobile" if hints["mobile"] else "desktop"
    return None


def _by_words(agent: str) -> Device | None:
    """What the words alone tell; None if they tell nothing."""
    if _ROBOT.search(agent):
        return "bot"
    if _PROXY.search(agent) or _NO_COMPUTER.search(agent):
        return "other"
    if _TABLET.search(agent):
        return "tablet"
    if _PHONE.search(agent):
        return "mobile"
    if "Android" in agent:
        # Browsers on Android say Mobile on phones only; other apps say nothing of it.
        return "tablet" if agent.startswith("Mozilla/") else "mobile"
    if _DESKTOP.search(agent):
        return "desktop"
    return None


def _by_parts(parsed: PartialResult, by_words: Device | None) -> Device:
    """What the parser tells, which knows robots and models; else the words."""
    device, os = parsed.device, parsed.os
    if device is not None and device.family == "Spider":
        return "bot"
    if device is not None and device.brand == "Generic_Android_Tablet":
        return "tablet"
    if by_words is not None:
        return by_words
    if os is not None and os.family in _PHONES:
        return "mobile"
    return "desktop" if os is not None and os.family in _DESKTOPS else "other"
