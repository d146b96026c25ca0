"""Through which channel did somebody come?

The words and the order are those of Google Analytics 4's default channel group, so that numbers can
be laid side by side: what a campaign says of itself first, then the page that linked here. Of that
page's address nothing is kept but this word. A link from the shop's own pages, or back from a
payment or a login, is no way of coming: it has no channel.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from schemas.circumstances import Channel
from schemas.events import EMAIL_EVENTS

Kind = Literal["search", "shopping", "social", "video", "email", "none", "other"]
"""What sort of place a link stands in; "none" is one that people only pass through."""

_NAMES: Final[Mapping[Kind, str]] = {
    "search": "aol ask baidu bing duckduckgo ecosia google kagi mojeek naver qwant seznam "
    "startpage yahoo yandex search.brave.com search.yahoo.com search.seznam.cz "
    "yandex.ru cn.bing.com so.com sogou.com com.google.android.googlequicksearchbox",
    "shopping": "aliexpress allegro amazon ebay etsy heureka idealo mercadolibre "
    "mercadolivre pricerunner shopping.google.com shopzilla walmart zalando zbozi",
    "social": "bereal bluesky bsky bsky.app discord facebook fb fb.com fb.me ig instagram "
    "linkedin lnkd.in mastodon mastodon.social meta ok.ru pinterest quora reddit snapchat "
    "t.co t.me telegram threads threads.net tiktok tumblr twitter vk vk.com wa.me wechat "
    "weibo whatsapp x.com xing com.reddit.frontpage",
    "video": "dailymotion disneyplus hulu netflix twitch vimeo youku youtu.be youtube",
    "email": "gmail mail.google.com mail.yahoo.com outlook.com outlook.live.com "
    "outlook.office.com outlook.office365.com email.seznam.cz com.google.android.gm "
    "com.microsoft.office.outlook",
    "none": "accounts.google.com appleid.apple.com login.microsoftonline.com paypal.com "
    "checkout.stripe.com checkout.paypal.com hooks.stripe.com klarna.com pay.google.com "
    "adyen.com secure.payu.com payu.com gopay.cz comgate.cz",
}
_KINDS: Final[Mapping[str, Kind]] = {
    name: kind for kind, names in _NAMES.items() for name in names.split()
}
_BEFORE = frozenset({"www", "m", "l", "lm", "mobile", "amp", "old", "out", "away", "web"})
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})
_MAILBOXES = frozenset({"mail", "webmail", "email"})

_PAID = re.compile(r".*cp.*|ppc|retargeting|paid.*")
_SHOP = re.compile(r"(?:.*[^a-df-z]|)shop(?:.*)|.*shopping.*")
_NAMED_MEDIA: Final[Mapping[Channel, tuple[str, ...]]] = {
    "display": ("display", "banner", "expandable", "interstitial", "cpm"),
    "organic_social": (
        "social",
        "social-network",
        "social-media",
        "sm",
        "social network",
        "social media",
    ),
    "organic_search": ("organic",),
    "referral": ("referral", "app", "link"),
    "email": ("email", "e-mail", "e_mail", "e mail"),
    "affiliates": ("affiliate", "affiliates"),
    "audio": ("audio",),
    "sms": ("sms",),
}
_MEDIA: Final[Mapping[str, Channel]] = {
    name: channel for channel, names in _NAMED_MEDIA.items() for name in names
}
_OF_KIND: Final[Mapping[Kind, tuple[Channel, Channel]]] = {
    "shopping": ("paid_shopping", "organic_shopping"),
    "search": ("paid_search", "organic_search"),
    "social": ("paid_social", "organic_social"),
    "video": ("paid_video", "organic_video"),
}
# What advertisers' systems put into the addresses of their links.
_CLICK_IDS: Final[Mapping[str, Channel]] = {
    "gclid": "paid_search",
    "gbraid": "paid_search",
    "wbraid": "paid_search",
    "msclkid": "paid_search",
    "dclid": "display",
    "ttclid": "paid_social",
    "li_fat_id": "paid_social",
}
_HOST = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:@]+)")
_CLICK_ID = re.compile(rf"[?&]({'|'.join(_CLICK_IDS)})=[^&#]")
_LONGEST = 256
_MOST_REMEMBERED = 10_000


def channel_of(event: str, context: Mapping[str, Any]) -> Channel | None:
    """The channel of a call; None when it tells none, as most calls of servers."""
    if event in EMAIL_EVENTS:
        return "email"
    campaign = context.get("campaign")
    if type(campaign) is dict:
        told = _of_campaign(
            _short(campaign.get("source")),
            _short(campaign.get("medium")),
            _short(campaign.get("name")),
        )
        if told is not None:
            return told
    page = context.get("page")
    if type(page) is not dict:
        return None
    here = page.get("url")
    search = page.get("search")
    if search and type(search) is str:
        clicked = _CLICK_ID.search(search[:4096])
        if clicked is not None:
            return _CLICK_IDS[clicked[1]]
    referrer = page.get("referrer")
    if type(referrer) is not str:
        return None
    if referrer == "":
        # A page says so when it was opened by itself; one that a campaign's link opened was not.
        return None if campaign else "direct"
    return _of_link(_host_of(referrer), _host_of(here if type(here) is str else ""))


@lru_cache(maxsize=_MOST_REMEMBERED)
def _of_link(there: str, here: str) -> Channel | None:
    """The channel of a link from the host `there` to the host `here`."""
    if not there or _site_of(there) == _site_of(here):
        return None
    kind = kind_of(there)
    if kind == "none":
        return None
    if kind == "email":
        return "email"
    return _OF_KIND[kind][1] if kind in _OF_KIND else "referral"


@lru_cache(maxsize=_MOST_REMEMBERED)
def _of_campaign(source: str, medium: str, name: str) -> Channel | None:
    """What a campaign says of itself, in the order of the default channel group."""
    source, medium, name = source.strip().lower(), medium.strip().lower(), name.strip().lower()
    if not source and not medium:
        return None
    if source in ("direct", "(direct)") and medium in ("", "(none)", "(not set)", "none"):
        return "direct"
    kind = kind_of(source) if source else "other"
    is_shop = kind == "shopping" or _SHOP.fullmatch(name) is not None
    is_paid = _PAID.fullmatch(medium) is not None
    if is_shop:
        kind = "shopping"
    if is_paid and kind in _OF_KIND:
        return _OF_KIND[kind][0]
    told = _MEDIA.get(medium)
    if told == "display":
        return told
    if is_paid:
        return "paid_other"
    if is_shop:
        return "organic_shopping"
    if told is None and "video" in medium:
        return "organic_video"
    if told is not None and told != "referral":
        return told
    if source in ("email", "e-mail", "e_mail", "e mail") or (not medium and kind == "email"):
        return "email"
    if source == "sms":
        return "sms"
    if medium.endswith("push") or "mobile" in medium or "notification" in medium:
        return "push"
    if source == "firebase":
        return "push"
    if kind in _OF_KIND:
        return _OF_KIND[kind][1]
    return told


@lru_cache(maxsize=_MOST_REMEMBERED)
def kind_of(place: str) -> Kind:
    """The kind of a host (`www.google.cz`) or of a campaign's source (`google`), in small letters.

    A name of the table without a dot is a brand's: it stands for all of its countries' hosts.
    """
    known = _KINDS.get(place)
    if known is not None:
        return known
    if "." not in place:
        return "other"
    labels = place.split(".")
    while len(labels) > 2 and labels[0] in _BEFORE:
        del labels[0]
    bare = ".".join(labels)
    if bare in _KINDS:
        return _KINDS[bare]
    if labels[0] in _MAILBOXES:
        return "email"
    site = _site_of(bare)
    brand = site.partition(".")[0]
    of_site = _KINDS.get(site) or _KINDS.get(brand, "other")
    # Of a search engine's other hosts most are other things: documents, maps, news.
    if (
        of_site == "search"
        and bare != site
        and labels[0] not in ("images", "lite", "html", "search")
    ):
        return "other"
    return of_site


def _site_of(host: str) -> str:
    """The part of a host that somebody registered, nearly: `shop.example.co.uk` as
    `example.co.uk`."""
    labels = host.split(".")
    if len(labels) <= 2:
        return host
    most = 3 if len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-most:])


def _host_of(url: str) -> str:
    """The host of a URL in small letters; empty if there is none."""
    found = _HOST.match(url, 0, _LONGEST)
    return found[1].rstrip(".").lower() if found is not None else ""


def _short(value: object) -> str:
    return value[:_LONGEST] if type(value) is str else ""
